"""QM9's eleven properties: their units, and energies of formation from atoms.

Source: R. Ramakrishnan, P. O. Dral, M. Rupp, O. A. von Lilienfeld, "Quantum chemistry structures and properties of 134
kilo molecules", Scientific Data 1, 140022 (2014).

The gap is left out, being lumo - homo. The four energies u0, u298, h298 and g298 are all but one task, with the atoms'
energies (correlation above 0.99999999) and without (above 0.9997): never report an average over tasks alone.
"""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from bmtl.targets import LinearBaseline

MEV_PER_HARTREE = 27211.386

# In the order, and the units, of Table 2 of the IGB paper.
UNITS = {
    "mu": "D",
    "alpha": "bohr^3",
    "homo": "meV",
    "lumo": "meV",
    "r2": "bohr^2",
    "zpve": "meV",
    "u0": "meV",
    "u298": "meV",
    "h298": "meV",
    "g298": "meV",
    "cv": "cal/(mol K)",
}

ELEMENTS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
"""Atomic number by element, in the order of all counts of atoms."""

COUNTS = tuple(f"n{element}" for element in ELEMENTS)
"""Names of the numbers of atoms."""

ATOM_ENERGIES = {
    "u0": (-0.500273, -37.846772, -54.583861, -75.064579, -99.718730),
    "u298": (-0.498857, -37.845355, -54.582445, -75.063163, -99.717314),
    "h298": (-0.497912, -37.844411, -54.581501, -75.062219, -99.716370),
    "g298": (-0.510927, -37.861317, -54.598897, -75.079532, -99.733544),
}
"""Energies of the free atoms in Hartree, in the order of `ELEMENTS`."""

Energies = Literal["atomization", "total"]
"""Whether the four energies are without those of the free atoms, as in the paper, or with them."""

CITATION = (
    "R. Ramakrishnan, P. O. Dral, M. Rupp, O. A. von Lilienfeld, Quantum chemistry structures and properties of 134 "
    "kilo molecules, Scientific Data 1, 140022 (2014)."
)
LICENCE = "MIT (qm9pack 1.0.3), notice in bmtl/datasets/data/LICENSE-qm9pack.txt"


def properties(hartree: Mapping[str, np.ndarray], counts: np.ndarray, energies: Energies) -> dict[str, np.ndarray]:
    """The properties in the units and the order of `UNITS`.

    Args:
        hartree: Property -> values ``(N,)``, energies in Hartree and total.
        counts: Numbers of atoms ``(N, 5)``, in the order of `ELEMENTS`.
        energies: See `Energies`.

    Raises:
        ValueError: If `energies` is something else.
    """
    if energies not in get_args(Energies):
        raise ValueError(f"energies is {' or '.join(map(repr, get_args(Energies)))}; got {energies!r}.")
    found = {}
    for name, unit in UNITS.items():
        values = np.asarray(hartree[name], dtype=np.float64)
        if energies == "atomization" and name in ATOM_ENERGIES:
            for number, energy in zip(counts.T.astype(np.float64), ATOM_ENERGIES[name], strict=True):
                values = values - number * energy
        found[name] = values * (MEV_PER_HARTREE if unit == "meV" else 1.0)
    return found


def atom_count_baselines(
    y: Mapping[str, np.ndarray], counts: np.ndarray, training: np.ndarray
) -> dict[str, LinearBaseline]:
    """Least squares of each property on the numbers of atoms, fitted on the training rows.

    Args:
        y: Property -> values ``(N,)``.
        counts: Numbers of atoms ``(N, 5)``, in the order of `ELEMENTS`.
        training: The training rows.
    """
    return {
        name: LinearBaseline.fit(COUNTS, counts[training], np.asarray(values)[training]) for name, values in y.items()
    }
