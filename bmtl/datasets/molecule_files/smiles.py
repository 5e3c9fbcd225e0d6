"""Molecules of SMILES, with the positions of a force field."""

import numpy as np

from bmtl.datasets.molecule_files.atoms import Pairs, check_charge
from bmtl.datasets.tables.column import RawTable

STEPS = 5_000
"""Of the minimisation, after which it has not converged."""


def of_smiles(table: RawTable) -> Pairs:
    """Molecules of a table with a column ``smiles``, with positions by rdkit: ETKDG, then MMFF94, one conformer, seed 0.

    Refused are ions, as in SD files, several molecules in one SMILES (nothing determines where they are to each other),
    and atoms that the force field does not know.

    Raises:
        ImportError: If rdkit is not installed.
        ValueError: If there is no such column, or a molecule cannot be read or placed; says which row.
    """
    column = table.column("smiles", "the molecules")
    try:
        from rdkit import Chem
        from rdkit.Chem import rdDistGeom, rdForceFieldHelpers
    except ImportError as error:
        raise ImportError(
            "Positions of SMILES are made by rdkit: pip install 'bmtl[molecules]'. Or give positions, as .xyz, .sdf or "
            ".npz with Z and pos."
        ) from error
    found: Pairs = []
    for row, smiles in enumerate(column.as_texts()):
        where = column.at(row)
        molecule = Chem.MolFromSmiles(smiles or "")
        if molecule is None or not molecule.GetNumAtoms():
            raise ValueError(f"{where}: {smiles or ''!r} is no SMILES of a molecule.")
        check_charge(Chem.GetFormalCharge(molecule), where)
        molecule = Chem.AddHs(molecule)
        numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], np.int64)
        if not numbers.all():
            raise ValueError(f"{where}: {smiles!r} has an atom that is no element ('*').")
        if (parts := len(Chem.GetMolFrags(molecule))) > 1:
            raise ValueError(
                f"{where}: {smiles!r} is {parts} molecules, and nothing determines where they are to each other. Give one, "
                "or positions (.xyz, .sdf or .npz)."
            )
        if rdDistGeom.EmbedMolecule(molecule, randomSeed=0) != 0:
            raise ValueError(f"{where}: rdkit finds no positions for {smiles!r}.")
        if not rdForceFieldHelpers.MMFFHasAllMoleculeParams(molecule):
            raise ValueError(f"{where}: the force field MMFF94 does not know all atoms of {smiles!r}. Give positions.")
        if rdForceFieldHelpers.MMFFOptimizeMolecule(molecule, maxIters=STEPS) != 0:
            raise ValueError(
                f"{where}: the positions of {smiles!r} have not converged after {STEPS:,} steps. Give positions."
            )
        found.append((numbers, np.array(molecule.GetConformer().GetPositions(), np.float64)))
    return found
