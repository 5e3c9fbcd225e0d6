"""Drug-target affinities: Davis (68 kinase inhibitors, 442 kinases) and KIBA (2,111 compounds, 229 kinases).

Sources: M. I. Davis et al., "Comprehensive analysis of kinase inhibitor selectivity", Nature Biotechnology 29, 2011; J.
Tang et al., "Making sense of large-scale kinase inhibitor bioactivity data sets", J. Chem. Inf. Model. 54, 2014; texts and
folds are those of H. Ozturk, A. Ozgur, E. Ozkirimli, "DeepDTA", Bioinformatics 34, 2018.

Davis has pKd = 9 - log10(Kd in nM). 69.6 % of it is exactly 5.0: no binding was measured up to 10,000 nM, so the label is
a bound and no value (`Real(bounds=(5.0, None))`). Mutants carry the wild type's sequence: 442 proteins have 379 different
ones, and 18.5 % of the test pairs of the given fold have their SMILES and sequence among the training pairs too. Affinities
are not scaled; likelihoods take their start from the labels.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from bmtl.datasets import splits
from bmtl.datasets.drug_target import DrugTargetPairs
from bmtl.datasets.files import Archive, find
from bmtl.datasets.multi_task_data import MultiTaskData
from bmtl.targets import Real

Setting = Literal["warm", "cold-drug", "cold-target", "cold-both"]
Tasks = Literal["one", "drug", "protein"]
Order = Literal["random", "proteins"]

TARGET = "affinity"


@dataclass(frozen=True)
class _Set:
    """A reader's description of its data set."""

    name: str
    text_files: tuple[str, ...]  # of affinities, a matrix of drugs by proteins
    limits: tuple[int, int]  # of SMILES and sequences, as published
    family: Real
    unit: str
    citation: str


SETS = {
    "davis": _Set(
        "davis",
        ("Y.txt", "drug-target_interaction_affinities_Kd__Davis_et_al.2011v1.txt"),
        (85, 1200),
        Real(bounds=(5.0, None)),
        "pKd",
        "M. I. Davis et al., Comprehensive analysis of kinase inhibitor selectivity, Nature Biotechnology 29, 2011.",
    ),
    "kiba": _Set(
        "kiba",
        ("Y.txt", "kiba_binding_affinity_v2.txt"),
        (100, 1000),
        Real(),
        "KIBA score",
        "J. Tang et al., Making sense of large-scale kinase inhibitor bioactivity data sets, JCIM 54, 2014.",
    ),
}

LICENCE = "None stated by DeepDTA; deargen/MT-ENet publishes the same files under the MIT licence."
SOURCE = (
    "Put there the folder data/{name} of https://github.com/hkmztrk/DeepDTA (commit a546a8433a68): ligands_can.txt, "
    "proteins.txt, folds/train_fold_setting1.txt, folds/test_fold_setting1.txt, and the affinities as the text file Y.txt, "
    "a row a drug and a column a protein. Their file Y is a pickle, which is not read; one line of Python converts it: "
    "import pickle, numpy; numpy.savetxt('Y.txt', pickle.load(open('Y', 'rb'), encoding='latin1'))."
)


@dataclass(frozen=True)
class _Raw:
    """A set as it was read.

    Attributes:
        drugs: Name -> SMILES.
        proteins: Name -> sequence.
        drug: Number of each pair's drug ``(N,)``.
        protein: Number of each pair's protein ``(N,)``.
        y: Affinities ``(N,)``.
        folds: Rows of the given training folds.
        test: Rows of the given test fold.
    """

    drugs: Mapping[str, str]
    proteins: Mapping[str, str]
    drug: np.ndarray
    protein: np.ndarray
    y: np.ndarray
    folds: list[np.ndarray]
    test: np.ndarray


def read(
    name: str,
    root: str | Path | None = None,
    *,
    setting: Setting = "warm",
    split: int = 0,
    proportion: float = 0.8,
    validation: float = 0.2,
    seed: int = 0,
    tasks: Tasks = "one",
    batches: Order = "random",
) -> MultiTaskData:
    """Affinities of drugs and proteins, in the published folds or split so that test drugs or proteins are new.

    Args:
        name: "davis" or "kiba".
        root: Folder of the data; the default is what the environment variable ``BMTL_DATA`` says.
        setting: "warm" is the given test fold: pairs are new, their drugs and proteins are not. "cold-drug" has test drugs
            whose SMILES no training pair has, "cold-target" test proteins whose sequence none has, "cold-both" pairs of
            both; validation rows are as new as test rows are.
        split: Of "warm": which of the given training folds is for validation.
        proportion: Of the other settings: of the pairs that are for training, validation included; of "cold-both" of the
            drugs and of the proteins, and pairs with one new side are in no part.
        validation: Of the other settings: proportion of those that becomes validation.
        seed: Of the other settings: for what is drawn.
        tasks: "one" has one target; "drug" has a target for each drug, with labels in the pairs of that drug alone, and
            "protein" one for each protein.
        batches: "proteins" has batches of few proteins with all of their training pairs, which spares encoders of sequences
            most of their work, at the price of other gradient noise.

    Raises:
        FileNotFoundError: If `root` does not hold the files.
        ValueError: If an option is unknown or out of range, or a file is not what it should be.
    """
    for option, given, known in (("setting", setting, Setting), ("tasks", tasks, Tasks), ("batches", batches, Order)):
        if given not in get_args(known):
            raise ValueError(f"{option} is one of {', '.join(map(repr, get_args(known)))}; got {given!r}.")
    about = SETS[name]
    source = SOURCE.format(name=name)
    path = find(name, [f"dta/{name}.npz", f"dta/{name}", name], root, source)
    raw = _of_text(path, about) if path.is_dir() else _of_archive(path)
    notes = []
    if setting == "warm":
        rows = _warm(raw, split)
    elif setting == "cold-both":
        rows = _cold_both(raw, proportion, validation, seed)
        used = sum(map(len, rows.values()))
        notes.append(f"{len(raw.y) - used:,} pairs with one new side are in no part.")
    else:
        texts = list((raw.drugs if setting == "cold-drug" else raw.proteins).values())
        of = raw.drug if setting == "cold-drug" else raw.protein
        everything = np.arange(len(raw.y))
        rows = splits.parts(
            everything, proportion=proportion, validation=validation, seed=seed, groups=np.array(texts)[of]
        )
    inputs = DrugTargetPairs.fit(
        raw.drugs,
        raw.proteins,
        raw.drug,
        raw.protein,
        rows["train"],
        limits=about.limits,
        by_protein=batches == "proteins",
    )
    labels, left_out = _labels(raw, rows, tasks)
    if left_out:
        notes.append(f"{left_out} {tasks}s have no label in every part and are no targets.")
    return MultiTaskData.from_arrays(
        name,
        inputs,
        labels,
        rows,
        families=dict.fromkeys(labels, about.family),
        units=about.unit,
        citation=about.citation,
        licence=LICENCE,
        scaling="none",
        num_splits=len(raw.folds) if setting == "warm" else None,
        notes=notes,
    )


def _reader(name: str) -> Any:
    """`read` of one set."""

    @functools.wraps(read)
    def of(root: str | Path | None = None, **options: Any) -> MultiTaskData:
        return read(name, root, **options)

    return of


davis, kiba = _reader("davis"), _reader("kiba")


# ---- Files -------------------------------------------------------------------------------------------------------


def _of_archive(path: Path) -> _Raw:
    file = Archive(path)
    drugs, proteins = (
        _named(path, kind, file.array(names).tolist(), file.array(texts).tolist())
        for kind, names, texts in (("drug", "drug_id", "smiles"), ("protein", "protein_id", "proteins"))
    )
    folds = [fold[fold >= 0] for fold in file.array("train_folds")]  # padded with -1
    drug, protein = file.array("drug").astype(np.int64), file.array("prot").astype(np.int64)
    return _Raw(drugs, proteins, drug, protein, file.array("y").astype(np.float64), folds, file.array("test"))


def _of_text(folder: Path, about: _Set) -> _Raw:
    """The layout of DeepDTA's repository."""
    drugs = _texts(folder / "ligands_can.txt")
    proteins = _texts(folder / "proteins.txt")
    found = next((folder / name for name in about.text_files if (folder / name).is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"{folder} has none of the affinities {' and '.join(about.text_files)}. {SOURCE.format(name=about.name)}"
        )
    try:
        matrix = np.loadtxt(found, ndmin=2)
    except ValueError as error:
        raise ValueError(f"{found} is no matrix of numbers with spaces between: {error}.") from error
    if matrix.shape != (len(drugs), len(proteins)):
        raise ValueError(
            f"{found} has the shape {matrix.shape}, and {len(drugs)} drugs by {len(proteins)} proteins are expected."
        )
    if about.family.bounds is not None:  # Kd in nM
        if not (matrix[~np.isnan(matrix)] > 0).all():
            raise ValueError(f"{found} holds Kd in nM, above 0; the smallest is {np.nanmin(matrix)}.")
        matrix = 9.0 - np.log10(matrix)
    drug, protein = np.nonzero(~np.isnan(matrix))  # folds number the pairs in this order
    folds = [np.array(fold, dtype=np.int64) for fold in _json(folder / "folds" / "train_fold_setting1.txt")]
    test = np.array(_json(folder / "folds" / "test_fold_setting1.txt"), dtype=np.int64)
    return _Raw(drugs, proteins, drug, protein, matrix[drug, protein], folds, test)


def _texts(path: Path) -> dict[str, str]:
    found = _json(path)
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ValueError(f"{path} is an object of names and texts in JSON; got {type(found).__name__}.")
    # White space around a text would make of one sequence two, which a cold split may part.
    return {name: text.strip() for name, text in found.items()}


def _json(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}, which DeepDTA's layout has.")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_repeats)
    except _RepeatedError as error:
        raise ValueError(
            f"{path} has the name {error} twice; the affinities have a row or column for each name."
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error


class _RepeatedError(ValueError):
    """A name that an object of JSON has twice: of the two, Python would keep one in silence."""


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _RepeatedError(repr(name))
        found[name] = value
    return found


def _named(path: Path, kind: str, names: list[str], texts: list[str]) -> dict[str, str]:
    if len(set(names)) < len(names) or len(names) != len(texts):
        raise ValueError(f"{path} needs one name a {kind}, no two alike; it has {len(names)} for {len(texts)} texts.")
    return dict(zip(names, map(str.strip, texts), strict=True))


# ---- Splits and targets ------------------------------------------------------------------------------------------


def _warm(raw: _Raw, split: int) -> dict[str, np.ndarray]:
    if isinstance(split, bool) or split not in range(len(raw.folds)):
        raise ValueError(f"split numbers the {len(raw.folds)} training folds from 0; got {split!r}.")
    train = np.concatenate([fold for i, fold in enumerate(raw.folds) if i != split])
    return {"train": train, "val": raw.folds[split], "test": raw.test}


def _cold_both(raw: _Raw, proportion: float, validation: float, seed: int) -> dict[str, np.ndarray]:
    sides = []
    for side, (texts, of) in enumerate(((raw.drugs, raw.drug), (raw.proteins, raw.protein))):
        parts = splits.parts(
            np.arange(len(texts)),
            proportion=proportion,
            validation=validation,
            seed=2 * seed + side,
            groups=np.array(list(texts.values())),
        )
        place = np.full(len(texts), "", dtype="<U5")
        for part, members in parts.items():
            place[members] = part
        sides.append(place[of])
    found = {part: np.flatnonzero((sides[0] == part) & (sides[1] == part)) for part in ("train", "val", "test")}
    return {part: rows for part, rows in found.items() if len(rows)}


def _labels(raw: _Raw, rows: Mapping[str, np.ndarray], tasks: Tasks) -> tuple[dict[str, np.ndarray], int]:
    """Labels by target, and how many targets were left out since a part has no label of theirs."""
    if tasks == "one":
        return {TARGET: raw.y}, 0
    names, of = (list(raw.drugs), raw.drug) if tasks == "drug" else (list(raw.proteins), raw.protein)
    labels = {}
    for number, name in enumerate(names):
        if all((of[members] == number).any() for members in rows.values()):
            labels[f"CID_{name}" if name.isdigit() else name] = np.where(of == number, raw.y, np.nan)
    if not labels:
        raise ValueError(
            f"No {tasks} has a label in every part, so tasks={tasks!r} has no target: in a cold split of {tasks}s those of "
            "the test rows are new. Use another setting, or tasks='one'."
        )
    return labels, len(names) - len(labels)
