"""An example as a module, found by the name of its test file, and as a command."""

import contextlib
import importlib.util
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def example(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """The module ``examples/NAME.py`` of ``test_NAME.py``."""
    name = request.path.stem.removeprefix("test_")
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look up their annotations
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "examples"))  # as for a script: one may import another
        spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


@pytest.fixture(scope="module")
def start(example: ModuleType) -> Callable[..., str]:
    """Runs the example with arguments, and returns what it printed."""

    def run(*arguments: object) -> str:
        printed = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.setattr(sys, "argv", [f"{example.__name__}.py", *map(str, arguments)])
            example.main()
        return printed.getvalue()

    return run


@pytest.fixture(scope="session")
def results() -> Callable[..., tuple[pd.DataFrame, str]]:
    """The table of ``docs/results/NAME.csv`` and the text of the page that shows it."""

    def read(name: str, page: str, **options: Any) -> tuple[pd.DataFrame, str]:
        docs = REPOSITORY / "docs"
        return pd.read_csv(docs / "results" / f"{name}.csv", **options), (docs / page).read_text(encoding="utf-8")

    return read


@pytest.fixture(scope="session")
def root_with() -> Callable[[str], Path]:
    """The folder of the data, if it holds a file; skips the test otherwise."""

    def found(file: str) -> Path:
        root = Path(os.environ.get("BMTL_DATA") or REPOSITORY.parent / "shared" / "data")
        if not (root / file).is_file():
            pytest.skip(f"there is no {file} in BMTL_DATA or ../shared/data")
        return root

    return found
