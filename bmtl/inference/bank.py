"""Many small networks trained as one: splits, seeds and settings of a program whose single step is mostly overhead."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.func import functional_call, vmap

from bmtl import inputs
from bmtl.inference.bank_rows import Data, NetworkRows, form, order
from bmtl.inference.elbo import TaskELBO
from bmtl.inference.errors import NonFinite
from bmtl.inference.loaders import forked, mixed_seed, seed_random_state
from bmtl.inference.site_tasks import task_of_site
from bmtl.inference.varying_attributes import varying_numbers

_BETAS, _EPS = (0.9, 0.999), 1e-8  # torch.optim.Adam's own


class Bank:
    """Networks of one architecture, trained side by side by Adam, each as it would be alone.

    Their parameters are stacked, and one run of the Pyro program under `torch.func.vmap` gives every network's losses. Each
    network has data, a learning rate, a seed and its own numbers, and ends with the parameters, up to rounding, of::

        svi = BalancedSVI(program, program.guide(), partial(torch.optim.Adam, lr=lr), "ew", TaskELBO(normalize="task_mean"))
        for epoch in range(epochs):
            for batch in batches:                          # bmtl.datasets.Batches(x, y, batch_size, seed=seed)
                svi.step(*batch)

    An objective is thus a mean over its task's labelled rows, which a batch estimates without bias, and all objectives have
    weight 1. If no label is missing, `TaskELBO`'s default gives the same. One thing differs: trained alone, parameters of a
    task without any label in a batch stay unchanged, whereas in a bank Adam's momentum still moves them.

    Besides data and parameters, networks may differ in floats that are attributes of a program (``regulariser``,
    ``weight``), as long as they are used in arithmetic only, and in `n_data`, which cancels. Networks with fewer rows than
    others get batches padded with rows without a label, and wait at the end of an epoch while the others have batches left;
    a layer that couples rows, such as batch norm, needs networks with equal numbers of rows.

    A program may draw random numbers, as dropout does in training mode; they differ between networks, steps and draws. They
    come from `noise_seed` for all networks together, so that those of a network depend on the other networks, and its
    result equals that of training alone in distribution only. Torch's own generators are left unchanged.

    Args:
        programs: The networks' programs, called as ``program(x, y)``: plain modules whose only unknowns are parameters.
        data: Each network's inputs and labels. Inputs are tensors or made of such, as a dict of them is
            (`bmtl.inputs.parts`). Networks on the same tensors share their memory.
        batch_size: Rows per batch.
        lr: Adam's learning rate, one for all or one per network.
        seeds: One a network, for the order of its rows.
        noise_seed: For the random numbers that programs draw.

    Attributes:
        names: The tasks, in the order of the program.

    Raises:
        TypeError: If a program is not a module, or a PyroModule; if inputs are not made of tensors or differ by task.
        ValueError: If the arguments differ in length, in targets or in the form of inputs; if programs differ in
            architecture or in an attribute that is not a float; if the program has latents, `pyro.param` statements or
            observed sites outside every task.
        RuntimeError: From torch, if the program branches on a number in which networks differ, as dropout does on its rate.
    """

    def __init__(
        self,
        programs: Sequence[nn.Module],
        data: Sequence[Data],
        *,
        batch_size: int,
        lr: float | Sequence[float],
        seeds: Sequence[int],
        noise_seed: int = 0,
    ) -> None:
        self.programs = list(programs)
        rates = [float(lr)] * len(self) if isinstance(lr, int | float) else list(lr)
        given = {"programs": len(self), "data": len(data), "lr": len(rates), "seeds": len(seeds)}
        if not self.programs or len(set(given.values())) > 1:
            raise ValueError(
                f"A bank of R networks takes R programs, data, rates and seeds, R from 1; the numbers given are {given}."
            )
        if batch_size < 1:
            raise ValueError(f"batch_size is a number of rows, from 1, and {batch_size} was given.")
        if not all(0 < rate < math.inf for rate in rates):
            raise ValueError(f"lr is above 0 and finite, and {lr} was given.")
        constants = varying_numbers(self.programs)
        self.batch_size = batch_size
        self._rows = NetworkRows(data)
        self.names = _tasks(self.programs[0], *data[0])
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        # Apart, so that who reads a bank does not change what it learns.
        self._noise, self._noise_read = (torch.Generator().manual_seed(mixed_seed(noise_seed, k)) for k in (1, 2))
        self._elbo = TaskELBO(normalize="task_mean")
        self._template = copy.deepcopy(self.programs[0])
        self._stack()
        self._constants = {where: self._value.new_tensor(values) for where, values in constants.items()}
        self._mean, self._square = torch.zeros_like(self._value), torch.zeros_like(self._value)
        device = self._value.device
        self._steps = torch.zeros(len(self), 1, dtype=torch.float64, device=device)
        self._rates = torch.tensor(rates, dtype=torch.float64, device=device)[:, None]
        batches = [math.ceil(rows / batch_size) for rows in self._rows.lengths]
        self._batches = torch.tensor(batches, device=device)  # of each network's epoch
        # Seen so far: their ratio is the share of labelled rows, of each task (networks, tasks).
        self._labels_seen = torch.zeros(len(self), len(self.names), dtype=torch.float64, device=device)
        self._rows_seen = torch.zeros(len(self), 1, dtype=torch.float64, device=device)

    def _stack(self) -> None:
        """Stacks the networks' tensors: those that are trained in one matrix, a network per row, and views of it by name."""
        tensors = [dict((*program.named_parameters(), *program.named_buffers())) for program in self.programs]
        trained = [name for name, p in self.programs[0].named_parameters() if p.requires_grad]
        if not trained:
            raise ValueError("The programs have no parameter to train.")
        flat = [torch.cat([of[name].detach().flatten() for name in trained]) for of in tensors]
        self._value = torch.stack(flat)
        self._parameters: dict[str, Tensor] = {}
        at = 0
        for name in trained:
            shape = tensors[0][name].shape
            part = self._value[:, at : at + shape.numel()].view(len(self), *shape)
            self._parameters[name] = part.detach().requires_grad_()  # the same memory: a step moves both
            at += shape.numel()
        rest = [name for name in tensors[0] if name not in trained]
        self._rest = {name: torch.stack([of[name].detach() for of in tensors]) for name in rest}

    def __len__(self) -> int:
        return len(self.programs)

    def fit(self, epochs: int, after_epoch: Callable[[int], Any] | None = None) -> Tensor:
        """Trains every network, and writes the parameters into the programs.

        Args:
            epochs: Number of epochs.
            after_epoch: Called after each epoch with its number, from 1; may `read`, and `write_back`.

        Returns:
            Mean training losses ``(epochs, networks, tasks)``, as of `epoch`.

        Raises:
            NonFinite: As `epoch`.
        """
        losses = []
        for epoch in range(1, epochs + 1):
            losses.append(self.epoch())
            if after_epoch is not None:
                after_epoch(epoch)
        self.write_back()
        return torch.stack(losses) if losses else torch.zeros(0, len(self), len(self.names), dtype=torch.float64)

    def epoch(self) -> Tensor:
        """One epoch of all networks; the programs stay unchanged until `write_back`.

        Returns:
            Training losses, means over the epoch's batches ``(networks, tasks)``, float64 on the host.

        Raises:
            NonFinite: If a loss or a gradient is NaN or infinite; that step is not taken by any network.
        """
        lengths = self._rows.lengths
        orders = [order(n, self.batch_size, g) for n, g in zip(lengths, self._generators, strict=True)]
        places = self._rows.places(orders)
        sums = torch.zeros(len(self), len(self.names), dtype=torch.float64, device=self._value.device)
        with self._seeded(self._noise):
            for i, part in enumerate(places.split(self.batch_size, dim=1)):
                totals, labelled = self._map(self._totals, self._rows, part)  # (networks, tasks)
                losses = totals * self._weights(labelled, (part != self._rows.nowhere).sum(1, keepdim=True))
                gradients = torch.autograd.grad(losses.sum(), list(self._parameters.values()))
                gradient = torch.cat([g.reshape(len(self), -1) for g in gradients], dim=1)
                self._check(losses, gradient, i)
                sums += totals.detach() / labelled.clamp_min(1.0)
                self._step(gradient, i < self._batches)
        return (sums / self._batches[:, None]).cpu()

    def _totals(self, program: Callable[[], None]) -> tuple[Tensor, Tensor]:
        """One network's losses, sums over labelled rows, and the numbers of those."""
        found = self._elbo.task_losses(program, _no_guide).arranged(self.names)
        return found.nll / found.scales, found.labelled

    def _weights(self, labelled: Tensor, rows: Tensor) -> Tensor:
        """The factors of sums over a batch with which they estimate means over all labelled rows.

        Args:
            labelled: Labelled rows of the batch ``(networks, tasks)``.
            rows: Rows of the batch, those that pad it left out, ``(networks, 1)``.
        """
        self._labels_seen += labelled
        self._rows_seen += rows
        share = self._labels_seen.clamp_min(1.0) / self._rows_seen.clamp_min(1.0)
        return (1.0 / (rows.clamp_min(1) * share)).to(labelled)

    def _map(self, function: Callable[[Callable[[], None]], Any], rows: NetworkRows, places: Tensor) -> Any:
        """A function of each network's program on its rows, for all networks at once.

        Args:
            function: Of a program without arguments.
            rows: Of all networks.
            places: Of each network's rows ``(networks, B)``.
        """
        modules = dict(self._template.named_modules())

        def one(state: dict[str, Tensor], numbers: dict[tuple[str, str], Tensor], parts: Any, y: Any) -> Any:
            x = inputs.with_parts(rows.like, parts)
            for (module, attribute), number in numbers.items():
                setattr(modules[module], attribute, number)
            return function(lambda: functional_call(self._template, state, (x, y)))

        with pyro.validation_enabled(False):  # its checks depend on values, which vmap does not have
            return vmap(one, randomness="different")(
                {**self._parameters, **self._rest}, self._constants, *rows.at(places)
            )

    @contextmanager
    def _seeded(self, noise: torch.Generator) -> Iterator[None]:
        """Torch's own generators, which layers draw from, seeded for the time being."""
        with forked(None):  # the seed is every device's
            seed_random_state(int(torch.randint(2**62, (), generator=noise)))
            yield

    def _check(self, losses: Tensor, gradient: Tensor, batch: int) -> None:
        fine = losses.isfinite().all(1) & gradient.isfinite().all(1)
        if not fine.all():
            k = int((~fine).nonzero()[0])
            named = dict(zip(self.names, losses[k].tolist(), strict=True))
            raise NonFinite(
                f"Network {k} of the bank has a loss or a gradient that is not finite, in batch {batch + 1} of its epoch; "
                f"its losses are {named}. The step was not taken."
            )

    @torch.no_grad()
    def _step(self, gradient: Tensor, active: Tensor) -> None:
        """Adam's step, of the networks that have a batch."""
        everybody = bool(active.all())
        whole = (self._value, self._mean, self._square, self._steps)
        value, mean, square, steps = whole if everybody else tuple(tensor[active] for tensor in whole)
        gradient, rates = (gradient, self._rates) if everybody else (gradient[active], self._rates[active])
        steps += 1
        mean.lerp_(gradient, 1 - _BETAS[0])
        square.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
        size = (rates / (1 - _BETAS[0] ** steps)).to(value)
        root = (1 - _BETAS[1] ** steps).sqrt().to(value)
        value -= size * (mean / (square.sqrt() / root).add_(_EPS))
        if not everybody:
            for tensor, part in zip(whole, (value, mean, square, steps), strict=True):
                tensor[active] = part

    @torch.no_grad()
    def read(
        self, function: Callable[[Trace], Mapping[str, Tensor]], data: Sequence[Data], draws: int | None = None
    ) -> dict[str, Tensor]:
        """Values that a function reads from every program's trace, for the current networks.

        Args:
            function: From a trace of the program, with its labels, to named tensors ``(N, ...)``, a row each. It sees one
                network: ``lambda trace: {"mean": trace.nodes["y_price"]["fn"].mean}``.
            data: Each network's inputs and labels.
            draws: How often the programs run, if they draw random numbers; None is once. Dropout in training mode has a mask
                for each row: a draw is one of every row's own predictive.

        Returns:
            Tensors ``(networks, N, ...)`` by name, ``(draws, networks, N, ...)`` with `draws`; where a network has fewer
            rows than another, the rest is NaN.

        Raises:
            ValueError: If `data` is not one per network or has inputs of another form than the training data, `draws` is
                below 1, or what is read has not a row each.
        """
        if draws is not None and draws < 1:
            raise ValueError(f"draws is a number of draws, from 1, and {draws} was given.")
        if len(data) != len(self):
            raise ValueError(f"The bank has {len(self)} networks, and data of {len(data)} were given.")
        rows = NetworkRows(data)
        if form(rows.like) != form(self._rows.like):
            raise ValueError(
                f"The bank was trained on inputs of the form {form(self._rows.like)}, and {form(rows.like)} were given "
                "(name: shape of a row, type)."
            )
        places = rows.places([torch.arange(n) for n in rows.lengths])
        with self._seeded(self._noise_read):
            drawn = [self._read(function, rows, places) for _ in range(draws or 1)]
        return drawn[0] if draws is None else {name: torch.stack([one[name] for one in drawn]) for name in drawn[0]}

    def _read(
        self, function: Callable[[Trace], Mapping[str, Tensor]], rows: NetworkRows, places: Tensor
    ) -> dict[str, Tensor]:
        there = places != rows.nowhere
        found = self._map(lambda program: dict(function(poutine.trace(program).get_trace())), rows, places)
        for name, tensor in found.items():
            if tensor.shape[:2] != there.shape:
                shape = tuple(tensor.shape[1:])
                raise ValueError(
                    f"{name!r} is read with the shape {shape}; expected a row each, ({there.shape[1]}, ...)."
                )
            found[name] = torch.where(there.reshape(*there.shape, *[1] * (tensor.dim() - 2)), tensor, torch.nan)
        return found

    @torch.no_grad()
    def write_back(self) -> None:
        """Copies the current parameters and buffers into the programs."""
        state = {**self._parameters, **self._rest}
        for i, program in enumerate(self.programs):
            for name, tensor in (*program.named_parameters(), *program.named_buffers()):
                tensor.copy_(state[name][i])


def _no_guide() -> None:
    """The guide of a program without latents."""


def _tasks(program: nn.Module, x: Any, y: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The program's tasks, from a run on a few rows; that it has nothing that a bank does not train."""
    with torch.no_grad(), torch.random.fork_rng():
        trace = poutine.trace(program).get_trace(
            inputs.take(x, slice(0, 2)), {name: labels[:2] for name, labels in y.items()}
        )
    names: dict[str, None] = {}
    for name, site in trace.nodes.items():
        if site["type"] == "param":
            raise ValueError(f"A bank trains the parameters of modules, and {name!r} is a pyro.param: use BalancedSVI.")
        if site["type"] != "sample" or site_is_subsample(site):
            continue
        if not site["is_observed"]:
            raise ValueError(f"A bank trains programs without latents, and {name!r} is one: use BalancedSVI.")
        owners = task_of_site(site).names
        if not owners:
            raise ValueError(f"The site {name!r} belongs to no task; put it under bmtl.task(...).")
        names.update(dict.fromkeys(owners))
    if not names:
        raise ValueError("The program has no observed site, and so nothing to train on.")
    return tuple(names)
