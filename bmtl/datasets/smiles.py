"""Molecules from SMILES: their heavy atoms and bonds, features for graph networks, and circular fingerprints.

Enough of SMILES for drugs, without a chemistry toolkit: the organic subset, atoms in brackets, bonds, branches, rings and
dots. Stereochemistry is read over. Aromaticity is taken as it is written and not perceived, so a ring in lower case differs
from the same ring with double bonds: spell new molecules as those that a model was trained on are spelled.
"""

import functools
import re
import zlib
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

BITS = 1024
RADIUS = 2
ELEMENTS = ("C", "N", "O", "S", "F", "Cl", "Br", "I", "P", "B", "Si", "Se", "Na", "K", "H")
ATOM_FEATURES = len(ELEMENTS) + 1 + 7 + 5 + 3 + 2
"""One-hot element (the last for any other), degree 0 to 6, hydrogens 0 to 4, charge (negative, none, positive); whether the
atom is aromatic, and whether it is in a ring."""

_SYMBOLS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr "
    "Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir "
    "Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U "
)
_KNOWN = frozenset(_SYMBOLS.split())
_AROMATIC = ("b", "c", "n", "o", "p", "s", "se", "as")
_VALENCES = {"B": (3,), "C": (4,), "N": (3, 5), "O": (2,), "P": (3, 5), "S": (2, 4, 6)} | dict.fromkeys(
    ("F", "Cl", "Br", "I"), (1,)
)
_BONDS = {"-": 1.0, "/": 1.0, "\\": 1.0, "=": 2.0, "#": 3.0, "$": 4.0, ":": 1.5}
_ORGANIC = re.compile(r"Cl|Br|[BCNOPSFI]|[bcnops]")
_BRACKET = re.compile(
    r"\[(\d*)([A-Z][a-z]?|se|as|[bcnops]|\*)(@(?:@|TH\d|AL\d|SP\d|TB\d\d?|OH\d\d?)?)?(H\d*)?([+-]\d+|\++|-+)?(?::\d+)?\]"
)


@dataclass(frozen=True)
class Molecule:
    """Heavy atoms and bonds.

    Attributes:
        elements: Symbol of each of the A atoms.
        aromatic: Whether it is written as aromatic.
        charges: Formal charge.
        hydrogens: Number of hydrogens on it.
        bonds: Pairs of atoms with the bond's order, 1.5 where it is aromatic.
        in_ring: Whether the atom is in a ring.
    """

    elements: tuple[str, ...]
    aromatic: tuple[bool, ...]
    charges: tuple[int, ...]
    hydrogens: tuple[int, ...]
    bonds: tuple[tuple[int, int, float], ...]
    in_ring: tuple[bool, ...]

    @property
    def neighbours(self) -> list[list[tuple[int, float]]]:
        """Each atom's neighbours with the bonds' orders."""
        found: list[list[tuple[int, float]]] = [[] for _ in self.elements]
        for i, j, order in self.bonds:
            found[i].append((j, order))
            found[j].append((i, order))
        return found


@functools.lru_cache(maxsize=4096)
def parse(smiles: str) -> Molecule:
    """Reads a SMILES.

    Raises:
        TypeError: If it is no text, such as a missing value.
        ValueError: If it is none; says at which character, counted from 1, and what is wrong.
    """
    if not isinstance(smiles, str):
        raise TypeError(f"A SMILES is a text, and {smiles!r} was given.")
    reader = _Reader(smiles)
    reader.run()
    return reader.molecule()


class _Reader:
    """One pass over the characters."""

    def __init__(self, smiles: str) -> None:
        self.text = smiles
        self.elements: list[str] = []
        self.aromatic: list[bool] = []
        self.charges: list[int] = []
        self.given: list[int | None] = []  # hydrogens, where a bracket says them
        self.bonds: dict[tuple[int, int], float] = {}
        self.last: int | None = None
        self.order: float | None = None
        self.branches: list[int] = []
        self.rings: dict[str, tuple[int, float | None]] = {}

    def run(self) -> None:
        at, text = 0, self.text
        while at < len(text):
            letter = text[at]
            if letter == "[":
                at = self._bracket(at)
            elif letter in _BONDS:
                self._need_atom(at)
                self._need_no_bond(at)
                self.order, at = _BONDS[letter], at + 1
            elif letter == "(":
                self._need_atom(at)
                self._need_no_bond(at)
                self.branches.append(self.last)  # type: ignore[arg-type]
                at += 1
            elif letter == ")":
                if not self.branches:
                    raise self._error(at, "a branch is closed that was not opened")
                self._need_no_bond(at)
                self.last, at = self.branches.pop(), at + 1
            elif letter == ".":
                self._need_no_bond(at)
                self.last, at = None, at + 1
            elif letter.isdigit() or letter == "%":
                at = self._ring(at)
            elif found := _ORGANIC.match(text, at):
                symbol = found[0]
                self._atom(symbol.capitalize(), symbol.islower(), 0, None, at)
                at = found.end()
            else:
                raise self._error(at, f"{letter!r} is no atom, bond, branch or ring")
        if self.branches:
            raise self._error(len(text) - 1, "a branch is not closed")
        if self.rings:
            raise self._error(len(text) - 1, f"the ring {', '.join(self.rings)} is not closed")
        self._need_no_bond(len(text) - 1)
        if not self.elements:
            raise ValueError("A SMILES has one atom at least, and an empty one was given.")

    def molecule(self) -> Molecule:
        bonds = tuple((i, j, order) for (i, j), order in self.bonds.items())
        orders: list[list[float]] = [[] for _ in self.elements]
        for i, j, order in bonds:
            orders[i].append(order)
            orders[j].append(order)
        hydrogens = [
            given if given is not None else _implicit(element, aromatic, own)
            for element, aromatic, given, own in zip(self.elements, self.aromatic, self.given, orders, strict=True)
        ]
        return Molecule(
            tuple(self.elements),
            tuple(self.aromatic),
            tuple(self.charges),
            tuple(hydrogens),
            bonds,
            _in_rings(len(self.elements), bonds),
        )

    def _bracket(self, at: int) -> int:
        found = _BRACKET.match(self.text, at)
        if not found:
            raise self._error(at, "what the bracket holds is no atom")
        _, symbol, _, hydrogens, charge, *_ = *found.groups(), None
        if symbol != "*" and symbol.capitalize() not in _KNOWN:
            raise self._error(at, f"there is no element {symbol!r}")
        count = 0 if not hydrogens else int(hydrogens[1:] or 1)
        signed = 0
        if charge:
            signed = int(charge) if charge[-1].isdigit() else (len(charge) if charge[0] == "+" else -len(charge))
        self._atom(symbol.capitalize(), symbol in _AROMATIC, signed, count, at)
        return found.end()

    def _atom(self, element: str, aromatic: bool, charge: int, hydrogens: int | None, at: int) -> None:
        self.elements.append(element)
        self.aromatic.append(aromatic)
        self.charges.append(charge)
        self.given.append(hydrogens)
        new = len(self.elements) - 1
        if self.last is not None:
            self._bond(self.last, new, self.order, at)
        self.last, self.order = new, None

    def _ring(self, at: int) -> int:
        self._need_atom(at)
        end = at + 3 if self.text[at] == "%" else at + 1
        label = self.text[at:end].lstrip("%")
        if not label.isdigit() or len(self.text[at:end]) != end - at:
            raise self._error(at, "a ring's number after % has two digits")
        label = str(int(label))
        here = self.last
        if label in self.rings:
            there, order = self.rings.pop(label)
            self._bond(there, here, self.order if self.order is not None else order, at)  # type: ignore[arg-type]
        else:
            self.rings[label] = (here, self.order)  # type: ignore[assignment]
        self.order = None
        return end

    def _bond(self, i: int, j: int, order: float | None, at: int) -> None:
        if i == j or (min(i, j), max(i, j)) in self.bonds:
            raise self._error(at, "a ring closes on the same atom or on a bond that there is")
        usual = 1.5 if self.aromatic[i] and self.aromatic[j] else 1.0
        self.bonds[min(i, j), max(i, j)] = usual if order is None else order

    def _need_atom(self, at: int) -> None:
        if self.last is None:
            raise self._error(at, f"{self.text[at]!r} follows no atom")

    def _need_no_bond(self, at: int) -> None:
        """An atom or a ring's number follows a bond, and nothing else."""
        if self.order is not None:
            raise self._error(at, "a bond leads to no atom")

    def _error(self, at: int, reason: str) -> ValueError:
        shown = self.text if len(self.text) <= 60 else self.text[:57] + "..."
        return ValueError(f"{shown!r} is no SMILES: at character {at + 1}, {reason}.")


def _implicit(element: str, aromatic: bool, orders: list[float]) -> int:
    """Hydrogens that an atom outside brackets has: what its bonds leave of its lowest valence that fits."""
    used = len(orders) + 1 if aromatic else int(sum(orders))
    valences = _VALENCES[element][:1] if aromatic else _VALENCES[element]
    return next((valence - used for valence in valences if valence >= used), 0)


def _in_rings(atoms: int, bonds: tuple[tuple[int, int, float], ...]) -> tuple[bool, ...]:
    """Whether each atom is in a ring: an end of a bond whose removal does not part the molecule."""
    around = defaultdict(list)
    for number, (i, j, _) in enumerate(bonds):
        around[i].append((j, number))
        around[j].append((i, number))
    # A bond that is no bridge is in a ring (Tarjan), without recursion: molecules may be long chains.
    seen, low, inside = [-1] * atoms, [0] * atoms, [False] * atoms
    clock = 0
    for root in range(atoms):
        if seen[root] >= 0:
            continue
        stack = [(root, -1, iter(around[root]))]
        seen[root] = low[root] = clock
        clock += 1
        while stack:
            atom, by, rest = stack[-1]
            for other, number in rest:
                if number == by:
                    continue
                if seen[other] < 0:
                    seen[other] = low[other] = clock
                    clock += 1
                    stack.append((other, number, iter(around[other])))
                    break
                low[atom] = min(low[atom], seen[other])
            else:
                stack.pop()
                if stack:
                    parent = stack[-1][0]
                    low[parent] = min(low[parent], low[atom])
                    if low[atom] <= seen[parent]:
                        inside[parent] = inside[atom] = True
    return tuple(inside)


def fingerprint(molecule: Molecule, bits: int = BITS, radius: int = RADIUS) -> np.ndarray:
    """Circular fingerprint ``(bits,)`` of zeros and ones, uint8: which neighbourhoods of up to `radius` bonds occur.

    An atom starts as a number of its element, degree, hydrogens, charge, ring and aromaticity; in each round it becomes
    one of itself and its neighbours with their bonds. Every number sets a bit. The numbers are check sums, equal on every
    platform; bits are not those of other programs.

    Source:
        Rogers & Hahn (2010), "Extended-Connectivity Fingerprints", without their removal of equal substructures.
    """
    neighbours = molecule.neighbours
    columns = zip(
        molecule.elements,
        map(len, neighbours),
        molecule.hydrogens,
        molecule.charges,
        molecule.in_ring,
        molecule.aromatic,
        strict=True,
    )
    codes = [_code(*atom) for atom in columns]
    found = np.zeros(bits, dtype=np.uint8)
    found[[code % bits for code in codes]] = 1
    for turn in range(radius):
        codes = [
            _code(turn, code, *sorted((order, codes[other]) for other, order in around))
            for code, around in zip(codes, neighbours, strict=True)
        ]
        found[[code % bits for code in codes]] = 1
    return found


def atom_features(molecule: Molecule) -> np.ndarray:
    """Features of atoms ``(A, ATOM_FEATURES)`` of zeros and ones, uint8."""
    rows = np.zeros((len(molecule.elements), ATOM_FEATURES), dtype=np.uint8)
    degree = [len(around) for around in molecule.neighbours]
    for i, element in enumerate(molecule.elements):
        kind = ELEMENTS.index(element) if element in ELEMENTS else len(ELEMENTS)
        start = len(ELEMENTS) + 1
        rows[i, kind] = 1
        rows[i, start + min(degree[i], 6)] = 1
        rows[i, start + 7 + min(molecule.hydrogens[i], 4)] = 1
        rows[i, start + 12 + 1 + int(np.sign(molecule.charges[i]))] = 1
        rows[i, start + 15] = molecule.aromatic[i]
        rows[i, start + 16] = molecule.in_ring[i]
    return rows


def _code(*parts: object) -> int:
    return zlib.crc32(repr(parts).encode())
