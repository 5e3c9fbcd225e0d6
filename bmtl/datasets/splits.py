"""Parts of a data set: read from codes, or drawn with a seed, in proportion or by whole groups."""

import math
from itertools import combinations
from typing import Literal

import numpy as np

from bmtl.datasets import checks

TRAIN, TEST, NEITHER = 1, 0, -1
"""Codes of a fixed split, one per row."""


def draw(
    rows: np.ndarray,
    proportion: float,
    *seed: int,
    strata: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Part some rows in two.

    Args:
        rows: ``(M,)``, of a table with N rows.
        proportion: Of the first part, between 0 and 1.
        seed: Whole numbers from 0.
        strata: Number of the stratum of every row of the table, ``(N,)``. Each has its proportion, rounded up or down
            so that the sum is right, and at least one row in the first part: the second may lack small strata.
        groups: What must not be parted, e.g. a molecule or a patient, ``(N,)``. Whole groups are then drawn until the
            number of rows is as near to `proportion` as it gets, and `strata` are kept on average only.

    Returns:
        The two parts, each in increasing order.

    Raises:
        ValueError: If the proportion is not between 0 and 1, or there are fewer than two groups.
    """
    if not checks.is_number(proportion) or not 0 < proportion < 1:
        raise ValueError(f"A proportion is between 0 and 1; got {proportion!r}.")
    if groups is not None:
        first = _whole_groups(groups[rows], proportion, seed)
        return np.sort(rows[first]), np.sort(rows[~first])
    order = rows[_shuffled(len(rows), seed)]
    of = np.zeros(len(order), dtype=np.int64) if strata is None else strata[order]
    _, of, sizes = np.unique(of, return_inverse=True, return_counts=True)
    first = np.zeros(len(order), dtype=bool)
    for stratum, share in enumerate(_shares(sizes, proportion, seed)):
        first[np.flatnonzero(of == stratum)[:share]] = True
    return np.sort(order[first]), np.sort(order[~first])


def hold_out(
    rows: np.ndarray,
    validation: float,
    *seed: int,
    strata: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are kept, and the proportion of them that is held out for validation; 0 holds nothing out.

    Raises:
        ValueError: If the proportion is not from 0 to below 1, or so small that nothing is held out.
    """
    if not checks.is_number(validation) or not 0 <= validation < 1:
        raise ValueError(f"validation is a proportion from 0 to below 1; got {validation!r}.")
    if validation == 0:
        return rows, rows[:0]
    kept, held = draw(rows, 1 - validation, *seed, strata=strata, groups=groups)
    if len(held) == 0:
        raise ValueError(
            f"validation={validation:g} of {len(rows)} rows is not one row. Raise it, or set validation=0."
        )
    return kept, held


def parts(
    rows: np.ndarray,
    *,
    codes: np.ndarray | None = None,
    proportion: float = 0.8,
    validation: float = 0.2,
    validation_from: Literal["train", "test"] = "train",
    seed: int = 0,
    strata: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Rows for training, validation and test.

    Args:
        rows: ``(M,)``, those to distribute, of a table with N rows.
        codes: A fixed split of the table, ``(N,)``: 1 training, 0 test, -1 neither; or the parts' names as text, empty
            for neither. Without it one is drawn.
        proportion: Of the training rows, validation included, where a split is drawn.
        validation: Proportion of the rows named by `validation_from` that become the part ``"val"``; 0 for none. Where
            `codes` have that part, it is the one.
        validation_from: ``"test"`` where the training rows are too few to spare any; validation rows are never scored.
        seed: Seed of all random draws.
        strata: As in `draw`.
        groups: As in `draw`: no group is in two parts. A row whose group is NaN is its own.

    Raises:
        ValueError: If an option is out of range, the codes are others, a group is in two parts of a fixed split, or
            there are no rows for training or for test.
    """
    if validation_from not in ("train", "test"):
        raise ValueError(f"Validation rows come from 'train' or 'test'; got {validation_from!r}.")
    groups = _apart(groups)
    if codes is None:
        train, test = draw(rows, proportion, seed, 0, strata=strata, groups=groups)
        found = {"train": train, "test": test}
    else:
        found = _coded(rows, codes)
        _check_groups(found, groups)
    if not len(found["train"]) or not len(found["test"]):
        raise ValueError(
            f"Of {len(rows)} rows with a label, {len(found['train'])} would be for training and {len(found['test'])} "
            "for test. Change the proportion or the split, so that there are both."
        )
    if "val" in found:
        return found
    kept, val = hold_out(found[validation_from], validation, seed, 1, strata=strata, groups=groups)
    found = {"train": found["train"], "val": val, "test": found["test"]} | {validation_from: kept}
    return {part: members for part, members in found.items() if len(members) or part != "val"}


def _coded(rows: np.ndarray, codes: np.ndarray) -> dict[str, np.ndarray]:
    """The parts of a fixed split; validation only where it has some."""
    named = codes if codes.dtype.kind == "U" else _named(codes)
    others = np.setdiff1d(named, ("train", "val", "test", ""))
    if len(others):
        raise ValueError(f"A split has the parts train, val and test; got {str(others[0])!r}.")
    found = {part: rows[named[rows] == part] for part in ("train", "val", "test")}
    return {part: members for part, members in found.items() if len(members) or part != "val"}


def _named(codes: np.ndarray) -> np.ndarray:
    others = np.setdiff1d(codes, (TRAIN, TEST, NEITHER))
    if len(others):
        raise ValueError(f"A split holds 1 (training), 0 (test) and -1 (neither), one a row; got {others[0]}.")
    return np.select([codes == TRAIN, codes == TEST], ["train", "test"], "")


def _shuffled(number: int, seed: tuple[int, ...]) -> np.ndarray:
    for one in seed:
        if not checks.is_number(one) or one != int(one) or one < 0:
            raise ValueError(f"A seed is a whole number from 0; got {one!r}.")
    # From the raw stream of a bit generator, which numpy keeps the same in every version; `permutation` it may change.
    return np.argsort(np.random.PCG64([int(one) for one in seed]).random_raw(number), kind="stable")


def _shares(sizes: np.ndarray, proportion: float, seed: tuple[int, ...]) -> np.ndarray:
    """Rows of each stratum (S,) in the first part: the method of largest remainders."""
    exact = sizes * proportion
    shares = np.maximum(1, np.floor(exact)).astype(np.int64)
    spare = math.floor(sizes.sum() * proportion + 0.5) - shares.sum()
    if spare > 0:
        order = _shuffled(len(sizes), (*seed, len(sizes)))  # equal remainders are served by lot
        order = order[np.argsort(-(exact - shares)[order], kind="stable")]
        shares[order[:spare]] += 1
    return shares


def _whole_groups(groups: np.ndarray, proportion: float, seed: tuple[int, ...]) -> np.ndarray:
    """Where the first part is."""
    _, number = np.unique(groups, return_inverse=True)
    sizes = np.bincount(number)  # (G,)
    if len(sizes) < 2:
        raise ValueError("All rows are of one group, so they cannot be split. Leave `groups` out.")
    order = _shuffled(len(sizes), seed)
    rows = np.cumsum(sizes[order])[:-1]  # both parts get a group
    taken = order[: 1 + np.argmin(np.abs(rows - proportion * len(groups)))]
    return np.isin(number, taken)


def _apart(groups: np.ndarray | None) -> np.ndarray | None:
    """Groups of which rows that name none have one each, as in tables: together they would be one large group."""
    if groups is None or groups.dtype.kind != "f" or not np.isnan(groups).any():
        return groups
    names = [f"row {row}" if np.isnan(group) else f"group {group!r}" for row, group in enumerate(groups.tolist())]
    return np.array(names)


def _check_groups(found: dict[str, np.ndarray], groups: np.ndarray | None) -> None:
    if groups is None:
        return
    for one, other in combinations(found, 2):
        both = np.intersect1d(groups[found[one]], groups[found[other]])
        if len(both):
            raise ValueError(
                f"The split has {len(both)} groups both in {one} and in {other}, the first being {both.tolist()[0]!r}. "
                "Leave `groups` out to use it as it is, or draw another with `proportion`."
            )
