"""Real data files, which are not part of the project: a test that needs one skips where it is absent."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def data_root():
    """A function: the folder of the data, once it holds a file."""
    root = Path(os.environ.get("BMTL_DATA") or Path(__file__).parents[3] / "shared" / "data")

    def holding(file: str) -> Path:
        if not (root / file).is_file():
            pytest.skip(f"there is no {file} in BMTL_DATA or ../shared/data")
        return root

    return holding


@pytest.fixture
def digest_of_arrays():
    """A function: SHA-256 over inputs, labels and split alone, as fingerprints were before they knew of families."""

    def of(data) -> str:
        digest = hashlib.sha256()
        pieces = [("x", data.inputs.x)]
        pieces += [(f"y/{name}", target.values) for name, target in data.targets.items()]
        pieces += [(f"rows/{part}", rows) for part, rows in data.rows.items()]
        for label, array in pieces:
            plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            digest.update(f"{label}:{plain.dtype.str}:{plain.shape};".encode())
            digest.update(plain.tobytes())
        return digest.hexdigest()

    return of
