"""Small task models and guides that the tests of inference share."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

import bmtl
from bmtl.models import BayesianHeads, LinearHeads, TaskModel
from bmtl.models.likelihoods import Categorical, Gaussian

TASKS = ("a", "b", "c")
ROWS = 6
N_DATA = 20
NAN = math.nan


def batch(rows: int = ROWS, seed: int = 0, missing: bool = True) -> tuple[Tensor, dict[str, Tensor]]:
    """Inputs (rows, 3) and targets by task, of which some are missing: none of a's, two of b's, all but two of c's."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 3, generator=generator)
    y = {name: torch.randn(rows, generator=generator) for name in TASKS}
    if missing:
        y["b"][:2] = NAN
        y["c"][2:] = NAN
    return x, y


def task_model(
    trunk: nn.Module,
    width: int,
    classes: dict[str, int],
    n_data: int | dict[str, int],
    *,
    noise: str = "parameter",
    head: str = "linear",
    generator: torch.Generator | None = None,
) -> TaskModel:
    """A `TaskModel` of targets with so many classes; 0 is a real target."""
    likelihoods = {name: Categorical(count, noise) if count else Gaussian(noise) for name, count in classes.items()}
    heads = {"linear": LinearHeads, "bayesian": BayesianHeads}[head]
    return TaskModel(trunk, width, likelihoods, n_data, head=heads, generator=generator)


@contextmanager
def double() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Sites(PyroModule):
    """A shared latent, two latents a task of which one is positive, and ragged rows: one tagged site after another."""

    def __init__(self, n_data: int | dict[str, int] = N_DATA) -> None:
        super().__init__()
        self.n_data = n_data if isinstance(n_data, dict) else dict.fromkeys(TASKS, n_data)
        self.trunk = nn.Linear(3, 2)
        self.bias = nn.ParameterDict({name: nn.Parameter(torch.tensor(0.1 * i)) for i, name in enumerate(TASKS)})
        self.spread = nn.Parameter(torch.tensor(0.2))

    def forward(self, x: Tensor, y: dict[str, Tensor]) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2), self.spread.exp()).to_event(1))
        h = bmtl.shared(torch.tanh(self.trunk(x)) * w)
        for name, bias in self.bias.items():
            with bmtl.task(name):
                v = pyro.sample(f"v_{name}", dist.Normal(torch.full((2,), 0.3), self.spread.exp()).to_event(1))
                s = pyro.sample(f"s_{name}", dist.LogNormal(bias, 0.5))
                with pyro.plate(f"{name}_rows", self.n_data[name], subsample=x):
                    bmtl.observe(f"y_{name}", dist.Normal((h * v).sum(-1) + bias, s), y[name])


class SitesGuide(PyroModule):
    """The hand-written normal guide of `Sites`."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"w": (2,)} | {f"v_{name}": (2,) for name in TASKS} | {f"s_{name}": () for name in TASKS}
        self.loc = nn.ParameterDict({name: nn.Parameter(torch.full(size, 0.15)) for name, size in sizes.items()})
        self.rho = nn.ParameterDict({name: nn.Parameter(torch.full(size, -1.0)) for name, size in sizes.items()})

    def draw(self, name: str) -> Tensor:
        family = dist.LogNormal if name.startswith("s_") else dist.Normal
        fn = family(self.loc[name], self.rho[name].exp())
        return pyro.sample(name, fn.to_event(self.loc[name].dim()))

    def forward(self, x: Tensor, y: dict[str, Tensor]) -> None:
        self.draw("w")
        for name in TASKS:
            self.draw(f"v_{name}")
            self.draw(f"s_{name}")


class Plate(PyroModule):
    """The same program with a vectorised task plate."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(3, 2)
        self.bias = nn.Parameter(0.1 * torch.arange(3.0)[:, None])
        self.spread = nn.Parameter(torch.tensor(0.2))

    def forward(self, x: Tensor, y: dict[str, Tensor]) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2), self.spread.exp()).to_event(1))
        h = bmtl.shared(torch.tanh(self.trunk(x)) * w)
        with bmtl.task_plate(TASKS, dim=-2):
            v = pyro.sample("v", dist.Normal(torch.full((2,), 0.3), self.spread.exp()).to_event(1))
            s = pyro.sample("s", dist.LogNormal(self.bias, 0.5))
            with pyro.plate("rows", N_DATA, subsample=x, dim=-1):
                y_all = torch.stack([y[name] for name in TASKS])
                bmtl.observe("y", dist.Normal((h * v).sum(-1) + self.bias, s), y_all)


class PlateGuide(PyroModule):
    """The hand-written normal guide of `Plate`."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"w": (2,), "v": (3, 1, 2), "s": (3, 1)}
        self.loc = nn.ParameterDict({name: nn.Parameter(torch.full(size, 0.15)) for name, size in sizes.items()})
        self.rho = nn.ParameterDict({name: nn.Parameter(torch.full(size, -1.0)) for name, size in sizes.items()})

    def forward(self, x: Tensor, y: dict[str, Tensor]) -> None:
        scale = {name: rho.exp() for name, rho in self.rho.items()}
        pyro.sample("w", dist.Normal(self.loc["w"], scale["w"]).to_event(1))
        with pyro.plate("task", 3, dim=-2):
            pyro.sample("v", dist.Normal(self.loc["v"], scale["v"]).to_event(1))
            pyro.sample("s", dist.LogNormal(self.loc["s"], scale["s"]))


class Program(PyroModule):
    """A function of (parameters, x, y) as a module: `parameters` are numbers that become free parameters.

    The function reads ``p[name]``.
    """

    def __init__(self, program: Callable[..., None], **parameters: float | Tensor) -> None:
        super().__init__()
        self.program = program
        self.p = nn.ParameterDict({name: nn.Parameter(torch.as_tensor(v).clone()) for name, v in parameters.items()})

    def forward(self, *args: object, **kwargs: object) -> None:
        self.program(self.p, *args, **kwargs)


class Regressions(nn.Module):
    """Deterministic: a linear trunk and a linear head a task, Gaussian rows of unit variance (squared error)."""

    def __init__(self, n_data: int | dict[str, int] = N_DATA, tasks: tuple[str, ...] = TASKS, width: int = 4) -> None:
        super().__init__()
        self.n_data = n_data if isinstance(n_data, dict) else dict.fromkeys(tasks, n_data)
        self.trunk = nn.Linear(3, width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, 1) for name in tasks})

    def forward(self, x: Tensor, y: dict[str, Tensor] | None = None) -> None:
        h = bmtl.shared(torch.tanh(self.trunk(x)))
        for name, head in self.heads.items():
            with bmtl.task(name), pyro.plate(f"{name}_rows", self.n_data[name], subsample=x):
                mean = head(h).squeeze(-1)
                if y is None:
                    bmtl.observe(f"y_{name}", dist.Normal(mean, 1.0), None)
                else:
                    seen = ~y[name].isnan()
                    with poutine.mask(mask=seen):
                        pyro.factor(f"y_{name}", -(torch.where(seen, y[name], 0.0) - mean).square() / 2)


def nothing(*args: object, **kwargs: object) -> None:
    """The guide of a program without latents."""


def without_seconds(state: dict[str, Any]) -> dict[str, Any]:
    """A run's state without what no two runs have in common: the times of its steps."""
    for history in (state["history"], state["history"]["last"]):
        if history is not None:
            history["seconds"] = {}
    return state


def assert_same(found: object, expected: object, where: str = "") -> None:
    """Holds two nested states equal, bit for bit; NaN equals NaN."""
    assert type(found) is type(expected), where
    if isinstance(found, dict):
        assert found.keys() == expected.keys(), where
        for key, value in found.items():
            assert_same(value, expected[key], f"{where}[{key!r}]")
    elif isinstance(found, list | tuple):
        assert len(found) == len(expected), where
        for k, values in enumerate(zip(found, expected, strict=True)):
            assert_same(*values, f"{where}[{k}]")
    elif isinstance(found, Tensor):
        assert found.shape == expected.shape, where
        assert torch.equal(found.nan_to_num(nan=1.5e30), expected.nan_to_num(nan=1.5e30)), where
    else:
        assert found == expected or found != found, where


def parameters_of(model: object, guide: object) -> dict[str, Tensor]:
    """The trained parameters of model and guide by name."""
    modules = nn.ModuleList([m for m in (model, guide) if isinstance(m, nn.Module)])
    return {name: p for name, p in modules.named_parameters() if p.requires_grad}


def gradients(value: Tensor, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """A scalar's gradients by name, 0 where it does not reach a parameter."""
    found = torch.autograd.grad(value, list(parameters.values()), retain_graph=True, allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(parameters.items(), found, strict=True)}
