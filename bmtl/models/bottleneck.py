"""A stochastic representation that keeps little of x: Qian et al. (2020), multi-task variational information bottleneck."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Literal, NamedTuple

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from torch import Tensor, nn

from bmtl.models.homoscedastic import Homoscedastic, Kind
from bmtl.models.vmtl.encoders import GaussianEncoder
from bmtl.tasks import shared, task

Inputs = Tensor | Mapping[str, Tensor]


class VariationalBottleneck(Homoscedastic):
    """Regressions and classifications from a latent representation z of each row, with point heads and Kendall's noises.

        z ~ Normal(0, I)    y_t ~ Normal(w_t z + b_t, sigma_t), or Categorical(logits = (w_t z + b_t) / sigma_t^2)

    and in the guide ``z ~ Normal(mu(x), s2(x))``, with mu and s2 linear (and a softplus) on the trunk. The divergence of z
    is an upper bound on what z knows of x; `beta` weighs it. With 1 the objective is the evidence lower bound.

    With common inputs a row has one z for all targets, and its KL is everybody's; with own inputs each target's rows have
    theirs, and the KL is that task's. A row without any label has none. Mean and variance are marked as shared.

    Args:
        trunk: Maps x to ``(B, width)``.
        width: Width of the trunk's output.
        targets: For each target "regression" or its number of classes; each is a task of that name.
        n_data: Number of data, for all targets or, with own inputs, by target: the size of each plate.
        latent: Width of z; that of the trunk's output by default.
        beta: Weight of z's divergence, above 0.
        noise: "parameter" or "fixed", as for `Homoscedastic`.
        likelihood: As for `Homoscedastic`.
        classification: As for `Homoscedastic`; the paper has "kendall".
        generator: Draws initial weights; None uses torch's global generator.

    Raises:
        ValueError: As `Homoscedastic`; if `beta` is not positive or the noise is latent. When called, if inputs are common
            and numbers of data differ.

    Source:
        Qian, Chen & Gechter (2020), "Multi-Task Variational Information Bottleneck".
    """

    def __init__(
        self,
        trunk: nn.Module,
        width: int,
        targets: Mapping[str, Kind],
        n_data: int | Mapping[str, int],
        *,
        latent: int | None = None,
        beta: float = 1.0,
        noise: Literal["fixed", "parameter"] = "parameter",
        likelihood: Literal["gaussian", "laplace"] = "gaussian",
        classification: Literal["exact", "kendall"] = "exact",
        generator: torch.Generator | None = None,
    ) -> None:
        if noise not in ("fixed", "parameter"):
            raise ValueError(f"noise is one of 'fixed', 'parameter', and {noise!r} was given.")
        if not 0 < beta < float("inf"):
            raise ValueError(f"beta is above 0 and finite, and {beta} was given.")
        latent = width if latent is None else latent
        super().__init__(
            GaussianEncoder(trunk, width, latent, generator),
            latent,
            targets,
            n_data,
            noise=noise,
            likelihood=likelihood,
            classification=classification,
            generator=generator,
        )
        self.latent, self.beta = latent, beta

    def guide(self) -> nn.Module:  # type: ignore[override]
        """The guide: the encoder, whose parameters are the program's."""
        return _Guide(self)

    def forward(self, x: Inputs, y: Mapping[str, Tensor] | None = None) -> None:
        """The program.

        Args:
            x: Inputs, ``(B, ...)`` for all targets, or each target's own.
            y: Targets ``(B,)`` by name, NaN (regression) or -1 (classes) where a label is missing; None predicts.
        """
        like = next(self.heads.parameters())
        prior = dist.Normal(like.new_zeros(()), like.new_ones(()))
        index = {name: i for i, name in enumerate(self.targets)}
        for code in self._codes(x, y):
            with self._latent_rows(code):
                z = pyro.sample(code.site, prior.expand([len(code.x), self.latent]).to_event(1))
            for name in code.targets:
                i, kind = index[name], self.targets[name]
                with task(name):
                    f = self._head(i, name, kind, z)
                    s = self._log_variance(i, name)
                    with code.plate:
                        self._observe(name, kind, f, s, None if y is None else y[name])

    def _codes(self, x: Inputs, y: Mapping[str, Tensor] | None) -> Iterator["_Code"]:
        missing = [] if y is None else sorted(set(self.targets) - set(y))
        if y is not None and missing:
            raise ValueError(f"The batch has targets {sorted(y)}, and the program also has {', '.join(missing)}.")
        if isinstance(x, Tensor):
            if len(set(self.n_data.values())) > 1:
                raise ValueError(
                    f"Targets with common inputs share each row's z, and their numbers of data differ: {self.n_data}."
                )
            groups = {"": (tuple(self.targets), x)}
        else:
            absent = sorted(set(self.targets) - set(x))
            if absent:
                raise ValueError(f"x has inputs for {sorted(x)}, and the program also has {', '.join(absent)}.")
            groups = {f"_{name}": ((name,), x[name]) for name in self.targets}
        for suffix, (names, rows) in groups.items():
            plate = pyro.plate(f"{names[0]}_rows", self.n_data[names[0]], subsample=rows)
            labelled = None if y is None else _labelled([y[name] for name in names])
            yield _Code(f"z{suffix}", names, rows, plate, labelled, not isinstance(x, Tensor))

    @contextmanager
    def _latent_rows(self, code: "_Code") -> Iterator[None]:
        """Where z is sampled: its task's if it is one task's, its divergence weighed and left out of unlabelled rows."""
        with ExitStack() as stack:
            if code.own:
                stack.enter_context(task(code.targets[0]))
            stack.enter_context(code.plate)
            stack.enter_context(poutine.scale(scale=self.beta))
            if code.labelled is not None:
                stack.enter_context(poutine.mask(mask=code.labelled))  # type: ignore[call-overload]
            yield


class _Code(NamedTuple):
    """The latent representation of some rows.

    Attributes:
        site: Name of the latent.
        targets: Whose rows they are.
        x: Their inputs ``(B, ...)``.
        plate: Their plate.
        labelled: Which have a label, ``(B,)`` bool; None for prediction.
        own: Whether they are one task's own.
    """

    site: str
    targets: tuple[str, ...]
    x: Tensor
    plate: pyro.plate
    labelled: Tensor | None
    own: bool


def _labelled(labels: list[Tensor]) -> Tensor:
    seen = [~y.isnan() if y.is_floating_point() else y != -1 for y in labels]
    return torch.stack(seen).any(0)


class _Guide(nn.Module):
    """``z ~ Normal(mu(x), s2(x))``.

    Args:
        program: The program, whose parameters stay its own.
    """

    def __init__(self, program: VariationalBottleneck) -> None:
        super().__init__()
        self.program = program

    def forward(self, x: Inputs, y: Mapping[str, Tensor] | None = None) -> None:
        for code in self.program._codes(x, y):
            mean, variance = (shared(part) for part in self.program.trunk(code.x))
            with self.program._latent_rows(code):
                pyro.sample(code.site, dist.Normal(mean, variance.clamp_min(1e-12).sqrt()).to_event(1))
