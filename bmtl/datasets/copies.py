"""Test rows that are copies of rows that were trained on."""

from collections.abc import Mapping, Sequence

import numpy as np

from bmtl.datasets.input_kind import Inputs
from bmtl.targets import Target

SHARE = 0.01
"""Share of the test rows above which copies among them are warned of."""


def warning_of_copies(inputs: Inputs, targets: Mapping[str, Target], rows: Mapping[str, np.ndarray]) -> list[str]:
    """A sentence if many test rows equal a row of another part in inputs and labels, else none.

    Args:
        inputs: Of all rows.
        targets: Labels of all rows.
        rows: Part -> its rows.
    """
    copies, total = count_copies(inputs, targets, rows), len(rows.get("test", ()))
    if copies <= SHARE * total:
        return []
    return [
        f"{copies:,} of {total:,} test rows equal a row of training or validation in all inputs and labels. Different "
        "things may have equal features; if they are copies, scores on them are too good: drop them, or keep equal rows "
        "together (groups)."
    ]


def count_copies(inputs: Inputs, targets: Mapping[str, Target], rows: Mapping[str, np.ndarray]) -> int:
    """Number of test rows whose inputs and labels a row of another part has too; 0 where inputs cannot be compared."""
    hashes: dict[str, list[int]] = {}
    for part, own in rows.items():
        keys = inputs.rows_as_bytes(own)
        if keys is None:
            return 0
        hashes[part] = list(map(hash, keys))
    of_test = hashes.pop("test", [])
    wanted = set(of_test)

    def whole(part: str, own: Sequence[int]) -> list[tuple[int, ...]]:
        """Inputs and labels of the rows whose inputs are wanted."""
        found = ((key, row) for key, row in zip(own, rows[part].tolist(), strict=True) if key in wanted)
        return [(key, *(hash(target.values[row].tobytes()) for target in targets.values())) for key, row in found]

    others = {copy for part, own in hashes.items() for copy in whole(part, own)}
    wanted &= {key for key, *_ in others}
    return sum(row in others for row in whole("test", of_test))
