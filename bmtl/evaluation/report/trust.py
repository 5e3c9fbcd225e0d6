"""Whether variational posteriors are to be trusted, in words and as a table."""

import numpy as np

from bmtl.evaluation.report.markup import Markup, bullets, details, element, fragment, number, paragraph, table
from bmtl.evaluation.report.score_tables import count
from bmtl.evaluation.report.shown import Trees, with_group
from bmtl.evaluation.trust import in_words, trust


def trusted(trees: Trees) -> Markup:
    """Pareto k of each run whose tree has the rows that its posterior was learnt from; else how to have them."""
    bayesian = with_group(trees, "posterior")
    if not bayesian:
        return Markup()
    judged = with_group(bayesian, "train")
    parts: list[Markup] = []
    found = {}
    for name, tree in judged.items():
        try:
            found[name] = trust(tree)
        except ValueError as error:
            parts.append(paragraph(f"{name}: {error}", class_="warning"))
    for name in bayesian:
        if name not in judged:
            parts.append(
                paragraph(
                    f"{name} has a posterior, and its tree holds no draws for the training rows, so it cannot be told "
                    "here whether the guide covers the posterior. A tree made with ",
                    element("code", "results_tree(..., train=draw(model, guide, x, y, num_draws=1000))"),
                    " would tell.",
                    class_="note",
                )
            )
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
            "rows are those whose own k is above it, summed over the targets.",
        ),
        *(details(f"{name}, by target", bullets(rest)) for name, (_, *rest) in sentences.items() if rest),
        *parts,
    )
