"""Whether posteriors can be trusted: Pareto k of guides' draws, and R-hat of chains, in words and as tables."""

from collections.abc import Callable

import numpy as np
import xarray as xr

from bmtl.evaluation.parts import TRAIN, parts_of
from bmtl.evaluation.report.markup import Markup, bullets, details, element, fragment, number, paragraph, table
from bmtl.evaluation.report.score_tables import count
from bmtl.evaluation.report.shown import Trees
from bmtl.evaluation.trust import in_words, trust

MIXED = 1.01  # R-hat up to which chains count as mixed (Vehtari et al. 2021)


def trusted(trees: Trees) -> Markup:
    """A judgement of each Bayesian run's posterior: of a guide, if its tree holds the training rows; of several chains."""
    bayesian = {name: tree for name, tree in trees.items() if "posterior" in tree.children}
    chains = {name: tree for name, tree in bayesian.items() if tree["posterior"].sizes["chain"] > 1}
    guides = {name: tree for name, tree in bayesian.items() if name not in chains}
    return fragment(_guides(guides), _chains(chains))


def _guides(trees: Trees) -> Markup:
    parts: list[Markup] = []
    found = {}
    unknown = [name for name, tree in trees.items() if TRAIN not in parts_of(tree)]
    if unknown:
        parts.append(
            paragraph(
                f"No draws for the training rows, by which a guide is judged: {', '.join(unknown)}. ",
                element("code", "bmtl compare --trust"),
                " draws them.",
                class_="note",
            )
        )
    for name, tree in trees.items():
        if name in unknown:
            continue
        try:
            found[name] = trust(tree)
        except ValueError as error:
            parts.append(paragraph(f"{name}: {error}", class_="warning"))
    if not found:
        return fragment(*parts)
    rows = [
        [
            name,
            number(float(of["pareto_k"])),
            number(float(of["threshold"])),
            number(float(of["efficiency"])),
            count(int(of["draws"])),
            count(int(np.nansum(of["unreliable"].values))),
        ]
        for name, of in found.items()
    ]
    sentences = {name: in_words(of).splitlines() for name, of in found.items()}
    return fragment(
        bullets([fragment(element("strong", name), ": ", first) for name, (first, *_) in sentences.items()]),
        table(
            ["method", "Pareto k ↓", "threshold", "effective share of draws", "draws", "unreliable rows"],
            rows,
            "Pareto k of the draws' importance ratios: up to the threshold, the guide covers the posterior. Unreliable "
            "rows: training rows whose own k is above it or does not exist, summed over the targets.",
        ),
        *(details(f"{name}, by target", bullets(rest)) for name, (_, *rest) in sentences.items() if rest),
        *parts,
    )


def _chains(trees: Trees) -> Markup:
    if not trees:
        return Markup()
    import arviz_stats  # slow to import

    rows = []
    for name, tree in trees.items():
        posterior = tree["posterior"].to_dataset()
        rhat = _extreme(arviz_stats.rhat(posterior), np.nanmax)  # type: ignore[attr-defined]
        effective = _extreme(arviz_stats.ess(posterior), np.nanmin)  # type: ignore[attr-defined]
        stats = tree["sample_stats"].to_dataset() if "sample_stats" in tree.children else xr.Dataset()
        diverging = int(stats["diverging"].sum()) if "diverging" in stats else None
        rows.append(
            [
                name,
                count(posterior.sizes["chain"]),
                count(posterior.sizes["draw"]),
                number(rhat, marked=False),
                number(effective),
                "–" if diverging is None else count(diverging),
            ]
        )
    return table(
        ["method", "chains", "draws of each", "largest R-hat ↓", "least effective draws ↑", "divergences ↓"],
        rows,
        f"Convergence of Markov chains, over all latents. R-hat above {MIXED}: the chains have not mixed. A divergence: the "
        "sampler missed part of the posterior there.",
    )


def _extreme(found: xr.Dataset, most: Callable[[np.ndarray], float]) -> float:
    """The extreme over all entries of all latents; NaN where none is a number."""
    values = np.concatenate([np.ravel(variable.values) for variable in found.data_vars.values()])
    return float(most(values)) if np.isfinite(values).any() else float("nan")
