"""Pairs of a SMILES and a sequence as inputs."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch

from bmtl.datasets import Batches, inputs_from_state, inputs_state
from bmtl.datasets.drug_target import AMINO_ACIDS, COMPOSITION, DrugTargetPairs, composition_of
from bmtl.datasets.tables.reading import read_table

DRUGS = {"a": "CCO", "b": "CC(=O)O", "c": "c1ccccc1N", "d": "O"}
PROTEINS = {"p": "MKVLAW", "q": "MKVLAWGGX", "wild": "GAVLI", "mutant": "GAVLI", "new": "WWWWY"}
TRAIN = np.arange(12)  # of 4 x 5 pairs: drugs a and b with all proteins, and c with p and q


def pairs(**options):
    drug, protein = np.divmod(np.arange(20), 5)
    return DrugTargetPairs.fit(DRUGS, PROTEINS, drug, protein, TRAIN, limits=(6, 8), **options)


def flat(x):
    return {f"{side}/{name}": part for side in x for name, part in x[side].rows().items()}


def test_new_rows_are_the_same_as_known_ones(tmp_path):
    inputs, rows = pairs(), np.array([7, 3, 19, 3])
    known = flat(inputs.tensors(rows))
    frame = pd.DataFrame(
        {
            "sequence": [inputs.proteins.texts[i] for i in inputs.protein[rows]],
            "smiles": [inputs.drugs.texts[i] for i in inputs.drug[rows]],
            "protein": [inputs.proteins.names[i] for i in inputs.protein[rows]],
            "unused": 1.0,
        }
    )
    frame.to_csv(tmp_path / "new.csv", index=False)
    for raw in (frame, inputs.read(tmp_path / "new.csv")):
        found = flat(inputs.prepare(raw))
        assert found.keys() == known.keys()
        for name, part in known.items():
            width = found[name].shape[1:]  # molecules are padded to the largest of what is there
            cut = part[(slice(None), *(slice(0, size) for size in width))]
            assert torch.equal(found[name], cut), name
            assert (part.sum(), part.dtype) == (cut.sum() if "edges" not in name else part.sum(), found[name].dtype)


def test_ids_are_those_of_training_entities():
    inputs = pairs()
    x = inputs.tensors(np.arange(20))
    assert x["drug"].table["id"].tolist() == [0, 1, 2, -1]  # no training pair has d
    given = pd.DataFrame({"smiles": ["CCO", "CCO", "CCO", "O"], "sequence": ["GAVLI", "GAVLI", "GAVLI", "MKVLAW"]})
    by_text = inputs.prepare(given)
    assert by_text["protein"].rows()["id"].tolist() == [2, 2, 2, 0]
    assert by_text["drug"].rows()["id"].tolist() == [0, 0, 0, -1]
    by_name = inputs.prepare(given.assign(protein=["mutant", "wild", "unheard of", "p"]))
    assert by_name["protein"].rows()["id"].tolist() == [3, 2, -1, 0]


def test_texts_are_taken_without_white_space_around_them():
    drugs = {**DRUGS, "d": " O\n"}
    inputs = DrugTargetPairs.fit(drugs, PROTEINS, np.array([3]), np.array([0]), np.array([0]), limits=(6, 8))
    assert flat(inputs.tensors(np.array([0])))["drug/length"].tolist() == [1]


def test_tokens_are_cut_and_padded_and_it_is_said(caplog):
    inputs = pairs()
    table = inputs.tensors(np.arange(1))["protein"].table
    assert table["length"].tolist() == [6, 8, 5, 5, 5]
    assert (table["tokens"][2, 5:] == 0).all()
    assert (table["tokens"][:, :5] > 0).all()
    lines = "\n".join(inputs.lines())
    assert "4 different sequences" in lines
    assert "2 SMILES are longer than 6 characters; encoders of sequences see the first 6" in lines
    with caplog.at_level(logging.WARNING):
        inputs.prepare([("CCO", "MKVLAW"), ("CCO", "M" * 9)])
    assert "Column 'sequence' has 1 row with more than 8 characters" in caplog.text
    assert "see the first 8: the data frame, row 1." in caplog.text


def test_composition():
    values = composition_of("AACX")
    assert len(values) == COMPOSITION
    assert values[: len(AMINO_ACIDS)].tolist()[:2] == [2 / 3, 1 / 3]
    assert np.flatnonzero(values[20:]).tolist() == [0, 1]  # AA and AC
    assert composition_of("XX").sum() == 0
    inputs = pairs()
    scaled = inputs.tensors(np.arange(20))["protein"].table["composition"]
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-6)  # all five proteins are in training pairs
    assert scaled.abs().max() <= 5


def test_the_state_serves_new_rows(tmp_path):
    inputs = pairs()
    torch.save(inputs_state(inputs), tmp_path / "x.pt")
    back = inputs_from_state(torch.load(tmp_path / "x.pt", weights_only=True))
    assert back.describe() == inputs.describe()
    given = [("CCO", "GAVLI"), ("CCCC", "MMM")]
    one, other = flat(inputs.prepare(given, torch.float64)), flat(back.prepare(given, torch.float64))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert one["protein/composition"].dtype == torch.float64


def test_every_piece_is_in_the_fingerprint():
    def digest(inputs):
        return [(name, array.tobytes()) for name, array in inputs.pieces()]

    changed = DrugTargetPairs.fit({**DRUGS, "d": "N"}, PROTEINS, *np.divmod(np.arange(20), 5), TRAIN, limits=(6, 8))
    assert digest(pairs()) == digest(pairs())
    assert len({str(digest(x)) for x in (pairs(), changed, pairs(by_protein=True))}) == 3


@pytest.mark.parametrize("by_protein", [False, True])
def test_batches_of_few_proteins(by_protein):
    inputs = pairs(by_protein=by_protein)
    rows = np.arange(20)
    y = {"y": torch.arange(20.0)}
    blocks = torch.as_tensor(inputs.blocks(rows)) if inputs.train_in_blocks else None
    batches = Batches(inputs.tensors(rows), y, 4, seed=1, blocks=blocks)
    epochs = [list(batches) for _ in range(2)]
    for epoch in epochs:
        assert sorted(torch.cat([labels["y"] for _, labels in epoch]).tolist()) == list(range(20))
        alone = [len(x["protein"].index.unique()) == 1 for x, _ in epoch]
        assert all(alone) == by_protein  # four drugs each
    first, second = ([labels["y"].tolist() for _, labels in epoch] for epoch in epochs)
    assert first != second


def test_blocks_are_of_each_row_of_one_table():
    with pytest.raises(ValueError, match="blocks numbers the block of each of 3 rows"):
        Batches(torch.zeros(3, 1), {"y": torch.zeros(3)}, 2, blocks=torch.zeros(2))


BAD = [
    (("", "MKV"), "column 'smiles': an empty SMILES"),
    (("C1CC", "MKV"), "the ring 1 is not closed"),
    (("C*C", "MKV"), r"a SMILES with '\*' at character 2"),
    (("C" * 2001, "MKV"), "a SMILES of 2,001 characters, and the longest that is taken has 2,000"),
    (("CC", None), "column 'sequence': an empty sequence"),
    (("CC", "MKJ"), "a sequence with 'J' at character 3"),
    (("CC", "mkv"), "a sequence with 'm' at character 1"),
    (("CC", "M" * 50_001), "a sequence of 50,001 characters"),
]


@pytest.mark.parametrize(("pair", "reason"), BAD)
def test_bad_rows_are_told(pair, reason):
    with pytest.raises(ValueError, match=f"the data frame, row 1, {reason if 'column' in reason else f'.*{reason}'}"):
        pairs().prepare([("CCO", "MKV"), pair])


def test_bad_rows_of_a_file_are_told_together(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text("smiles,sequence\n" + "C(,MKV\nC,MKJ\n" + "Q,M\n" * 5)
    with pytest.raises(ValueError, match=r"bad.csv, row 2, column 'smiles'.*And 2 more rows\. Correct them"):
        pairs().prepare(read_table(path))
    path.write_text("SMILES,sequence\nC,MKV\n")
    with pytest.raises(
        ValueError, match="bad.csv has no column 'smiles' for the inputs.*Its columns are: SMILES, sequence"
    ):
        pairs().prepare(read_table(path))
    with pytest.raises(ValueError, match=r"pairs \(SMILES, sequence\), one at least; got list of 0"):
        pairs().prepare([])
    with pytest.raises(ValueError, match=r"pairs \(SMILES, sequence\)"):
        pairs().prepare("CCO")
    with pytest.raises(ValueError, match="drug 'x': .*is no SMILES"):
        DrugTargetPairs.fit({"x": "C("}, PROTEINS, np.zeros(5, int), np.arange(5), np.arange(5))
