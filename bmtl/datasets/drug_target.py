"""Pairs of a drug and a protein as inputs: a SMILES and a sequence of amino acids.

A batch is ``{"drug": Entities, "protein": Entities}`` (`bmtl.inputs.Entities`): tables of the drugs and the proteins with
everything that an encoder may take of them, and each pair's numbers in these. The tables are

    drug     tokens (D, 85) uint8, length (D,), fingerprint (D, 1024), id (D,), atoms (D, A, F) uint8, edges (D, E, 2)
    protein  tokens (P, 1200) uint8, length (P,), composition (P, 420), id (P,)

``id`` is -1 for what no training pair has. Tokens are numbers of characters from 1, and 0 is padding; a longer text is cut.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bmtl.datasets import smiles
from bmtl.datasets.input_kind import Inputs, register_kind
from bmtl.datasets.tables.column import Column, RawTable
from bmtl.datasets.tables.frames import raw_table
from bmtl.datasets.tables.reading import read_table
from bmtl.inputs import Entities
from bmtl.targets.scaler import Scaler

logger = logging.getLogger(__name__)

SMILES_CHARACTERS = "#%()+-./0123456789=@ABCDEFGHIKLMNOPRSTUVWYZ[\\]abcdefghilmnorstuy"
"""The 64 characters of DeepDTA's alphabet."""
RESIDUES = "ABCDEFGHIKLMNOPQRSTUVWXYZ"
"""The 25 letters of sequences; J is none."""
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
COMPOSITION = len(AMINO_ACIDS) + len(AMINO_ACIDS) ** 2
LONGEST = {"smiles": 2_000, "sequence": 50_000}
"""Longer texts are refused; the longest known protein has 38,000 residues."""
MOST_SHOWN = 5  # wrong rows in a message


@dataclass(frozen=True, eq=False)
class Side:
    """The drugs or the proteins.

    Attributes:
        names: Of the entities; they differ.
        texts: Their SMILES or sequences.
        trained: Which of them training pairs have, bool ``(M,)``.
    """

    names: tuple[str, ...]
    texts: tuple[str, ...]
    trained: np.ndarray

    def ids(self, names: Sequence[str | None], texts: Sequence[str]) -> np.ndarray:
        """The number of each entity ``(n,)``, by name and text or, where it has no name, by its text; -1 for new ones."""
        by_name = {pair: i for i, pair in enumerate(zip(self.names, self.texts, strict=True)) if self.trained[i]}
        by_text: dict[str, int] = {}
        for i, text in enumerate(self.texts):
            if self.trained[i]:
                by_text.setdefault(text, i)
        return np.array(
            [
                by_text.get(text, -1) if name is None else by_name.get((name, text), -1)
                for name, text in zip(names, texts, strict=True)
            ],
            dtype=np.int64,
        )

    def state(self) -> dict[str, Any]:
        return {"names": list(self.names), "texts": list(self.texts), "trained": torch.from_numpy(self.trained.copy())}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        return cls(tuple(state["names"]), tuple(state["texts"]), state["trained"].numpy())


@register_kind
@dataclass(frozen=True, eq=False)
class DrugTargetPairs(Inputs):
    """N pairs of D drugs and P proteins.

    Args:
        drugs: The drugs.
        proteins: The proteins.
        drug: Number of each pair's drug ``(N,)``.
        protein: Number of each pair's protein ``(N,)``.
        composition: Scaler of the proteins' composition, fitted on those of training pairs.
        limits: Characters of a SMILES and of a sequence that an encoder of sequences sees.
        by_protein: Whether batches are of few proteins with all of their pairs, rather than of any pairs.
    """

    kind: ClassVar[str] = "drug-target"
    drugs: Side = field(repr=False)
    proteins: Side = field(repr=False)
    drug: np.ndarray = field(repr=False)
    protein: np.ndarray = field(repr=False)
    composition: Scaler = field(repr=False)
    limits: tuple[int, int] = (85, 1200)
    by_protein: bool = False

    @classmethod
    def fit(
        cls,
        drugs: Mapping[str, str],
        proteins: Mapping[str, str],
        drug: np.ndarray,
        protein: np.ndarray,
        rows: np.ndarray,
        *,
        limits: tuple[int, int] = (85, 1200),
        by_protein: bool = False,
    ) -> Self:
        """Pairs whose compositions are scaled, and whose ids are known, by some rows.

        Args:
            drugs: Name -> SMILES.
            proteins: Name -> sequence.
            drug: See the class.
            protein: See the class.
            rows: Training rows.
            limits: See the class.
            by_protein: See the class.

        Raises:
            ValueError: If a SMILES or sequence is wrong; names the first few.
        """
        drugs, proteins = ({name: text.strip() for name, text in of.items()} for of in (drugs, proteins))
        checked(drugs, check_smiles, lambda name: f"drug {name!r}")
        checked(proteins, check_sequence, lambda name: f"protein {name!r}")
        sides = []
        for given, of in ((drugs, drug), (proteins, protein)):
            trained = np.zeros(len(given), dtype=bool)
            trained[of[rows]] = True
            sides.append(Side(tuple(given), tuple(given.values()), trained))
        own = [text for text, there in zip(proteins.values(), sides[1].trained, strict=True) if there]
        scaler = Scaler.fit(np.stack([composition_of(text) for text in own]), clip=5.0)
        return cls(sides[0], sides[1], np.asarray(drug), np.asarray(protein), scaler, limits, by_protein)

    def __len__(self) -> int:
        return len(self.drug)

    def tensors(self, rows: np.ndarray, dtype: torch.dtype = torch.float32) -> dict[str, Entities]:
        drugs, proteins = ({name: _as(part, dtype) for name, part in table.items()} for table in self._tables)
        return {
            "drug": Entities(drugs, torch.as_tensor(self.drug[rows], dtype=torch.int64)),
            "protein": Entities(proteins, torch.as_tensor(self.protein[rows], dtype=torch.int64)),
        }

    @cached_property
    def _tables(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Those of the drugs and of the proteins."""
        return (
            drug_table(self.drugs.texts, self.drugs.ids(self.drugs.names, self.drugs.texts), self.limits[0]),
            protein_table(
                self.proteins.texts,
                self.proteins.ids(self.proteins.names, self.proteins.texts),
                self.limits[1],
                self.composition,
            ),
        )

    def budget(self) -> dict[str, Any]:
        """24 epochs of 256 pairs, Adam at 1e-3 falling to 0, two layers of 256: half a minute of one core on Davis."""
        return {"epochs": 24, "batch_size": 256, "lr": 1e-3, "schedule": "falling", "widths": (256, 256)}

    def groups(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"drug": self.drug[rows], "protein": self.protein[rows]}

    def blocks(self, rows: np.ndarray) -> np.ndarray:
        """The proteins: their sequences are longest, and an encoder reads each of a batch once."""
        return self.protein[rows]

    @property
    def train_in_blocks(self) -> bool:
        return self.by_protein

    def summary_features(self, rows: np.ndarray) -> np.ndarray:
        """Fingerprint and composition, without columns that are constant or repeat another."""
        drugs, proteins = self._tables
        fingerprint, composition = _without_repeats(drugs["fingerprint"]), _without_repeats(proteins["composition"])
        return np.concatenate([fingerprint[self.drug[rows]], composition[self.protein[rows]]], axis=1)

    def pieces(self) -> Iterable[tuple[str, np.ndarray]]:
        for name, side in (("drug", self.drugs), ("protein", self.proteins)):
            yield f"x/{name}", np.frombuffer("\n".join(side.texts).encode(), dtype=np.uint8)
            yield f"x/{name}/names", np.frombuffer("\n".join(side.names).encode(), dtype=np.uint8)
        yield "x/pairs", np.stack([self.drug, self.protein], axis=1).astype(np.int64)
        yield "x/limits", np.array([*self.limits, self.by_protein])

    def describe(self) -> dict[str, Any]:
        """``kind`` and, for ``drug`` and ``protein``, sizes that encoders need."""
        return {
            "kind": self.kind,
            "trunk": "fingerprints",
            "drug": {
                "vocabulary": len(SMILES_CHARACTERS) + 1,
                "limit": self.limits[0],
                "features": smiles.BITS,
                "ids": len(self.drugs.names),
                "atom_features": smiles.ATOM_FEATURES,
            },
            "protein": {
                "vocabulary": len(RESIDUES) + 1,
                "limit": self.limits[1],
                "features": COMPOSITION,
                "ids": len(self.proteins.names),
            },
        }

    def lines(self) -> list[str]:
        found = [
            f"{len(self):,} pairs of {len(self.drugs.names):,} drugs ({len(set(self.drugs.texts)):,} different SMILES) and "
            f"{len(self.proteins.names):,} proteins ({len(set(self.proteins.texts)):,} different sequences)"
        ]
        for what, side, limit in (("SMILES", self.drugs, self.limits[0]), ("sequences", self.proteins, self.limits[1])):
            cut = sum(len(text) > limit for text in side.texts)
            if cut:
                found.append(
                    f"{cut} {what} are longer than {limit} characters; encoders of sequences see the first {limit}."
                )
        return found

    def prepare(self, raw: Any, dtype: torch.dtype = torch.float32) -> dict[str, Entities]:
        """New pairs as a model sees them.

        Args:
            raw: What `read` returned; a data frame with the columns ``smiles`` and ``sequence``, and perhaps ``drug`` and
                ``protein`` with the names that the training data have; or pairs (SMILES, sequence).
            dtype: Type of floating-point tensors.

        Raises:
            ValueError: If a column is not there, or a SMILES or sequence is empty, too long or none; names the rows.
        """
        table = raw if isinstance(raw, RawTable) else raw_table(_frame(raw))
        _check_columns(table, {"smiles": check_smiles, "sequence": check_sequence})
        parts: dict[str, Entities] = {}
        for side, entity, column, limit in (
            (self.drugs, "drug", "smiles", self.limits[0]),
            (self.proteins, "protein", "sequence", self.limits[1]),
        ):
            texts = _texts(table.columns[column], limit)
            names = table.columns[entity].as_texts() if entity in table.columns else [None] * len(texts)
            pairs = list(zip(names, texts, strict=True))
            different = list(dict.fromkeys(pairs))
            number = {pair: i for i, pair in enumerate(different)}
            own = [text for _, text in different]
            ids = side.ids([name for name, _ in different], own)
            made = drug_table(own, ids, limit) if entity == "drug" else protein_table(own, ids, limit, self.composition)
            index = torch.tensor([number[pair] for pair in pairs], dtype=torch.int64)
            parts[entity] = Entities({name: _as(part, dtype) for name, part in made.items()}, index)
        return parts

    def read(self, path: str | Path) -> RawTable:
        """A text or Parquet file with the columns ``smiles`` and ``sequence``."""
        return read_table(path)

    def state(self) -> dict[str, Any]:
        return {
            "drugs": self.drugs.state(),
            "proteins": self.proteins.state(),
            "mean": torch.tensor(np.array(self.composition.mean)),
            "std": torch.tensor(np.array(self.composition.std)),
            "clip": self.composition.clip,
            "limits": list(self.limits),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        none = np.zeros(0, dtype=np.int64)
        scaler = Scaler(state["mean"].numpy(), state["std"].numpy(), state["clip"])
        first, second = state["limits"]
        sides = Side.from_state(state["drugs"]), Side.from_state(state["proteins"])
        return cls(*sides, none, none, scaler, (first, second))


# ---- Tables ------------------------------------------------------------------------------------------------------


def drug_table(texts: Sequence[str], ids: np.ndarray, limit: int) -> dict[str, Tensor]:
    """Inputs of encoders of drugs, rows first; see the module."""
    molecules = [smiles.parse(text) for text in texts]
    atoms = [smiles.atom_features(molecule) for molecule in molecules]
    edges = [
        np.array([pair for i, j, _ in molecule.bonds for pair in ((i, j), (j, i))], dtype=np.int64).reshape(-1, 2)
        for molecule in molecules
    ]
    return {
        **_tokens(texts, SMILES_CHARACTERS, limit),
        "fingerprint": torch.from_numpy(np.stack([smiles.fingerprint(molecule) for molecule in molecules])).float(),
        "id": torch.from_numpy(ids),
        "atoms": _padded(atoms, 0).to(torch.uint8),
        "edges": _padded(edges, -1).to(torch.int16),
    }


def protein_table(texts: Sequence[str], ids: np.ndarray, limit: int, scaler: Scaler) -> dict[str, Tensor]:
    """Inputs of encoders of proteins, rows first; see the module."""
    return {
        **_tokens(texts, RESIDUES, limit),
        "composition": torch.from_numpy(scaler.transform(np.stack([composition_of(text) for text in texts]))),
        "id": torch.from_numpy(ids),
    }


def composition_of(sequence: str) -> np.ndarray:
    """Shares of the 20 amino acids and of their 400 ordered pairs ``(420,)``; other letters count in neither."""
    number = np.full(128, -1)
    number[[ord(letter) for letter in AMINO_ACIDS]] = np.arange(len(AMINO_ACIDS))
    codes = number[np.frombuffer(sequence.encode(), dtype=np.uint8)]
    single = np.bincount(codes[codes >= 0], minlength=20)
    both = (codes[:-1] >= 0) & (codes[1:] >= 0)
    double = np.bincount((codes[:-1] * 20 + codes[1:])[both], minlength=400)
    return np.concatenate([part / max(part.sum(), 1) for part in (single, double)])


def _tokens(texts: Sequence[str], characters: str, limit: int) -> dict[str, Tensor]:
    number = np.zeros(128, dtype=np.uint8)
    number[[ord(letter) for letter in characters]] = np.arange(1, len(characters) + 1)
    tokens = np.zeros((len(texts), limit), dtype=np.uint8)
    for row, text in zip(tokens, texts, strict=True):
        cut = text[:limit]
        row[: len(cut)] = number[np.frombuffer(cut.encode(), dtype=np.uint8)]
    lengths = torch.tensor([min(len(text), limit) for text in texts], dtype=torch.int64)
    return {"tokens": torch.from_numpy(tokens), "length": lengths}


def _padded(arrays: Sequence[np.ndarray], value: int) -> Tensor:
    """Arrays ``(n_i, F)`` as one ``(M, n, F)``."""
    found = np.full((len(arrays), max(map(len, arrays)), arrays[0].shape[1]), value, dtype=np.int64)
    for row, array in zip(found, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(found)


def _without_repeats(table: Tensor) -> np.ndarray:
    array = table.numpy().astype(np.float32)  # of KIBA's pairs in float64: 1.4 GB
    array = array[:, array.std(axis=0) > 0]
    _, first = np.unique(array, axis=1, return_index=True)
    return array[:, np.sort(first)]


def _as(part: Tensor, dtype: torch.dtype) -> Tensor:
    return part.to(dtype) if part.is_floating_point() else part


# ---- Checks ------------------------------------------------------------------------------------------------------


def check_smiles(text: str) -> None:
    """Raises a ``ValueError`` that says what is wrong with a SMILES, if anything is."""
    _check_text("SMILES", text, SMILES_CHARACTERS, LONGEST["smiles"])
    smiles.parse(text)


def check_sequence(text: str) -> None:
    """Raises a ``ValueError`` that says what is wrong with a sequence, if anything is."""
    _check_text("sequence", text, RESIDUES, LONGEST["sequence"])


def _check_text(what: str, text: str, characters: str, longest: int) -> None:
    if not text:
        raise ValueError(f"an empty {what}")
    if len(text) > longest:
        raise ValueError(f"a {what} of {len(text):,} characters, and the longest that is taken has {longest:,}")
    wrong = next((i for i, letter in enumerate(text) if letter not in characters), None)
    if wrong is not None:
        raise ValueError(f"a {what} with {text[wrong]!r} at character {wrong + 1}; its characters are {characters}")


def checked(texts: Mapping[Any, str | None], check: Callable[[str], None], at: Callable[[Any], str]) -> None:
    """Checks texts.

    Raises:
        ValueError: If one is wrong; names the first few.
    """
    _raise(list(_faults(texts, check, at)))


def _faults(texts: Mapping[Any, str | None], check: Callable[[str], None], at: Callable[[Any], str]) -> Iterator[str]:
    """Errors in texts, a sentence each; each different text is checked once."""
    verdicts: dict[str, str] = {}
    for place, given in texts.items():
        text = (given or "").strip()
        if text not in verdicts:
            verdicts[text] = ""
            try:
                check(text)
            except ValueError as error:
                verdicts[text] = str(error).rstrip(".")
        if verdicts[text]:
            yield f"{at(place)}: {verdicts[text]}"


def _raise(faults: Sequence[str]) -> None:
    if faults:
        more = f" And {len(faults) - MOST_SHOWN:,} more rows." if len(faults) > MOST_SHOWN else ""
        raise ValueError(f"{'; '.join(faults[:MOST_SHOWN])}.{more} Correct them, or leave the rows out.")


def _check_columns(table: RawTable, checks: Mapping[str, Callable[[str], None]]) -> None:
    """Raises a ``ValueError`` that names rows of columns with something wrong."""
    faults: list[str] = []
    for name, check in checks.items():
        column = table.column(name, "the inputs")
        faults += _faults(dict(enumerate(column.as_texts())), check, column.at)
    _raise(faults)


def _texts(column: Column, limit: int) -> list[str]:
    """The texts of a column that was checked; what will be cut is logged."""
    found = [(text or "").strip() for text in column.as_texts()]
    cut = [column.origin.at(row) for row, text in enumerate(found) if len(text) > limit]
    if cut:
        logger.warning(
            "Column %r has %d row%s with more than %d characters; encoders of sequences see the first %d: %s%s",
            column.name,
            len(cut),
            "s" * (len(cut) > 1),
            limit,
            limit,
            "; ".join(cut[:MOST_SHOWN]),
            f"; and {len(cut) - MOST_SHOWN:,} more." if len(cut) > MOST_SHOWN else ".",
        )
    return found


def _frame(raw: Any) -> pd.DataFrame:
    """Pairs (SMILES, sequence) as a data frame; a data frame is its own."""
    if isinstance(raw, pd.DataFrame):
        return raw
    pairs = [raw] if isinstance(raw, str) else list(raw)
    if not pairs or any(isinstance(pair, str) or len(pair) != 2 for pair in pairs):
        raise ValueError(
            "New inputs are a data frame with the columns smiles and sequence, or pairs (SMILES, sequence), one at least; "
            f"got {type(raw).__name__} of {len(pairs)}."
        )
    return pd.DataFrame(pairs, columns=["smiles", "sequence"])
