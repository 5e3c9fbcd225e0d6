"""Real data files, which are not part of the project: a test that needs one skips where it is absent."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def data_root():
    """A function: the folder of the data, once it holds a file."""
    root = Path(os.environ.get("BMTL_DATA") or Path(__file__).parents[3] / "shared" / "data")

    def holding(file: str) -> Path:
        if not (root / file).is_file():
            pytest.skip(f"there is no {file} in BMTL_DATA or ../shared/data")
        return root

    return holding
