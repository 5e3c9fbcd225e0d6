"""QM9's units and atomization energies against published ones."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from bmtl.datasets import load
from bmtl.datasets.qm9_properties import UNITS, properties

MEV_PER_KCAL = 43.36414  # of one molecule


def methane(energies):
    hartree = dict.fromkeys(UNITS, np.zeros(1)) | {
        "u0": np.array([-40.47893]),
        "u298": np.array([-40.476062]),
        "h298": np.array([-40.475117]),
        "g298": np.array([-40.498597]),
    }
    return properties(hartree, np.array([[4, 1, 0, 0, 0]]), energies)


def test_methane_has_the_published_atomization_energies():
    # gdb9.sdf.csv, molecule gdb_1, in kcal/mol; its total energies have six decimals of a Hartree.
    published = {"u0": -395.999594594, "u298": -398.643290011, "h298": -401.014646522, "g298": -372.471772148}
    found = methane("atomization")
    for name, value in published.items():
        assert_allclose(found[name], value * MEV_PER_KCAL, atol=0.1)


def test_total_energies_are_as_they_were():
    assert_allclose(methane("total")["u0"], -40.47893 * 27211.386)


@pytest.mark.parametrize("name", ["qm9-mini", "qm9-12k"])
def test_only_the_energies_differ_by_the_option(name, data_root):
    root = data_root("qm9/qm9_12k.npz") if name == "qm9-12k" else None
    without, total = load(name, root=root), load(name, root=root, energies="total")
    counts = without.inputs.x[:, :5].astype(np.float64)
    for task in without.tasks:
        difference = total.targets[task].values - without.targets[task].values
        if task in ("u0", "u298", "h298", "g298"):
            assert np.linalg.lstsq(counts, difference)[1] < 1e-6 * len(counts)  # rounding of -1e7 meV
            assert (difference < 0).all()
        else:
            assert not difference.any()


def test_something_else_is_refused():
    with pytest.raises(ValueError, match="energies is 'atomization' or 'total'; got 'free'"):
        load("qm9-mini", energies="free")
