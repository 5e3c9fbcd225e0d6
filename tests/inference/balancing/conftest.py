import numpy as np
import pytest
import torch

from bmtl.inference.balancing import Balancer, Context, Objective, balancer
from bmtl.inference.losses import TaskTerms
from bmtl.inference.shared_representation import SharedRepresentation


def gradients(kind, k, rng):
    """Unit gradients (k, P) of one kind."""
    if kind == "generic":
        j = rng.standard_normal((k, k + 30))
    elif kind == "rank-deficient":  # with a common part, so that 0 is not in their hull
        j = rng.standard_normal((k, max(k // 2, 2))) + 5.0
    elif kind in ("opposed", "strongly opposed"):  # cosines near -0.25 and -0.999
        along = rng.standard_normal(k + 30) * (0.6 if kind == "opposed" else 30.0)
        j = rng.standard_normal((k, k + 30)) + np.where(np.arange(k) % 2, 1.0, -1.0)[:, None] * along
    else:
        raise ValueError(kind)
    return j / np.linalg.norm(j, axis=1, keepdims=True)


@pytest.fixture(scope="session")
def draw_gradients():
    """Norms (k,) that span `decades` powers of ten around 1e`middle`, and cosines (k, k) of one kind."""

    def draw(kind, k, seed, decades=0.0, middle=0.0):
        rng = np.random.default_rng(seed)
        unit = gradients(kind, k, rng)
        cosine = unit @ unit.T
        np.fill_diagonal(cosine, 1.0)
        norms = 10.0 ** (middle + decades * (rng.permutation(k) / max(k - 1, 1) - 0.5))
        return norms, (cosine + cosine.T) / 2

    return draw


def make_objective(program, cut=False, *, names=None, active=None, units=None, parameter_names=None):
    """What a balancer sees of a program that returns K losses, or those and a term of weight 1."""
    with SharedRepresentation(cut) as marks:
        out = program()
    rows, rest = out if isinstance(out, tuple) else (out, None)
    names = names or tuple(f"t{k}" for k in range(len(rows)))
    here = range(len(rows)) if active is None else [k for k, present in enumerate(active) if present]
    units = torch.ones(len(rows), dtype=torch.float64) if units is None else units
    losses = torch.tensor([rows[k].item() for k in here], dtype=torch.float64) * units[list(here)]
    return Objective(
        names=tuple(names[k] for k in here),
        losses=losses,
        rows=TaskTerms([rows[k] for k in here]),
        per_datum_scale=units[list(here)],
        unweighted_terms=rest,
        marks=marks,
        parameter_names=parameter_names or {},
    )


@pytest.fixture(scope="session")
def objective():
    return make_objective


@pytest.fixture(scope="session")
def step():
    """Lets a balancer write the gradients of a program's losses; returns its `Update`."""

    def run(
        spec,
        program,
        *,
        names=None,
        active=None,
        units=None,
        parameter_names=None,
        heads="transform",
        **context,
    ):
        made = spec if isinstance(spec, Balancer) else balancer(spec, heads=heads)
        if not made.names:
            with torch.no_grad():
                out = program()
            rows = out[0] if isinstance(out, tuple) else out
            made.bind(names or [f"t{k}" for k in range(len(rows))])
        seen = make_objective(
            program, made.cut, names=made.names, active=active, units=units, parameter_names=parameter_names
        )
        present = torch.ones(len(made.names), dtype=torch.bool) if active is None else torch.tensor(active)
        return made.backward(seen, Context(present, **context))

    return run


@pytest.fixture(scope="session")
def jacobian():
    """Gradients (K, P) of a program's losses, or of given ones, by K plain backwards, float64."""

    def of(program, parameters):
        out = program() if callable(program) else program
        rows = out[0] if isinstance(out, tuple) else out
        found = []
        for row in rows:
            parts = torch.autograd.grad(row, parameters, retain_graph=True, allow_unused=True)
            flat = [
                torch.zeros(p.numel()) if g is None else g.reshape(-1) for g, p in zip(parts, parameters, strict=True)
            ]
            found.append(torch.cat([part.double() for part in flat]))
        return torch.stack(found)

    return of


@pytest.fixture(scope="session")
def written():
    """The gradients (P,) that lie at parameters now, 0 where there is none, float64; forgets them."""

    def of(parameters):
        found = [torch.zeros(p.numel()).double() if p.grad is None else p.grad.reshape(-1).double() for p in parameters]
        for p in parameters:
            p.grad = None
        return torch.cat(found)

    return of
