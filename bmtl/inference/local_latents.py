"""Latents of rows that an AutoGuide keeps as parameters of the training rows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro.infer.autoguide import AutoDelta, AutoGuide, AutoGuideList, AutoNormal
from pyro.poutine.trace_struct import Trace
from torch import nn

from bmtl import inputs


@contextmanager
def for_new_rows(guide: Callable[..., Any], x: Any) -> Iterator[None]:
    """Lets an AutoGuide draw no latents of rows, so that the model draws them from their prior.

    Such a guide (with ``create_plates``) has parameters of each training row, which are none of a new row's. A plate is one
    of rows if it has another size for one row of `x` than for two, or than for the training batch.

    Args:
        guide: The guide.
        x: Inputs.

    Raises:
        ValueError: If a guide of another kind than AutoNormal and AutoDelta has latents of rows.
    """
    before: list[tuple[AutoGuide, Trace]] = []
    try:
        for root in guide.modules() if isinstance(guide, nn.Module) else ():
            if isinstance(root, AutoGuide) and root.create_plates is not None:
                rows = _row_plates(root, x)
                for part in _parts(root):
                    whole: Any = part.prototype_trace
                    kept = _without(part, whole, rows)
                    if len(kept.nodes) < len(whole.nodes):
                        before.append((part, whole))
                        part.prototype_trace = kept
        yield
    finally:
        for part, prototype in before:
            part.prototype_trace = prototype


def _row_plates(guide: AutoGuide, x: Any) -> set[str]:
    one, two = (_sizes(guide, inputs.take(x, torch.zeros(count, dtype=torch.int64))) for count in (1, 2))
    trained = guide._prototype_frames
    return {name for name in one if name in trained and {one[name], two.get(name)} != {trained[name].size}}


def _sizes(guide: AutoGuide, x: Any) -> dict[str, int]:
    """The sizes of the guide's plates for a batch."""
    plates = guide.create_plates(x)
    return {plate.name: plate.subsample_size for plate in (plates if isinstance(plates, list | tuple) else [plates])}


def _parts(guide: AutoGuide) -> list[AutoGuide]:
    if not isinstance(guide, AutoGuideList):
        return [guide]
    return [part for part in guide if isinstance(part, AutoGuide)]


def _without(guide: AutoGuide, whole: Trace, plates: set[str]) -> Trace:
    """The guide's latents without those of some plates."""
    kept = whole.copy()
    if plates.isdisjoint(guide._prototype_frames):
        return kept
    if not isinstance(guide, AutoNormal | AutoDelta):
        raise ValueError(
            f"The guide ({type(guide).__name__}) has parameters of each training row in the plate {min(plates)!r}, and none "
            "of new rows. Take an AutoNormal or AutoDelta for these latents, in an AutoGuideList, or a guide that computes "
            "them from the inputs."
        )
    for name, site in whole.iter_stochastic_nodes():
        if any(frame.name in plates for frame in site["cond_indep_stack"]):
            kept.remove_node(name)
    return kept
