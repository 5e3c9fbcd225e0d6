"""Molecules as inputs: atomic numbers and positions, as dense padded batches or as graphs of PyTorch Geometric."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor

from bmtl import inputs
from bmtl.datasets.files import Archive
from bmtl.datasets.input_kind import Inputs, register_kind
from bmtl.datasets.tables.column import RawTable
from bmtl.datasets.tables.reading import read_table

SYMBOLS = ("H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar")
"""Elements by atomic number, from 1."""

LEAST_DISTANCE = 0.3
"""Angstrom. Atoms nearer to each other than this are an error in the data: the shortest bond, of H2, is 0.74."""

Layout = Literal["dense", "pyg"]
"""Inputs of a model: an `Atoms` batch, or a ``Batch`` of PyTorch Geometric."""


class Atoms(Mapping[str, Tensor]):
    """B molecules of at most A atoms, as a mapping of ``numbers`` and ``positions``.

    Rows that are taken from it are padded to the longest of them only.

    Args:
        numbers: Atomic numbers ``(B, A)`` int64, those of a molecule first, then 0.
        positions: In Angstrom ``(B, A, 3)``; anything where there is no atom.
    """

    def __init__(self, numbers: Tensor, positions: Tensor) -> None:
        self.numbers, self.positions = numbers, positions

    def __getitem__(self, name: str) -> Tensor:
        return {"numbers": self.numbers, "positions": self.positions}[name]

    def __iter__(self) -> Iterator[str]:
        return iter(("numbers", "positions"))

    def __len__(self) -> int:
        return 2


@inputs.count.register
def _(x: Atoms) -> int:
    return len(x.numbers)


@inputs.sizes.register
def _(x: Atoms) -> Tensor:
    return (x.numbers > 0).sum(1)


@inputs.take.register
def _(x: Atoms, rows: inputs.Rows) -> Atoms:
    own = rows if isinstance(rows, slice) else rows.to(x.numbers.device)
    numbers = x.numbers[own]
    most = int((numbers > 0).sum(1).max()) if len(numbers) else 0
    return Atoms(numbers[:, :most], x.positions[own, :most])


@inputs.to.register
def _(x: Atoms, device: Any = None, dtype: Any = None) -> Atoms:
    return Atoms(inputs.to(x.numbers, device, dtype), inputs.to(x.positions, device, dtype))


@inputs.parts.register
def _(x: Atoms) -> dict[str, Tensor]:
    return dict(x)


@inputs.with_parts.register
def _(x: Atoms, parts: Mapping[str, Tensor]) -> Atoms:
    return Atoms(parts["numbers"], parts["positions"])


@register_kind
@dataclass(frozen=True, eq=False)
class Molecules(Inputs):
    """N molecules of at most A atoms.

    Args:
        atomic_numbers: ``(N, A)``, 0 where there is no atom.
        positions: ``(N, A, 3)`` in Angstrom.
        elements: Atomic numbers that a model supports.
        layout: ``"dense"`` for `Atoms`; ``"pyg"`` for a ``Batch`` of complete graphs with ``z`` (atomic numbers), ``pos``,
            ``edge_index`` and ``edge_attr``, the distance ``(E, 1)``, for a trunk of your own.

    Raises:
        ValueError: If a molecule has no atom, an unknown element, a position that is not a number, or two atoms in
            one place; names the row, from 0.
        ImportError: If PyTorch Geometric is requested and not installed.
    """

    kind: ClassVar[str] = "molecules"
    atomic_numbers: np.ndarray = field(repr=False)
    positions: np.ndarray = field(repr=False)
    elements: tuple[int, ...] = (1, 6, 7, 8, 9)
    layout: Layout = "dense"

    def __post_init__(self) -> None:
        if self.layout not in get_args(Layout):
            raise ValueError(f"layout is {' or '.join(map(repr, get_args(Layout)))}; got {self.layout!r}.")
        if self.layout == "pyg":
            _geometric()
        numbers, positions = checked(self.atomic_numbers, self.positions, self.elements)
        object.__setattr__(self, "atomic_numbers", numbers)
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "elements", tuple(map(int, self.elements)))

    def __len__(self) -> int:
        return len(self.atomic_numbers)

    def tensors(self, rows: np.ndarray, dtype: torch.dtype = torch.float32) -> Any:
        """`Atoms` of some rows, or a ``Batch``."""
        return self._as_seen(self.atomic_numbers[rows], self.positions[rows], dtype)

    def pieces(self) -> Iterable[tuple[str, np.ndarray]]:
        yield "numbers", self.atomic_numbers
        yield "positions", self.positions

    def options(self) -> dict[str, Any]:
        return {"layout": self.layout}

    def describe(self) -> dict[str, Any]:
        """``kind``, ``elements``, ``layout``, and the trunk ``schnet`` for dense batches."""
        known = {"kind": self.kind, "elements": list(self.elements), "layout": self.layout}
        return known | ({"trunk": "schnet"} if self.layout == "dense" else {})

    def budget(self) -> dict[str, Any]:
        """20 epochs in batches of 100, the rate falling from 5e-3 to 0; three interactions, 64 wide.

        At 1e-2 some networks of single tasks never leave the mean.
        """
        return {"epochs": 20, "batch_size": 100, "lr": 5e-3, "schedule": "falling", "widths": (64, 64, 64)}

    def prepare(self, raw: Any, dtype: torch.dtype = torch.float32) -> Any:
        """New molecules as a model sees them.

        Args:
            raw: What `read` returned; a mapping with ``Z (N, A)`` and ``pos (N, A, 3)``, or a sequence of pairs of atomic
                numbers ``(n,)`` and positions ``(n, 3)``.
            dtype: Of positions.

        Raises:
            ValueError: See the class.
        """
        return self._as_seen(*checked(*_arrays(raw), self.elements), dtype)

    def read(self, path: str | Path) -> Any:
        """New molecules: ``.npz`` with Z and pos, ``.xyz``, ``.sdf``, or a ``.csv`` with a column ``smiles``.

        Positions of SMILES are those of a force field (rdkit's ETKDG and MMFF94, one conformer, seed 0).

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it cannot be read; says which molecule.
            ImportError: If SMILES are given and rdkit is not installed.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}.")
        if path.suffix.lower() == ".npz":
            archive = Archive(path)
            return {"Z": archive.array("Z"), "pos": archive.array("pos")}
        if path.suffix.lower() == ".csv":
            return of_smiles(read_table(path))
        readers = {".xyz": of_xyz, ".sdf": of_sdf}
        if path.suffix.lower() not in readers:
            raise ValueError(f"Molecules are read from .npz, .csv, {', '.join(readers)}; got {path}.")
        # Comments may be in any encoding; atoms are in ASCII.
        return readers[path.suffix.lower()](path.read_text(encoding="utf-8-sig", errors="replace"), str(path))

    def state(self) -> dict[str, Any]:
        return {"elements": list(self.elements), "layout": self.layout}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        return cls(np.zeros((0, 1), np.uint8), np.zeros((0, 1, 3)), tuple(state["elements"]), state["layout"])

    def numbers(self, names: Sequence[str], raw: Any = None) -> np.ndarray:
        """Numbers of atoms, by names such as ``nC``."""
        known = {f"n{SYMBOLS[number - 1]}": number for number in self.elements}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ValueError(f"Molecules have the numbers {', '.join(known)}; got {', '.join(unknown)}.")
        atoms = self.atomic_numbers if raw is None else checked(*_arrays(raw), self.elements)[0]
        return np.stack([(atoms == known[name]).sum(1) for name in names], axis=1).astype(np.float64)

    def summary_features(self, rows: np.ndarray) -> np.ndarray:
        """Numbers of atoms of each element ``(B, len(elements))``: what reference rows are fitted on."""
        return self.numbers([f"n{SYMBOLS[number - 1]}" for number in self.elements])[rows]

    def lines(self) -> list[str]:
        sizes = (self.atomic_numbers > 0).sum(1)
        elements = ", ".join(SYMBOLS[number - 1] for number in self.elements)
        return [
            f"{len(self):,} molecules of {elements}, {sizes.min()} to {sizes.max()} atoms, positions in Angstrom",
            "reference rows are fitted on the numbers of atoms of each element",
        ]

    def _as_seen(self, numbers: np.ndarray, positions: np.ndarray, dtype: torch.dtype) -> Any:
        if self.layout == "pyg":
            return graphs(numbers, positions, dtype)
        return Atoms(torch.tensor(numbers.astype(np.int64)), torch.tensor(positions, dtype=dtype))  # copies


def checked(numbers: Any, positions: Any, elements: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Molecules as read-only arrays, atoms before padding, whose positions are 0.

    Args:
        numbers: Atomic numbers ``(N, A)``, 0 where there is no atom.
        positions: ``(N, A, 3)`` in Angstrom.
        elements: Atomic numbers that are allowed.

    Raises:
        ValueError: See `Molecules`.
    """
    z, x = np.asarray(numbers), np.asarray(positions)
    if z.ndim != 2 or z.dtype.kind not in "iu" or x.shape != (*z.shape, 3) or x.dtype.kind not in "fiu":
        raise ValueError(
            "Molecules are whole atomic numbers (N, A), 0 where there is no atom, and positions (N, A, 3); got "
            f"{z.shape} of {z.dtype} and {x.shape} of {x.dtype}."
        )
    there = z != 0
    order = np.argsort(~there, axis=1, kind="stable")
    z = np.take_along_axis(z, order, axis=1)
    there = np.take_along_axis(there, order, axis=1)
    x = np.where(there[..., None], np.take_along_axis(x, order[..., None], axis=1), 0.0).astype(np.float64)
    empty = ~there.any(axis=1)
    if empty.any():
        raise ValueError(f"Row {int(np.argmax(empty))}: the molecule has no atom. Leave it out.")
    unknown = there & ~np.isin(z, list(elements))
    if unknown.any():
        row, atom = np.argwhere(unknown)[0].tolist()
        number = int(z[row, atom])
        name = f" ({SYMBOLS[number - 1]})" if 0 < number <= len(SYMBOLS) else ""
        known = ", ".join(f"{known} ({SYMBOLS[known - 1]})" for known in elements)
        raise ValueError(
            f"Row {row}: the molecule has an atom of the atomic number {number}{name}, which the model does not know; it "
            f"knows {known}. Leave the molecule out."
        )
    wrong = ~np.isfinite(x).all(axis=(1, 2))
    if wrong.any():
        raise ValueError(f"Row {int(np.argmax(wrong))}: the position of an atom is not finite. Leave the molecule out.")
    for start in range(0, len(z), 1000):  # pairs of atoms take much memory
        _check_distances(x[start : start + 1000], there[start : start + 1000], start)
    z = z.astype(np.uint8)
    for array in (z, x):
        array.setflags(write=False)
    return z, x


def _check_distances(x: np.ndarray, there: np.ndarray, start: int) -> None:
    """Refuses two atoms in one place."""
    squared = np.square(x[:, :, None] - x[:, None]).sum(-1)
    pairs = there[:, :, None] & there[:, None] & ~np.eye(x.shape[1], dtype=bool)
    near = pairs & (squared < LEAST_DISTANCE**2)
    if near.any():
        row, one, other = np.argwhere(near)[0].tolist()
        raise ValueError(
            f"Row {start + row}: the atoms {one} and {other} are {np.sqrt(squared[row, one, other]):.3g} Angstrom from each "
            f"other; {LEAST_DISTANCE} is the least. Are positions in another unit?"
        )


def _arrays(raw: Any) -> tuple[np.ndarray, np.ndarray]:
    """Raw molecules as atomic numbers ``(N, A)`` and positions ``(N, A, 3)``."""
    if isinstance(raw, Mapping) and {"Z", "pos"} <= set(raw):
        return np.asarray(raw["Z"]), np.asarray(raw["pos"])
    if isinstance(raw, Mapping | str) or not isinstance(raw, Iterable):
        raise ValueError(
            "New molecules are a mapping with Z (N, A) and pos (N, A, 3), or pairs of atomic numbers (n,) and positions "
            f"(n, 3); got {type(raw).__name__}."
        )
    return padded([(np.asarray(numbers), np.asarray(positions)) for numbers, positions in raw])


def padded(molecules: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of atomic numbers ``(n,)`` and positions ``(n, 3)`` as arrays ``(N, A)`` and ``(N, A, 3)``.

    Raises:
        ValueError: If there is no molecule, or numbers and positions of one do not fit together.
    """
    if not molecules:
        raise ValueError("There is no molecule. Give one at least.")
    most = max(1, *(len(numbers) for numbers, _ in molecules))
    z, x = np.zeros((len(molecules), most), np.int64), np.zeros((len(molecules), most, 3))
    for row, (numbers, positions) in enumerate(molecules):
        if numbers.ndim != 1 or positions.shape != (len(numbers), 3):
            raise ValueError(
                f"Row {row}: a molecule is atomic numbers (n,) and positions (n, 3); got {numbers.shape} and "
                f"{positions.shape}."
            )
        z[row, : len(numbers)], x[row, : len(numbers)] = numbers, positions
    return z, x


# ---- PyTorch Geometric ---------------------------------------------------------------------------------------------


def _geometric() -> Any:
    try:
        import torch_geometric.data as data
    except ImportError as error:
        raise ImportError(
            "layout='pyg' needs PyTorch Geometric: pip install 'bmtl[graph]'. layout='dense' does without."
        ) from error
    return data


def graphs(numbers: np.ndarray, positions: np.ndarray, dtype: torch.dtype) -> Any:
    """A ``Batch`` of complete graphs; a molecule of one atom has no edge."""
    data = _geometric()
    found = []
    for own, places in zip(numbers, positions, strict=True):
        n = int((own > 0).sum())
        pos = torch.tensor(places[:n], dtype=dtype)
        index = torch.tensor([(i, j) for i in range(n) for j in range(n) if i != j], dtype=torch.int64)
        index = index.reshape(-1, 2).T.contiguous()
        distance = (pos[index[0]] - pos[index[1]]).norm(dim=1, keepdim=True)
        z = torch.tensor(own[:n].astype(np.int64))
        found.append(data.Data(z=z, pos=pos, edge_index=index, edge_attr=distance, num_nodes=n))
    return data.Batch.from_data_list(found)


# ---- Files ---------------------------------------------------------------------------------------------------------

Pairs = list[tuple[np.ndarray, np.ndarray]]


def _atom(words: Sequence[str], symbol: str, where: str) -> tuple[int, list[float]]:
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


def _molecule(atoms: Sequence[tuple[int, list[float]]]) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.array([number for number, _ in atoms], np.int64)
    return numbers, np.array([place for _, place in atoms], np.float64).reshape(-1, 3)


def of_xyz(text: str, source: str) -> Pairs:
    """Molecules of an XYZ text, one after the other: number of atoms, a comment, a line for each atom.

    An extended comment whose columns are others than ``species:S:1:pos:R:3`` first is refused: what follows the symbol
    would be no position.

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
        columns = re.search(r"\bProperties=\"?([\w:]+)", lines[at + 1])
        if columns and not columns[1].lower().startswith("species:s:1:pos:r:3"):
            raise ValueError(
                f"{source}, line {at + 2}: its columns are {columns[1]!r}, and symbol and position are to come first, "
                "species:S:1:pos:R:3."
            )
        atoms = []
        for k in range(at + 2, at + 2 + n):
            symbol, *words = lines[k].split() or [""]
            atoms.append(_atom(words[:3], symbol, f"{source}, line {k + 1}"))
        found.append(_molecule(atoms))
        at += 2 + n
    return found


def of_sdf(text: str, source: str) -> Pairs:
    """Molecules of an SD file (V2000), one after the other; bonds are not read.

    Drawings (coordinates in a plane, by the code 2D of the second line) and ions are refused: a model sees atoms and their
    positions in space, and no charge.

    Raises:
        ValueError: If it cannot be read, or holds a drawing or an ion; says where.
    """
    found: Pairs = []
    for number, block in enumerate(re.split(r"^\$\$\$\$[ \t]*(?:\r?\n|\Z)", text, flags=re.MULTILINE)):
        if not block.strip():
            continue
        lines, where = block.splitlines(), f"{source}, molecule {number}"
        counts = lines[3] if len(lines) > 3 else ""
        count = counts[:3].strip()
        if not count.isdecimal() or len(lines) < 4 + int(count) or "V3000" in counts:
            raise ValueError(
                f"{where}: this is no block of an SD file in the format V2000, whose fourth line begins with the number of "
                f"atoms; got {counts!r}."
            )
        if lines[1][20:22] == "2D":
            raise ValueError(f"{where}: its coordinates are those of a drawing (2D). Give positions in space (3D).")
        _check_charge(_charge(lines[4 : 4 + int(count)], lines[4 + int(count) :]), where)
        atoms = [(line[:30].split(), line[31:34].strip()) for line in lines[4 : 4 + int(count)]]
        found.append(_molecule([_atom(words, symbol, where) for words, symbol in atoms]))
    return found


_CHARGES = {1: 3, 2: 2, 3: 1, 5: -1, 6: -2, 7: -3}  # by the code of an atom's line


def _charge(atoms: Sequence[str], rest: Sequence[str]) -> int:
    """Of a molecule of an SD file, from its lines of atoms and those after them, which take precedence."""
    listed = [line[9:].split()[1::2] for line in rest if line.startswith("M  CHG")]
    try:
        if listed:
            return sum(int(word) for words in listed for word in words)
        return sum(_CHARGES.get(int(line[36:39].strip() or 0), 0) for line in atoms)
    except ValueError:
        return 0  # another program's columns


def _check_charge(charge: int, where: str) -> None:
    """Refuses ions: nothing of a charge is in atomic numbers and positions."""
    if charge:
        raise ValueError(
            f"{where}: the molecule has the charge {charge:+d}, which a model of atoms and positions does not see. Leave it "
            "out; or, if the model was trained on such ions, give .npz with Z and pos."
        )


def of_smiles(table: RawTable) -> Pairs:
    """Molecules of a table with a column ``smiles``, with the positions of a force field. Ions are refused, as in SD files.

    Raises:
        ImportError: If rdkit is not installed.
        ValueError: If there is no such column, or a molecule cannot be read; says which row.
    """
    column = table.column("smiles", "the molecules")
    try:
        from rdkit import Chem
        from rdkit.Chem import AllChem
    except ImportError as error:
        raise ImportError(
            "Positions of SMILES are made by rdkit: pip install 'bmtl[molecules]'. Or give positions, as .xyz, .sdf or "
            ".npz with Z and pos."
        ) from error
    found: Pairs = []
    for row, smiles in enumerate(column.as_texts()):
        molecule = Chem.MolFromSmiles(smiles or "")
        if molecule is None or not molecule.GetNumAtoms():
            raise ValueError(f"{column.at(row)}: {smiles or ''!r} is no SMILES of a molecule.")
        _check_charge(Chem.GetFormalCharge(molecule), column.at(row))
        molecule = Chem.AddHs(molecule)
        if AllChem.EmbedMolecule(molecule, randomSeed=0) != 0:
            raise ValueError(f"{column.at(row)}: rdkit finds no positions for {smiles!r}.")
        if AllChem.MMFFHasAllMoleculeParams(molecule):
            AllChem.MMFFOptimizeMolecule(molecule)
        numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], np.int64)
        found.append((numbers, np.array(molecule.GetConformer().GetPositions(), np.float64)))
    return found
