"""Molecules of SD files."""

import re
from collections.abc import Sequence

import numpy as np

from bmtl.datasets.molecule_files.atoms import SYMBOLS, Pairs, atom, check_charge, molecule

_CHARGES = {1: 3, 2: 2, 3: 1, 5: -1, 6: -2, 7: -3}  # by the code of an atom's line
_ORDERS = {1: 1.0, 2: 2.0, 3: 3.0, 4: 1.5}  # by a bond's code; the others are queries and coordination
_VALENCES = {SYMBOLS.index(symbol) + 1: valence for symbol, valence in (("C", 4), ("N", 3), ("O", 2))}


def of_sdf(text: str, source: str) -> Pairs:
    """Molecules of an SD file (V2000), one after the other.

    A model sees atoms and their positions in space. Refused are therefore drawings (the code 2D in the second line; without
    a code, four atoms or more in the plane z = 0), ions, and molecules whose hydrogens are left out: bonds of C, N and O
    leave more valences open than there are hydrogens.

    Raises:
        ValueError: If it cannot be read, or holds one of these; says where.
    """
    found: Pairs = []
    for number, block in enumerate(re.split(r"^\$\$\$\$[ \t]*(?:\r?\n|\Z)", text, flags=re.MULTILINE)):
        if not block.strip():
            continue
        lines, where = block.splitlines(), f"{source}, molecule {number}"
        counts = lines[3] if len(lines) > 3 else ""
        count, bonds = counts[:3].strip(), counts[3:6].strip()
        if not count.isdecimal() or len(lines) < 4 + int(count) or "V3000" in counts:
            raise ValueError(
                f"{where}: this is no block of an SD file in the format V2000, whose fourth line begins with the number of "
                f"atoms; got {counts!r}."
            )
        if sum(line.startswith("M  END") for line in lines) > 1:
            raise ValueError(f"{where}: it has several lines 'M  END'. Put a line $$$$ after each molecule.")
        end = 4 + int(count)
        atoms, rest = lines[4:end], lines[end:]
        charges = _charges(atoms, rest)
        check_charge(sum(charges), where)
        words = [(line[:30].split(), line[31:34].strip()) for line in atoms]
        read = molecule([atom(place, symbol, where) for place, symbol in words])
        _check_drawing(read[1], lines[1][20:22], where)
        radical = any(line.startswith("M  RAD") for line in rest) or any(line[36:39].strip() == "4" for line in atoms)
        if bonds.isdecimal() and not radical:
            _check_hydrogens(read[0], charges, rest[: int(bonds)], where)
        found.append(read)
    return found


def _charges(atoms: Sequence[str], rest: Sequence[str]) -> list[int]:
    """Of each atom, from the lines of atoms and those after them, which take precedence."""
    found = [0] * len(atoms)
    listed = [line[9:].split() for line in rest if line.startswith("M  CHG")]
    try:
        if not listed:
            return [_CHARGES.get(int(line[36:39].strip() or 0), 0) for line in atoms]
        for words in listed:
            for place, charge in zip(words[::2], words[1::2], strict=False):
                found[int(place) - 1] = int(charge)
    except (ValueError, IndexError):
        return [0] * len(atoms)  # another program's columns
    return found


def _check_drawing(positions: np.ndarray, code: str, where: str) -> None:
    """Refuses coordinates of a drawing."""
    if code == "2D":
        raise ValueError(f"{where}: its coordinates are those of a drawing (2D). Give positions in space (3D).")
    # Three atoms are in a plane always.
    if code != "3D" and len(positions) > 3 and not positions[:, 2].any():
        raise ValueError(
            f"{where}: all {len(positions)} atoms have z = 0, as in a drawing, and its second line does not say (2D or 3D "
            "in columns 21 and 22). Give positions in space; if the molecule is flat, write 3D there."
        )


def _check_hydrogens(numbers: np.ndarray, charges: Sequence[int], bonds: Sequence[str], where: str) -> None:
    """Refuses a molecule whose hydrogens are left out, as far as the lines of its bonds show it.

    Where a neighbour has more bonds than valences, the charges of the two are what was left out (carbon monoxide as C#O).
    """
    orders, pairs = np.zeros(len(numbers)), []
    for line in bonds:
        ends = line[:3].strip(), line[3:6].strip()
        kind = line[6:9].strip()
        if not all(word.isdecimal() for word in (*ends, kind)) or max(map(int, ends)) > len(numbers):
            return  # another program's columns
        for end in ends:
            orders[int(end) - 1] += _ORDERS.get(int(kind), 1.0)
        pairs.append([int(end) - 1 for end in ends])
    if not orders.any():
        return
    carbon = numbers == 6
    # A charge takes a valence of carbon; of nitrogen and oxygen it gives or takes one.
    change = np.where(carbon, -np.abs(charges), charges)
    wanted = np.array([_VALENCES.get(int(number), 0) for number in numbers])
    free = np.where(wanted > 0, wanted + change - orders, 0)
    open_ = np.maximum(free, 0)
    for one, other in (*pairs, *(pair[::-1] for pair in pairs)):
        open_[one] -= min(open_[one], max(-free[other], 0))
    missing, hydrogens = int(np.floor(open_).sum()), int((numbers == 1).sum())
    if missing > hydrogens:
        raise ValueError(
            f"{where}: by its bonds {missing} hydrogens are missing, and {hydrogens} are there; the atoms "
            f"{(np.flatnonzero(open_)[:5] + 1).tolist()} lack them. Add hydrogens with their positions: a model was trained "
            "on molecules that have them."
        )
