"""Molecules of XYZ files."""

import re

from bmtl.datasets.molecule_files.atoms import Pairs, atom, check_charge, molecule

_FIELD = r"\b{name}=(?:\"([^\"]*)\"|'([^']*)'|(\S+))"  # of an extended comment


def of_xyz(text: str, source: str) -> Pairs:
    """Molecules of an XYZ text, one after the other: number of atoms, a comment, a line for each atom.

    Of an extended comment, columns other than ``species:S:1:pos:R:3`` first are refused (what follows the symbol would be
    no position), as are a charge and a periodic cell, which a model of a molecule's atoms does not see.

    Raises:
        ValueError: If it cannot be read; says where.
    """
    lines = text.splitlines()
    found: Pairs = []
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        where = f"{source}, line {at + 1}"
        if not lines[at].strip().isdecimal():
            raise ValueError(f"{where}: a number of atoms is expected; got {lines[at]!r}.")
        n = int(lines[at])
        if at + 2 + n > len(lines):
            raise ValueError(f"{where}: {n} atoms are announced, and the file ends before.")
        _check_comment(lines[at + 1], f"{source}, line {at + 2}")
        atoms = []
        for k in range(at + 2, at + 2 + n):
            symbol, *words = lines[k].split() or [""]
            atoms.append(atom(words[:3], symbol, f"{source}, line {k + 1}"))
        found.append(molecule(atoms))
        at += 2 + n
    return found


def _check_comment(comment: str, where: str) -> None:
    """Refuses what an extended comment says of atoms that a model would not see."""
    columns = _field("Properties", comment)
    if columns is not None and not columns.lower().startswith("species:s:1:pos:r:3"):
        raise ValueError(
            f"{where}: its columns are {columns!r}, and symbol and position are to come first, species:S:1:pos:R:3."
        )
    for name in ("charge", "total_charge"):
        try:
            charge = float(_field(name, comment) or 0)
        except ValueError:
            continue  # a word of another program's
        check_charge(charge, where)
    periodic = _field("pbc", comment)
    if periodic is None:
        periodic = "T" if _field("Lattice", comment) is not None else ""  # as ASE reads it
    if re.search(r"[Tt1]", periodic):
        raise ValueError(
            f"{where}: the atoms are in a periodic cell (Lattice, pbc), and a model sees those of one molecule only. Give "
            'molecules, with pbc="F F F" if the cell means nothing.'
        )


def _field(name: str, comment: str) -> str | None:
    """The value of a field of an extended comment."""
    found = re.search(_FIELD.format(name=name), comment, re.IGNORECASE)
    return None if found is None else next(value for value in found.groups() if value is not None)
