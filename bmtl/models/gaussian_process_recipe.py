"""Multi-task Gaussian processes from the description of a data set."""

from typing import Any

import torch

from bmtl.models.recipes import Built, Trunk
from bmtl.models.spec import DataSpec


def gaussian_process(
    spec: DataSpec, *, trunk: Trunk, generator: torch.Generator, inducing: int = 64, **options: Any
) -> Built:
    """`bmtl.models.gaussian_process.MultitaskGP` on the inputs themselves, without a trunk. Needs the extra ``gp``.

    Args:
        spec: Of a table with real targets.
        trunk: Not used: the kernels are of the inputs themselves.
        generator: Draws initial coefficients and inducing points.
        inducing: Number of inducing points, at most one a row.
        **options: Of `MultitaskGP`.

    Raises:
        ImportError: If GPyTorch is not installed.
        ValueError: If a target is not real, or the inputs are no table in common.
    """
    from bmtl.models.gaussian_process import MultitaskGP

    other = {name: family.name for name, family in spec.targets.items() if not family.scaled or family.axes()}
    if other:
        raise ValueError(f"A Gaussian process here is of real targets, and these are not: {other}. Leave them out.")
    if not isinstance(spec.n_data, int) or "width" not in spec.inputs:
        raise ValueError(f"A Gaussian process here is on one table of numbers; the inputs are {dict(spec.inputs)}.")
    count = min(inducing, spec.n_data)
    model = MultitaskGP(
        int(spec.inputs["width"]), list(spec.targets), spec.n_data, inducing=count, generator=generator, **options
    )
    return model, model.guide()
