"""The training rows that other tasks' priors of z and amortised classifiers look up."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

_NO_ROW = -2


class Support(nn.Module):
    """Inputs and labels of T tasks, padded to one length.

    Args:
        x: Inputs by task ``(N_t, D)``, or one tensor for all.
        y: Labels by task ``(N_t,)``.
        names: The tasks.

    Raises:
        ValueError: If a task is missing, inputs are not vectors, or labels have another length.
    """

    x: Tensor
    label: Tensor

    def __init__(
        self,
        x: Tensor | Mapping[str, Tensor],
        y: Mapping[str, Tensor],
        names: tuple[str, ...],
    ) -> None:
        super().__init__()
        inputs = dict.fromkeys(names, x) if isinstance(x, Tensor) else dict(x)
        missing = [name for name in names if name not in inputs or name not in y]
        if missing:
            raise ValueError(f"The support has no inputs or no labels for the tasks {missing}.")
        for name in names:
            if inputs[name].dim() != 2 or y[name].shape != inputs[name].shape[:1]:
                raise ValueError(
                    f"The support of {name!r} has inputs {tuple(inputs[name].shape)} and labels {tuple(y[name].shape)}; "
                    "(N, D) and (N,) are expected, since attention compares inputs as vectors."
                )
        kept = {name: y[name] != -1 if not y[name].is_floating_point() else ~y[name].isnan() for name in names}
        self.names = names
        self.discrete = all(not y[name].is_floating_point() for name in names)
        labels = [y[name][kept[name]] if self.discrete else torch.zeros(int(kept[name].sum())) for name in names]
        self.register_buffer("x", pad_sequence([inputs[n][kept[n]] for n in names], True), persistent=False)
        padded = pad_sequence([label.long() for label in labels], True, _NO_ROW)
        self.register_buffer("label", padded, persistent=False)

    def without(self, classes: int) -> dict[str, list[int]]:
        """The classes of which tasks have no row, by task."""
        present = (self.label[..., None] == torch.arange(classes, device=self.label.device)).any(1)
        return {
            name: (~row).nonzero().flatten().tolist()
            for name, row in zip(self.names, present, strict=True)
            if not row.all()
        }

    def class_means(self, classes: int) -> tuple[Tensor, Tensor]:
        """Mean inputs of each class ``(T, C, D)``, zero for one without a row, and which have one ``(T, C)``."""
        member = (self.label[..., None] == torch.arange(classes, device=self.label.device)).to(self.x)
        counts = member.sum(1)
        means = torch.einsum("tnc,tnd->tcd", member, self.x) / counts.clamp_min(1)[..., None]
        return means, counts > 0

    def attend(self, x: Tensor, label: Tensor | None) -> Tensor:
        """What each task answers to inputs: its rows weighed by their inner products with the input, ``(R, T, D)``.

        The products are divided by their range over the rows, and then a softmax taken; there is no parameter.

        Args:
            x: ``(R, D)``.
            label: ``(R,)``: look at rows with that label only; a missing label (-1), or None, looks at all.
        """
        rows = self.label != _NO_ROW
        allowed = rows.expand(len(x), *rows.shape)
        if label is not None:
            same = self.label == label[:, None, None]
            allowed = allowed & (same | (label == -1)[:, None, None])
        scores = torch.einsum("rd,tnd->rtn", x, self.x)
        highest = scores.masked_fill(~allowed, -torch.inf).amax(-1, keepdim=True)
        lowest = scores.masked_fill(~allowed, torch.inf).amin(-1, keepdim=True)
        # Less the largest before the division: the quotient alone overflows where a class has equal rows.
        scores = ((scores - highest) / (highest - lowest + 1e-9)).masked_fill(~allowed, -torch.inf)
        return torch.einsum("rtn,tnd->rtd", scores.softmax(-1), self.x)
