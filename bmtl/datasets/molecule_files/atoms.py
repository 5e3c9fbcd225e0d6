"""What all files of molecules have: atoms with positions, and charges, which a model does not see."""

from collections.abc import Sequence

import numpy as np

SYMBOLS = ("H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar")
"""Elements by atomic number, from 1."""

Pairs = list[tuple[np.ndarray, np.ndarray]]
"""Atomic numbers ``(n,)`` and positions ``(n, 3)`` in Angstrom of each molecule."""


def atom(words: Sequence[str], symbol: str, where: str) -> tuple[int, list[float]]:
    """Atomic number and position of one atom of a text.

    Raises:
        ValueError: If they cannot be read.
    """
    if symbol not in SYMBOLS:
        raise ValueError(f"{where}: {symbol!r} is none of the elements {SYMBOLS[0]} to {SYMBOLS[-1]}.")
    try:
        place = [float(word) for word in words]
    except ValueError:
        place = []
    if len(place) != 3:
        raise ValueError(f"{where}: a position is three numbers; got {' '.join(words)!r}.")
    return SYMBOLS.index(symbol) + 1, place


def molecule(atoms: Sequence[tuple[int, list[float]]]) -> tuple[np.ndarray, np.ndarray]:
    """The arrays of a molecule's atoms."""
    numbers = np.array([number for number, _ in atoms], np.int64)
    return numbers, np.array([place for _, place in atoms], np.float64).reshape(-1, 3)


def check_charge(charge: float, where: str) -> None:
    """Refuses ions: nothing of a charge is in atomic numbers and positions."""
    if charge:
        raise ValueError(
            f"{where}: the molecule has the charge {charge:+g}, which a model of atoms and positions does not see. Leave it "
            "out; or, if the model was trained on such ions, give .npz with Z and pos."
        )
