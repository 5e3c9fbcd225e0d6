"""Molecules as inputs: what is refused, what a model sees, and the files that are read."""

import sys

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from bmtl import inputs
from bmtl.datasets import Batches, inputs_from_state, inputs_state
from bmtl.datasets.molecules import Atoms, Molecules, padded

WATER = (np.array([8, 1, 1]), np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))
METHANE = (
    np.array([6, 1, 1, 1, 1]),
    1.09 * np.array([[0, 0, 0], [1, 0, 0], [-0.33, 0.94, 0], [-0.33, -0.47, 0.82], [-0.33, -0.47, -0.82]]),
)
NEON_LIKE = (np.array([9]), np.zeros((1, 3)))


def molecules(layout="dense"):
    return Molecules(*padded([WATER, METHANE, NEON_LIKE]), layout=layout)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z, x: z.__setitem__(1, 0), "Row 1: the molecule has no atom"),
        (
            lambda z, x: z.__setitem__((2, 0), 17),
            r"Row 2: .* number 17 \(Cl\), which the model does not know.*9 \(F\)",
        ),
        (lambda z, x: z.__setitem__((2, 0), 99), "Row 2: .* the atomic number 99, which"),
        (lambda z, x: x.__setitem__((0, 2, 1), np.nan), "Row 0: the position of an atom is not finite"),
        (
            lambda z, x: x.__setitem__((1, 3), x[1, 2] + 0.01),
            "Row 1: the atoms 2 and 3 are 0.0173 Angstrom from each other",
        ),
    ],
)
def test_bad_molecules_are_refused_by_row(change, message):
    z, x = padded([WATER, METHANE, NEON_LIKE])
    change(z, x)
    with pytest.raises(ValueError, match=message):
        Molecules(z, x)
    with pytest.raises(ValueError, match=message):  # new ones too
        molecules().prepare({"Z": z, "pos": x})


def test_other_shapes_are_refused():
    z, x = padded([WATER, METHANE])
    for numbers, positions in [(z[0], x), (z, x[:, :2]), (z.astype(float), x), (z, x[..., 0])]:
        with pytest.raises(ValueError, match=r"whole atomic numbers \(N, A\).*and positions \(N, A, 3\); got"):
            Molecules(numbers, positions)
    for raw in ("CCO", {"smiles": ["CCO"]}, 3):
        with pytest.raises(ValueError, match="New molecules are a mapping with Z .* or pairs"):
            molecules().prepare(raw)
    with pytest.raises(ValueError, match=r"Row 1: .* got \(3,\) of int64 and \(2, 3\) of"):
        molecules().prepare([WATER, (WATER[0], WATER[1][:2])])
    with pytest.raises(ValueError, match="There is no molecule"):
        molecules().prepare([])
    with pytest.raises(ValueError, match="layout is 'dense' or 'pyg'; got 'ragged'"):
        molecules("ragged")


def test_padding_may_hold_anything_and_be_anywhere():
    z, x = padded([WATER, METHANE])
    x[0, 3:] = np.nan
    moved = Molecules(np.flip(z, 1), np.flip(x, 1))
    assert_array_equal(moved.atomic_numbers[0], [1, 1, 8, 0, 0])
    assert_allclose(moved.positions[0], [*WATER[1][::-1], [0, 0, 0], [0, 0, 0]])


def test_batches_are_as_long_as_their_longest_molecule():
    x = molecules().tensors(np.arange(3), torch.float64)
    assert (inputs.count(x), x.numbers.shape, x["positions"].dtype) == (3, (3, 5), torch.float64)
    assert inputs.sizes(x).tolist() == [3, 5, 1]
    some = inputs.take(x, torch.tensor([2, 0]))
    assert isinstance(some, Atoms)
    assert some.numbers.tolist() == [[9, 0, 0], [8, 1, 1]]
    assert inputs.take(x, slice(2, 3)).positions.shape == (1, 1, 3)
    assert inputs.to(x, dtype=torch.float32).positions.dtype == torch.float32
    assert inputs.to(x, dtype=torch.float32).numbers.dtype == torch.int64


def test_a_kind_of_molecules_comes_back_from_its_state(tmp_path):
    torch.save(inputs_state(molecules()), tmp_path / "x.pt")
    back = inputs_from_state(torch.load(tmp_path / "x.pt", weights_only=True))
    assert back.describe() == molecules().describe()
    seen = back.prepare([METHANE, WATER])
    assert torch.equal(seen.positions, molecules().tensors(np.array([1, 0])).positions)


def test_numbers_of_atoms_have_names():
    found = molecules().numbers(["nH", "nO", "nF"])
    assert found.tolist() == [[2, 1, 0], [4, 0, 0], [0, 0, 1]]
    assert molecules().numbers(["nC"], [METHANE, WATER]).tolist() == [[1], [0]]
    assert molecules().summary_features(np.array([1])).tolist() == [[4, 1, 0, 0, 0]]
    with pytest.raises(ValueError, match="numbers nH, nC, nN, nO, nF; got nCl"):
        molecules().numbers(["nCl"])


def test_pyg_graphs_are_complete_and_one_atom_has_no_edge():
    pytest.importorskip("torch_geometric")
    x = molecules("pyg").tensors(np.array([1, 2, 0]))
    assert (x.num_graphs, x.z.tolist()) == (3, [*METHANE[0], 9, *WATER[0]])
    assert x.edge_index.shape == (2, 5 * 4 + 0 + 3 * 2)
    sender, receiver = x.edge_index
    assert (sender != receiver).all()
    assert_allclose(x.edge_attr[:, 0], (x.pos[sender] - x.pos[receiver]).norm(dim=1), rtol=1e-6)
    assert inputs.take(x, torch.tensor([1])).z.tolist() == [9]


def test_pyg_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_geometric.data", None)
    with pytest.raises(ImportError, match=r"layout='pyg' needs PyTorch Geometric: pip install 'bmtl\[graph\]'"):
        molecules("pyg")


def xyz(numbers, positions):
    symbols = {1: "H", 6: "C", 8: "O", 9: "F"}
    lines = [f"{symbols[z]} {a:.6f} {b:.6f} {c:.6f}" for z, (a, b, c) in zip(numbers, positions, strict=True)]
    return "\n".join([str(len(lines)), "a comment", *lines, ""])


def sdf(numbers, positions):
    symbols = {1: "H", 6: "C", 7: "N", 8: "O", 9: "F"}
    lines = [
        f"{a:10.4f}{b:10.4f}{c:10.4f} {symbols[z]:<3} 0  0" for z, (a, b, c) in zip(numbers, positions, strict=True)
    ]
    return "\n".join(
        ["name", " program", "", f"{len(lines):3d}  0  0  0  0  0  0  0  0  0999 V2000", *lines, "M  END", "$$$$", ""]
    )


@pytest.mark.parametrize("suffix", [".xyz", ".sdf", ".npz"])
def test_files_of_molecules_are_read(suffix, tmp_path):
    file = tmp_path / f"new{suffix}"
    if suffix == ".npz":
        z, pos = padded([WATER, METHANE])
        np.savez(file, Z=z, pos=pos)
    else:
        file.write_text("".join({".xyz": xyz, ".sdf": sdf}[suffix](*one) for one in (WATER, METHANE)))
    seen = molecules().prepare(molecules().read(file))
    assert seen.numbers.tolist() == [[8, 1, 1, 0, 0], [6, 1, 1, 1, 1]]
    assert_allclose(seen.positions[1], METHANE[1], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.xyz", "3\ncomment\nH 0 0 0\n", "line 1: 3 atoms are announced, and the file ends before"),
        ("a.xyz", "water\n", "line 1: a number of atoms is expected; got 'water'"),
        ("a.xyz", "1\n\nQq 0 0 0\n", "line 3: 'Qq' is none of the elements"),
        ("a.xyz", "1\n\nH 0 x 0\n", "line 3: a position is three numbers; got '0 x 0'"),
        ("a.sdf", "name\n\n\n  2  0 V2000\n", "molecule 0: this is no block of an SD file"),
        ("a.pdb", "", "Molecules are read from .npz, .csv, .xyz, .sdf; got"),
        ("a.sdf", "n\n\n\n  0  0  0  0  0            999 V3000\n", "no block of an SD file in the format V2000"),
        (
            "a.xyz",
            "1\nProperties=species:S:1:forces:R:3:pos:R:3\nH 9 9 9 0 0 0\n",
            "line 2: its columns are 'species:S:1:f",
        ),
        (
            "a.sdf",
            sdf(*WATER).replace(" program", "  -OEChem-01012600002D"),
            r"molecule 0: .* those of a drawing \(2D\)",
        ),
        (
            "a.sdf",
            sdf(*WATER).replace("M  END", "M  CHG  2   1   1   2   1\nM  END"),
            r"molecule 0: .* has the charge \+2",
        ),
        ("a.sdf", sdf(*WATER).replace(" O   0  0", " O   0  5"), "molecule 0: .* has the charge -1"),
        ("a.csv", "name\nwater\n", "a.csv has no column 'smiles' for the molecules"),
        ("a.csv", "Smiles\nO\n", "Did you mean 'Smiles'"),
        ("a.csv", "smiles,smiles\nO,C\n", "two columns 'smiles'"),
    ],
)
def test_files_that_cannot_be_read_say_where(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        molecules().read(tmp_path / name)


def test_spaces_after_a_separator_and_marks_of_encodings_lose_no_molecule(tmp_path):
    texts = {".SDF": sdf(*WATER).replace("$$$$", "$$$$ ") + sdf(*METHANE).rstrip(), ".xyz": xyz(*WATER) + xyz(*METHANE)}
    for suffix, text in texts.items():
        file = tmp_path / f"new{suffix}"
        file.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").replace("a comment", "\xe5").encode("latin-1"))
        seen = molecules().prepare(molecules().read(file))
        assert seen.numbers.tolist() == [[8, 1, 1, 0, 0], [6, 1, 1, 1, 1]]


def test_zwitterions_and_extended_comments_are_read(tmp_path):
    (tmp_path / "a.sdf").write_text(sdf(*WATER).replace("M  END", "M  CHG  2   1  -1   2   1\nM  END"))
    (tmp_path / "a.xyz").write_text(xyz(*WATER).replace("a comment", 'Properties="species:S:1:pos:R:3:forces:R:3"'))
    for name in ("a.sdf", "a.xyz"):
        assert molecules().prepare(molecules().read(tmp_path / name)).numbers.tolist() == [[8, 1, 1]]


def test_smiles_without_rdkit_name_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    (tmp_path / "new.csv").write_text("smiles\nO\n")
    with pytest.raises(ImportError, match=r"pip install 'bmtl\[molecules\]'"):
        molecules().read(tmp_path / "new.csv")


def test_smiles_become_molecules_with_hydrogens(tmp_path):
    pytest.importorskip("rdkit")
    (tmp_path / "new.csv").write_text("smiles\nO\nC\n")
    seen = molecules().prepare(molecules().read(tmp_path / "new.csv"))
    assert [sorted(row) for row in seen.numbers.tolist()] == [[0, 0, 1, 1, 8], [1, 1, 1, 1, 6]]
    (tmp_path / "new.csv").write_text("smiles\nO\nC(\n")
    with pytest.raises(ValueError, match="row 3, column 'smiles': 'C.' is no SMILES"):
        molecules().read(tmp_path / "new.csv")


def test_shuffled_batches_are_of_like_size_and_resume():
    sizes = torch.randint(1, 30, (1003,), generator=torch.Generator().manual_seed(0))
    numbers = (torch.arange(29) < sizes[:, None]).long()
    x, y = Atoms(numbers, torch.zeros(1003, 29, 3)), {"row": torch.arange(1003)}
    loader = Batches(x, y, 10, seed=3)
    first, second = ([(batch, labels["row"]) for batch, labels in loader] for _ in range(2))
    for epoch in (first, second):
        assert sorted(torch.cat([rows for _, rows in epoch]).tolist()) == list(range(1003))
        assert all(len(rows) == 10 for _, rows in epoch[:-1])
        assert all(torch.equal(inputs.sizes(batch), sizes[rows]) for batch, rows in epoch)
    assert not torch.equal(first[0][1], second[0][1])
    spread = np.mean([np.ptp(sizes[rows].numpy()) for _, rows in first[:-1]])
    assert spread < 5  # 24 where rows are drawn at random
    longest = [batch.numbers.shape[1] for batch, _ in first[:-1]]
    assert abs(np.corrcoef(longest, np.arange(100))[0, 1]) < 0.3  # small ones do not come first
    again = Batches(x, y, 10, seed=3)
    stream = iter(again)
    for _ in range(7):
        next(stream)
    resumed = Batches(x, y, 10, seed=99)
    resumed.load_state_dict(again.state_dict())
    for (_, rows), (_, labels) in zip(first[7:], resumed, strict=True):
        assert torch.equal(rows, labels["row"])
    in_order = torch.cat([labels["row"] for _, labels in Batches(x, y, 10, shuffle=False)])
    assert in_order.tolist() == list(range(1003))


ACETYLENE = (np.array([6, 6, 1, 1]), np.array([[0.6, 0, 0], [-0.6, 0, 0], [1.66, 0, 0], [-1.66, 0, 0.1]]))


def with_bonds(text, *bonds):
    rows = text.split("\n")
    at = next(i for i, row in enumerate(rows) if row.startswith("M  END"))
    rows[3] = f"{rows[3][:3]}{len(bonds):3d}{rows[3][6:]}"
    rows[at:at] = [f"{i:3d}{j:3d}{order:3d}  0" for i, j, order in bonds]
    return "\n".join(rows)


def test_charges_that_are_left_out_are_no_missing_hydrogens(tmp_path):
    oxide = np.array([6, 8]), np.array([[0.0, 0, 0], [1.13, 0, 0]])
    (tmp_path / "a.sdf").write_text(with_bonds(sdf(*oxide), (1, 2, 3)))
    assert molecules().prepare(molecules().read(tmp_path / "a.sdf")).numbers.tolist() == [[6, 8]]
    # Of a nitro group written with two double bonds, the carbon has its hydrogens missing all the same.
    nitro = np.array([6, 7, 8, 8]), np.array([[0.0, 0, 0.1], [1.5, 0, 0], [2.1, 1.0, 0], [2.1, -1.0, 0]])
    (tmp_path / "a.sdf").write_text(with_bonds(sdf(*nitro), (1, 2, 1), (2, 3, 2), (2, 4, 2)))
    with pytest.raises(ValueError, match="hydrogens? (is|are) missing"):
        molecules().read(tmp_path / "a.sdf")


FLAT = (ACETYLENE[0], ACETYLENE[1] * [1, 1, 0])
CARBONS = (ACETYLENE[0][:2], ACETYLENE[1][:2])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.sdf", sdf(*FLAT), r"molecule 0: all 4 atoms have z = 0, as in a drawing"),
        (
            "a.sdf",
            with_bonds(sdf(*CARBONS), (1, 2, 3)),
            r"2 hydrogens are missing, and 0 are there; the atoms \[1, 2\]",
        ),
        ("a.sdf", sdf(*WATER).replace("$$$$\n", "") + sdf(*METHANE), "several lines 'M  END'"),
        ("a.xyz", xyz(*WATER).replace("a comment", "charge=-1 spin=2"), "line 2: the molecule has the charge -1"),
        (
            "a.xyz",
            xyz(*WATER).replace("a comment", 'Lattice="9 0 0 0 9 0 0 0 9"'),
            "line 2: the atoms are in a periodic",
        ),
        (
            "a.xyz",
            xyz(*WATER).replace("a comment", 'Lattice="9 0 0" pbc="F T F"'),
            "line 2: the atoms are in a periodic",
        ),
    ],
)
def test_what_a_model_of_atoms_and_positions_does_not_see_is_refused(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        molecules().read(tmp_path / name)


def test_flat_bonded_charged_and_boxed_molecules_that_say_so_are_read(tmp_path):
    ylide = (
        np.array([7, 6, 1, 1, 1, 1, 1]),
        1.3 * np.random.default_rng(0).permutation(np.eye(3)[[0, 1, 2, 0, 1, 2, 0]]),
    )
    texts = {
        "flat.sdf": sdf(*FLAT).replace(" program", "  -OEChem-01012600003D"),
        "bonds.sdf": with_bonds(sdf(*ACETYLENE), (1, 2, 3), (1, 3, 1), (2, 4, 1)),
        # [CH2-][NH3+]: a charge takes a valence of carbon, and gives nitrogen one.
        "charges.sdf": with_bonds(
            sdf(*ylide), (1, 2, 1), (1, 3, 1), (1, 4, 1), (1, 5, 1), (2, 6, 1), (2, 7, 1)
        ).replace("M  END", "M  CHG  2   1   1   2  -1\nM  END"),
        "box.xyz": xyz(*WATER).replace("a comment", 'Lattice="9 0 0 0 9 0 0 0 9" pbc="F F F" charge=0 energy=-76.4'),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        assert len(molecules().read(tmp_path / name)) == 1


def test_positions_in_bohr_are_warned_of(caplog):
    one = molecules()
    one.prepare([WATER, NEON_LIKE])
    assert not caplog.records
    one.prepare([(WATER[0], WATER[1] / 0.529177), NEON_LIKE])
    assert "If they are in Bohr, multiply them by 0.529177" in caplog.text


def test_numbers_that_are_no_whole_ones_are_not_rounded():
    for numbers in (WATER[0] + 0.7, WATER[0] > 1, WATER[0].astype(str)):
        with pytest.raises(ValueError, match=r"Row 1: .* whole atomic numbers \(n,\).*; got \(3,\) of "):
            molecules().prepare([METHANE, (numbers, WATER[1])])


@pytest.mark.parametrize(
    ("smiles", "message"),
    [("CO*", "has an atom that is no element"), ("C.O", "'C.O' is 2 molecules"), ("CB(C)C", "MMFF94 does not know")],
)
def test_smiles_without_determined_positions_are_refused(smiles, message, tmp_path):
    pytest.importorskip("rdkit")
    (tmp_path / "new.csv").write_text(f"smiles\nO\n{smiles}\n")
    with pytest.raises(ValueError, match=f"row 3, column 'smiles': .*{message}"):
        molecules().read(tmp_path / "new.csv")
