"""Diagnostics of a variational posterior: Pareto k of its draws, and leave-one-out densities by task.

A draw's importance ratio is the joint density of latents and training labels over the guide's density. Where the guide has
the posterior's tails, the ratios can turn its draws into the posterior's; the shape k of a Pareto distribution fitted to the
largest ratios shows whether they can (Yao et al. 2018, "Yes, but did it work?: evaluating variational inference"; Vehtari et
al. 2024, "Pareto smoothed importance sampling"). The same with each row's density taken out gives leave-one-out densities of
the posterior itself, whatever the guide (Magnusson et al. 2019, "Bayesian leave-one-out cross-validation for large data").

Both are about the rows that the posterior was conditioned on, those of the tree's root. They assume weights of 1: a run
whose balancer weights tasks otherwise targets another posterior, and k then measures the distance between the two as well.
"""

import warnings
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import logsumexp

from bmtl.evaluation.metrics.by_target import task_coords
from bmtl.evaluation.parts import TRAIN, group, part_targets, parts_of

FEWEST_DRAWS = 100  # the tail has a fifth of them
SAFE = 0.7  # above it, no feasible number of draws helps (Vehtari et al. 2024)
SAFE_DRAWS = 2200  # for which 1 - 1 / log10(draws) exceeds it


def trust(tree: xr.DataTree) -> xr.Dataset:
    """Pareto k of the posterior, and leave-one-out log densities by task.

    The program must be a joint density: under a prior that is built from other tasks' posteriors (`VMTL`) there is none.

    Args:
        tree: A results tree that holds the training rows: ``bmtl train`` draws them, comparisons on request.

    Returns:
        ``pareto_k`` (): of the ratios of all draws; -inf where all are equal. ``efficiency`` (): effective share of the
        draws under their ratios, 1 where the guide is the posterior. ``threshold`` (): the k up to which this many draws
        do. By ``task``: ``elpd_loo``, the sum over rows of the log density of a row given all others, per reported unit;
        its standard error ``se``; ``rows``; ``unreliable``, the number of rows whose own k is not below the threshold, or
        does not exist, as where a draw gives a row no density. Where the run recorded them, ``weight``: each task's mean
        effective weight over the last tenth of the steps.

    Raises:
        ValueError: If the tree has no training rows, the model no latents, or there are fewer than a hundred draws.
    """
    if TRAIN not in parts_of(tree.root):
        raise ValueError(
            "The tree does not hold the training rows, and whether a posterior is right shows on the rows that it was "
            "conditioned on. Draw for them too: `bmtl train` does, and results trees take them as the part 'train'."
        )
    if "sample_stats" not in tree.root.children:
        raise ValueError(
            "The tree has no sample_stats: its model has no latents, or was drawn without labels. A point model has no "
            "posterior to trust."
        )
    densities = group(tree, "sample_stats")
    log_p, log_q = densities["lp"], densities["log_q"]
    draws = log_p.size
    if draws < FEWEST_DRAWS:
        raise ValueError(f"Pareto k needs {FEWEST_DRAWS} draws at least, better 1,000, and the tree has {draws}.")
    likelihood, targets = group(tree, "log_likelihood", TRAIN), part_targets(tree, TRAIN)
    ratios = (log_p - log_q).values.ravel()
    finite = bool(np.isfinite(ratios).all())
    found = {name: np.full(len(targets), np.nan) for name in ("elpd_loo", "se", "unreliable")}
    rows = [likelihood.sizes.get(f"obs_{name}", 0) for name in targets]
    for i, name in enumerate(targets):
        if rows[i] and f"y_{name}" in likelihood:
            density, k = _left_out(likelihood[f"y_{name}"], log_p, log_q)
            found["elpd_loo"][i] = density.sum()
            with np.errstate(invalid="ignore"):  # the spread of infinite ones is NaN
                found["se"][i] = np.sqrt(rows[i] * density.var())
            found["unreliable"][i] = rows[i] - int((k <= _threshold(draws)).sum())  # false for NaN
    weights = np.exp(ratios - ratios.max()) if finite else np.full(draws, np.nan)
    recorded = _last_weights(tree, targets)
    return xr.Dataset(
        {
            "pareto_k": _pareto_k(log_p, log_q, ratios) if finite else np.nan,
            "efficiency": weights.sum() ** 2 / (weights**2).sum() / draws,
            "threshold": _threshold(draws),
            "draws": draws,
            "rows": ("task", rows),
            **{name: ("task", values) for name, values in found.items()},
            **({} if recorded is None else {"weight": ("task", recorded)}),
        },
        coords=task_coords(tree, targets),
    )


def in_words(found: xr.Dataset) -> str:
    """The result of `trust` in words, a sentence on the posterior and a line per task."""
    k, draws = float(found["pareto_k"]), int(found["draws"])
    threshold, share = float(found["threshold"]), float(found["efficiency"])
    about = f"Pareto k is {k:.2f} with {draws:,} draws"
    if k == -np.inf:
        about = f"All {draws:,} draws have the same weight"
    if np.isnan(k):
        about = f"Pareto k does not exist for these {draws:,} draws"
        verdict = (
            "the model's or the guide's log density of a draw is not finite. The guide puts probability where the model has "
            "none, or training has diverged; do not use this posterior."
        )
    elif k <= threshold:
        verdict = f"the guide covers the posterior. Its draws are worth {share:.0%} as many of the posterior itself" + (
            "." if share > 0.5 else ": the two differ, and means and intervals are better taken with weights."
        )
    elif k <= SAFE:
        verdict = f"too few draws to decide. Draw {SAFE_DRAWS:,} or more."
    else:
        verdict = (
            f"the guide does not cover the posterior (k above {SAFE}). Its intervals may be too narrow or off; try a richer "
            "guide, and judge the predictions by held-out rows."
        )
    lines = [f"{about}: {verdict}"]
    if "weight" in found and bool((abs(found["weight"] - 1) > 0.05).any()):
        low, high = float(found["weight"].min()), float(found["weight"].max())
        lines.append(
            f"The run weighed its tasks by {low:.3g} to {high:.3g} at the end, so the guide was fitted to a posterior in "
            "which labels count that often; k is measured against weights of 1."
        )
    for name in found["task"].values.tolist():
        task = found.sel(task=name)
        count = int(task["rows"])
        if not count:
            lines.append(f"{name}: no labelled row.")
            continue
        bad = int(task["unreliable"])
        mean, error = float(task["elpd_loo"]) / count, float(task["se"]) / count
        line = f"{name}: mean log density of a row left out {mean:.3f} ± {error:.3f} ({count:,} rows)"
        lines.append(line + (f"; not reliable for {bad:,} of them." if bad else "."))
    return "\n".join(lines)


def _last_weights(tree: xr.DataTree, targets: list[str]) -> np.ndarray | None:
    """Mean weights over the last tenth of the steps ``(K,)``; None where the run's tasks are others than its targets."""
    if "training" not in tree.root.children:
        return None
    training = group(tree, "training")
    if "weights" not in training or training["task"].values.tolist() != targets:
        return None
    return training["weights"].isel(step=slice(-max(1, training.sizes["step"] // 10), None)).mean("step").values


def _threshold(draws: int) -> float:
    """Up to which k so many draws do, after Vehtari et al. (2024)."""
    return min(1 - 1 / np.log10(draws), SAFE)


def _left_out(log_likelihood: xr.DataArray, log_p: xr.DataArray, log_q: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Log density of each row given all others, and its Pareto k, each ``(N,)``.

    Where one draw has all the weight the smoothing fails, with a k that looks harmless: k is NaN there, and the density
    that of the weights as they are.
    """
    loo = _loo(log_likelihood, log_p, log_q)
    density, k = loo.elpd_i.values.astype(float), loo.pareto_k.values.astype(float)
    failed = ~np.isfinite(density)
    if failed.any():
        drawn = log_likelihood.stack(sample=("chain", "draw"), create_index=False).transpose("sample", ...)
        ratios = (log_p - log_q).values.ravel()[:, None]
        with np.errstate(invalid="ignore"):
            raw = logsumexp(ratios, axis=0) - logsumexp(ratios - drawn.values[:, failed].astype(float), axis=0)
        density[failed], k[failed] = raw, np.nan
    return density, k


def _pareto_k(log_p: xr.DataArray, log_q: xr.DataArray, ratios: np.ndarray) -> float:
    """Pareto k of the draws' ratios: that of leaving out a row of density 1; -inf where all are equal up to rounding."""
    if np.ptp(ratios) <= 1e-6:
        return -np.inf
    nothing = xr.zeros_like(log_p).expand_dims(obs=1).transpose(..., "obs")
    return float(_loo(nothing, log_p, log_q).pareto_k.max())


def _loo(log_likelihood: xr.DataArray, log_p: xr.DataArray, log_q: xr.DataArray) -> Any:
    import arviz_stats  # slow to import

    tree = xr.DataTree.from_dict({"log_likelihood": xr.Dataset({"y": log_likelihood.astype(float)})})
    with warnings.catch_warnings(), np.errstate(all="ignore"):  # of rows whose k does not exist
        warnings.simplefilter("ignore", UserWarning)  # of a large k, which `in_words` explains
        return arviz_stats.loo_approximate_posterior(  # type: ignore[attr-defined]
            tree, log_p=log_p, log_q=log_q, var_name="y", pointwise=True
        )
