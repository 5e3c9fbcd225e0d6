"""Molecules by hand, and what does not depend on how one of them is spelled."""

import re
from collections import Counter

import numpy as np
import pytest

from bmtl.datasets.smiles import ATOM_FEATURES, ELEMENTS, atom_features, fingerprint, parse

FORMULAS = {
    "C": "CH4",
    "CC(=O)OC1=CC=CC=C1C(=O)O": "C9H8O4",  # aspirin
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C": "C8H10N4O2",  # caffeine
    "Cn1cnc2c1c(=O)n(C)c(=O)n2C": "C8H10N4O2",
    "c1ccc2[nH]ccc2c1": "C8H7N",  # indole
    "c1ccsc1": "C4H4S",
    "C[N+](C)(C)CC(=O)[O-]": "C5H11NO2",  # betaine
    "OS(=O)(=O)O": "H2O4S",
    "CS(C)=O": "C2H6OS",
    "C(F)(Cl)(Br)I": "CBrClFI",
    "[13CH3][C@@H](N)C(=O)O": "C3H7NO2",
    "O": "H2O",
    "[Na+].[Cl-]": "ClNa",
    "N#CC%12CC%12": "C4H5N",
    "OP(=O)(O)O": "H3O4P",
    "B(O)O": "BH3O2",
    "[Co@OH12]": "Co",  # the OH is of the geometry
    "F[P@TB2H](Cl)": "ClFHP",
    "C1.C1": "C2H6",
}


def formula(molecule):
    """In Hill's order."""
    counts = Counter(molecule.elements) + Counter(H=sum(molecule.hydrogens))
    first = [element for element in ("C", "H") if "C" in counts and counts[element]]
    order = [*first, *sorted(set(counts) - set(first))]
    return "".join(f"{element}{counts[element] if counts[element] > 1 else ''}" for element in order if counts[element])


@pytest.mark.parametrize(("text", "expected"), FORMULAS.items())
def test_formulas_are_those_of_chemistry(text, expected):
    assert formula(parse(text)) == expected


def test_charges_bonds_and_rings():
    betaine = parse("C[N+](C)(C)CC(=O)[O-]")
    assert sum(betaine.charges) == 0
    assert betaine.charges[1] == 1
    spiro = parse("CC1CC12CCC2C=C")
    assert spiro.in_ring == (False, True, True, True, True, True, True, False, False)
    assert parse("C1CC1CC2CC2").in_ring == (True, True, True, False, True, True, True)
    assert [order for *_, order in parse("C=C-C#N").bonds] == [2.0, 1.0, 3.0]
    assert {order for *_, order in parse("c1ccccc1").bonds} == {1.5}
    assert parse("C=1CCCC1").bonds[-1] == (0, 4, 2.0)
    long = "C" * 3000 + "1CC1"
    assert sum(parse(long).in_ring) == 3


SPELLINGS = [
    ("CCO", "OCC", "C(O)C"),
    ("CC(=O)OC1=CC=CC=C1C(=O)O", "OC(=O)C1=CC=CC=C1OC(C)=O"),
    ("C1CC(N)CC1O", "OC1CC(N)CC1", "NC%99CC(O)CC%99"),
    ("F/C=C/F", "FC=CF", "F/C=C\\F"),  # stereochemistry is read over
    ("[CH3][CH2][OH]", "CCO"),
]


@pytest.mark.parametrize("spellings", SPELLINGS)
def test_a_fingerprint_is_that_of_the_molecule(spellings):
    first, *others = (fingerprint(parse(text)) for text in spellings)
    for other in others:
        assert np.array_equal(first, other)


def test_a_fingerprint_holds_those_of_smaller_radius_and_tells_molecules_apart():
    molecules = [parse(text) for text in ("CCO", "CCN", "CCC", "CC=O", "C1CC1", "CC(C)O", "CCCCCO", "CCCCCCCO")]
    whole = [fingerprint(molecule) for molecule in molecules]
    assert len({bits.tobytes() for bits in whole}) == len(molecules)
    for molecule, bits in zip(molecules, whole, strict=True):
        assert (fingerprint(molecule, radius=1) <= bits).all()
    # Atoms of two long chains have the same neighbourhoods of two bonds.
    assert np.array_equal(fingerprint(parse("C" * 9)), fingerprint(parse("C" * 12)))


def test_features_of_atoms():
    rows = atom_features(parse("[NH4+].[U]"))
    assert rows.shape == (2, ATOM_FEATURES)
    assert np.flatnonzero(rows[0]).tolist() == [ELEMENTS.index("N"), 16, 16 + 7 + 4, 16 + 12 + 2]
    assert rows[1, len(ELEMENTS)] == 1
    assert (rows[:, : len(ELEMENTS) + 1].sum(1) == 1).all()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "one atom at least"),
        ("C1CC", "the ring 1 is not closed"),
        ("C(C", "a branch is not closed"),
        ("CC)", "at character 3, a branch is closed that was not opened"),
        ("C[Xx]", "at character 2, there is no element 'Xx'"),
        ("C[C", "what the bracket holds is no atom"),
        ("=C", "'=' follows no atom"),
        ("C=", "a bond leads to no atom"),
        ("C%1", "two digits"),
        ("CQ", "at character 2, 'Q' is no atom"),
        ("C11", "a ring closes on the same atom"),
        ("C1C1", "on a bond that there is"),
        ("C(C=)C", "at character 5, a bond leads to no atom"),  # not CC(=C), which it was taken for
        ("C=(C)C", "at character 3, a bond leads to no atom"),
        ("C==C", "at character 3, a bond leads to no atom"),
        ("C=.C", "at character 3, a bond leads to no atom"),
        ("[NA+]", "what the bracket holds is no atom"),  # not nitrogen, with a letter to spare
        ("C[CL]", "at character 2, what the bracket holds is no atom"),
    ],
)
def test_what_is_no_smiles_is_told_by_its_place(text, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        parse(text)


def test_a_missing_smiles_is_named():
    with pytest.raises(TypeError, match="A SMILES is a text, and nan was given"):
        parse(float("nan"))
