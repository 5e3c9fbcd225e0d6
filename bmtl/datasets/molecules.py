"""Molecules as inputs: atomic numbers and positions, as dense padded batches or as graphs of PyTorch Geometric."""

import logging
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
from bmtl.datasets.molecule_files.atoms import SYMBOLS
from bmtl.datasets.molecule_files.sdf import of_sdf
from bmtl.datasets.molecule_files.smiles import of_smiles
from bmtl.datasets.molecule_files.xyz import of_xyz
from bmtl.datasets.tables.reading import read_table

logger = logging.getLogger(__name__)

LEAST_DISTANCE = 0.3
"""Angstrom. Atoms nearer to each other than this are an error in the data: the shortest bond, of H2, is 0.74."""

LONGEST_NEAREST = 1.7
"""Angstrom. Of molecules of H, B, C, N, O and F, the two nearest atoms are nearer to each other than this; in Bohr they are
not."""

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

        What each reader refuses is said in `bmtl.datasets.molecule_files`. Positions of SMILES are those of a force field.

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
    nearest = [  # in parts: pairs of atoms take much memory
        _nearest(x[start : start + 1000], there[start : start + 1000], start) for start in range(0, len(z), 1000)
    ]
    _warn_of_unit(z, np.concatenate(nearest) if nearest else np.empty(0))
    z = z.astype(np.uint8)
    for array in (z, x):
        array.setflags(write=False)
    return z, x


def _nearest(x: np.ndarray, there: np.ndarray, start: int) -> np.ndarray:
    """Distance of the two nearest atoms of each molecule, infinite of one atom; refuses two atoms in one place."""
    squared = np.square(x[:, :, None] - x[:, None]).sum(-1)
    pairs = there[:, :, None] & there[:, None] & ~np.eye(x.shape[1], dtype=bool)
    near = pairs & (squared < LEAST_DISTANCE**2)
    if near.any():
        row, one, other = np.argwhere(near)[0].tolist()
        raise ValueError(
            f"Row {start + row}: the atoms {one} and {other} are {np.sqrt(squared[row, one, other]):.3g} Angstrom from each "
            f"other; {LEAST_DISTANCE} is the least. Are positions in another unit?"
        )
    return np.sqrt(np.where(pairs, squared, np.inf).min(axis=(1, 2), initial=np.inf))


def _warn_of_unit(z: np.ndarray, nearest: np.ndarray) -> None:
    """Says so where no molecule has a bond of a usual length, as where positions are in Bohr."""
    known = np.isfinite(nearest) & np.isin(z, (0, 1, 5, 6, 7, 8, 9)).all(axis=1)
    if known.any() and (nearest[known] > LONGEST_NEAREST).all():
        logger.warning(
            "Positions are in Angstrom, and the nearest two atoms of a molecule are %.3g to %.3g apart here, more than any "
            "bond between H, B, C, N, O and F is long. If they are in Bohr, multiply them by 0.529177.",
            nearest[known].min(),
            nearest[known].max(),
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
        fit = numbers.ndim == 1 and positions.shape == (len(numbers), 3)
        if not fit or (len(numbers) and (numbers.dtype.kind not in "iu" or positions.dtype.kind not in "fiu")):
            raise ValueError(
                f"Row {row}: a molecule is whole atomic numbers (n,) and positions (n, 3); got {numbers.shape} of "
                f"{numbers.dtype} and {positions.shape} of {positions.dtype}."
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
