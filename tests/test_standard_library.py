"""What bmtl imports of the standard library is there, and not deprecated, in the Python that runs this test.

Runs in `make test-arviz1` too, whose Python is a newer one: a name that the next version removes is found there.
"""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOAD = """
import sys
for line in sys.stdin.read().splitlines():
    module, name = line.split(" ")
    try:
        exec(f"from {module} import {name}" if name else f"import {module}")
    except (ImportError, Warning) as error:
        print(f"{module} {name}: {error}")
"""
FILES = sorted(file for folder in ("bmtl", "benchmarks", "examples") for file in (ROOT / folder).rglob("*.py"))


def imported(file: Path) -> set[tuple[str, str | None]]:
    """Pairs of module and name (None for a whole module) that a file imports from the standard library."""
    found: set[tuple[str, str | None]] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {(alias.name, None) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found |= {(node.module, alias.name) for alias in node.names}
    return {(module, name) for module, name in found if module.split(".")[0] in sys.stdlib_module_names}


def missing(names: set[tuple[str, str | None]]) -> list[str]:
    """Those that a new interpreter does not have, or has with a warning (which some give once in a process)."""
    lines = "\n".join(f"{module} {name or ''}" for module, name in sorted(names, key=str))
    done = subprocess.run([sys.executable, "-W", "error", "-c", LOAD], input=lines, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_name_is_there_without_a_warning():
    names = set().union(*map(imported, FILES))
    assert ("pathlib", "Path") in names
    assert missing(names) == []


def test_a_name_that_is_not_there_is_found(tmp_path):
    file = tmp_path / "program.py"
    file.write_text(
        "from importlib.abc import Traversable\nfrom os import nothing_like_this\nimport numpy\nimport os\n"
    )
    names = imported(file)
    assert names == {("importlib.abc", "Traversable"), ("os", "nothing_like_this"), ("os", None)}
    found = missing(names)
    assert any(line.startswith("os nothing_like_this") for line in found)
    assert not any(line.startswith("os :") for line in found)
    # Deprecated from 3.12 on, removed in 3.14.
    assert any("Traversable" in line for line in found) == (sys.version_info >= (3, 12))
