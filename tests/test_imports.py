"""The import rules of `docs/architecture.md`, held by reading the imports of every file, type-only ones included."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bmtl"

# What a package or a top-level module may import of bmtl, besides itself.
FOUNDATION = {"labels", "tasks", "inputs", "targets", "distributions"}
MAY_IMPORT: dict[str, set[str]] = {
    "labels": set(),
    "tasks": {"labels"},
    "inputs": set(),
    "targets": set(),
    "distributions": set(),
    "models": FOUNDATION,
    "inference": FOUNDATION,
    "evaluation": {"targets"},
    "datasets": {"inputs", "targets"},
}
IMPORT_ALL = {"__init__", "__main__", "cli", "estimators", "experiments"}
LEARNING = {"torch", "pyro", "lightning", "pytorch_lightning", "torchmetrics", "gpytorch", "torch_geometric"}
# `arviz` itself is installed for the user: its two lines, 0.23 and 1.x, differ in what they return.
FOREIGN = {"evaluation": LEARNING | {"arviz"}, "targets": LEARNING | {"arviz", "pandas", "sklearn"}, "": {"arviz"}}


def imported(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a module imports, at any depth, relative and by string included."""
    parents = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=source, names=names, level=level):
                base = (
                    [*parents[: len(parents) - level + 1], *([source] if source else [])] if level else [source or ""]
                )
                yield from ((node.lineno, ".".join([*base, alias.name])) for alias in names)
            case ast.Call(
                func=ast.Name(id=call) | ast.Attribute(attr=call), args=[ast.Constant(value=str(name)), *_]
            ) if call in ("import_module", "__import__"):
                dots = len(name) - len(name.lstrip("."))
                base = parents[: len(parents) - dots + 1] if dots else []
                yield node.lineno, ".".join([*base, name.lstrip(".")])


def place(module: str) -> str:
    """First name below the package: a folder or a top-level file; empty for another package."""
    top, _, rest = module.partition(".")
    return (rest.partition(".")[0] or "__init__") if top == "bmtl" else ""


def modules(package: Path) -> Iterator[tuple[Path, str, bool]]:
    """Every file with its module name, and whether it is a package's ``__init__``."""
    for path in sorted(package.rglob("*.py")):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        yield path, ".".join(parts[:-1] if is_package else parts), is_package


def violations(package: Path) -> list[str]:
    """Every import in the tree that the rules forbid, as ``file:line: reason``."""
    found = []
    inside = {path.stem for path in package.iterdir() if path.is_dir() or path.suffix == ".py"}
    for path, module, is_package in modules(package):
        here = place(module)
        for line, name in imported(ast.parse(path.read_text(encoding="utf-8")), module, is_package):
            reason = forbidden(here, name, inside)
            if reason:
                found.append(f"{path.relative_to(package.parent)}:{line}: {reason}")
    return found


def forbidden(here: str, name: str, inside: set[str]) -> str | None:
    """Why a module at `here` may not import `name`, or None."""
    there = place(name)
    if not there:
        other = name.partition(".")[0]
        return f"{here} imports {other}" if other in FOREIGN.get(here, FOREIGN[""]) else None
    if here == "experiments" and there == "cli":
        return "experiments imports cli"
    if here in IMPORT_ALL or there == here:
        return None
    if there.startswith("__") and name.count(".") == 1:
        return None  # bmtl.__version__
    if there == "__init__" or there not in inside:
        # `from bmtl import fit` and `import bmtl` would reach any package through the public names.
        return f"{here} imports {name}, through the public names; import it from the module that defines it"
    return None if there in MAY_IMPORT.get(here, set()) else f"{here} imports {there}"


def test_the_package_keeps_the_rules():
    assert violations(PACKAGE) == []


def test_every_package_has_a_rule():
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - IMPORT_ALL <= MAY_IMPORT.keys(), (
        "A new folder needs a line in MAY_IMPORT and a section in docs/architecture.md."
    )


def test_evaluation_imports_without_torch():
    code = f"import sys; sys.modules.update(dict.fromkeys({sorted(LEARNING)})); import bmtl.evaluation"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


HEAVY = LEARNING | {"numpy", "pandas", "scipy", "xarray", "sklearn", "matplotlib", "arviz", "netCDF4", "joblib"}


@pytest.mark.parametrize(("argument", "heavy"), [("--help", HEAVY), ("--version", LEARNING)])
def test_the_package_and_the_help_of_its_command_are_light(argument, heavy):
    """The help waits for no package, and versions are read without importing torch."""
    code = (
        "import sys, bmtl, bmtl.cli\n"
        f"sys.argv = ['bmtl', {argument!r}]\n"
        "try:\n    bmtl.cli.main()\n"
        "except SystemExit as stop:\n    assert not stop.code\n"
        f"sys.exit(' '.join(name for name in {sorted(heavy)} if name in sys.modules) or 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "bmtl" in result.stdout


def module_graph(package: Path) -> dict[str, set[str]]:
    """Each module with those of the package that it imports, for types or inside functions too."""
    names = {module for _, module, _ in modules(package)}
    graph: dict[str, set[str]] = {}
    for path, module, is_package in modules(package):
        graph[module] = set()
        for _, name in imported(ast.parse(path.read_text(encoding="utf-8")), module, is_package):
            while name and name not in names:
                name = name.rpartition(".")[0]
            if name and name != module:
                graph[module].add(name)
    return graph


def on_circles(graph: dict[str, set[str]]) -> set[str]:
    """The modules that import themselves by way of others: what is left when ends are taken away from both sides."""
    left = {module: set(theirs) for module, theirs in graph.items()}
    while True:
        wanted = set().union(*left.values()) if left else set()
        kept = {
            module: {name for name in theirs if name in left} for module, theirs in left.items() if module in wanted
        }
        kept = {module: theirs for module, theirs in kept.items() if theirs}
        if kept == left:
            return set(kept)
        left = kept


def test_the_package_has_no_circle_of_imports():
    assert on_circles(module_graph(PACKAGE)) == set()


def test_a_circle_is_found_where_it_is_planted(tmp_path):
    files = {
        "inference/a.py": "from bmtl.inference.b import x",
        "inference/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .c import y",
        "inference/c.py": "def f():\n    import bmtl.inference.a",
        "inference/d.py": "from bmtl.inference import a",
    }
    assert on_circles(module_graph(plant(tmp_path, files))) == {f"bmtl.inference.{name}" for name in "abc"}


def questions_of_type(package: Path) -> list[str]:
    """Every `isinstance` that asks for a class of `bmtl.models` outside of it, and literals of the old kinds of target.

    Objects answer instead: a likelihood, a family or a recipe's attribute.
    """
    found = []
    for path, module, is_package in modules(package):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        own = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for line, name in imported(node, module, is_package)
            if name.startswith("bmtl.models.")
            for alias in node.names
        }
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, kinds]) if (
                    place(module) != "models"
                ):
                    asked = {name.id for name in ast.walk(kinds) if isinstance(name, ast.Name)} & own
                    found += [f"{module}:{node.lineno}: asks for {name}" for name in sorted(asked)]
                case ast.Constant(value="regression") if place(module) != "targets":
                    found.append(f"{module}:{node.lineno}: names the kind of target 'regression'")
    return found


def test_objects_answer_for_themselves():
    assert questions_of_type(PACKAGE) == []


def test_a_question_of_type_is_found_where_it_is_planted(tmp_path):
    files = {
        "experiments/a.py": "from bmtl.models.vmtl import VMTL\ndef f(m):\n    return isinstance(m, VMTL | int)",
        "datasets/a.py": "kind = 'regression'",
        "models/a.py": "from bmtl.models.b import B\ndef f(m):\n    return isinstance(m, B)",
        "targets/a.py": "kind = 'regression'",
    }
    assert questions_of_type(plant(tmp_path, files)) == [
        "bmtl.datasets.a:1: names the kind of target 'regression'",
        "bmtl.experiments.a:3: asks for VMTL",
    ]


PLANTED = {
    "models calls inference": ("models/a.py", "from bmtl.inference.svi import BalancedSVI", "models imports inference"),
    "a subfolder": ("models/networks/a.py", "import bmtl.inference.svi as svi", "models imports inference"),
    "inference calls models": ("inference/a.py", "import bmtl.models", "inference imports models"),
    "a relative import": ("inference/a.py", "from ..models import vmtl", "inference imports models"),
    "a relative import of the folder": ("inference/b/a.py", "from ... import models", "inference imports models"),
    "a relative import in a package": (
        "inference/b/__init__.py",
        "from ...models import x",
        "inference imports models",
    ),
    "inside a function": (
        "inference/a.py",
        "def f():\n    from bmtl import models",
        "a.py:2: inference imports models",
    ),
    "for types only": (
        "models/a.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from bmtl.inference import fit",
        "a.py:3: models imports inference",
    ),
    "by string": (
        "models/a.py",
        "import importlib\nx = importlib.import_module('bmtl.inference.svi')",
        "a.py:2: models imports inference",
    ),
    "by relative string": (
        "models/a.py",
        "from importlib import import_module\nx = import_module('..inference', __package__)",
        "models imports inference",
    ),
    "evaluation and models": ("evaluation/a.py", "from bmtl.models import vmtl", "evaluation imports models"),
    "evaluation and inference": (
        "evaluation/metrics/a.py",
        "from ...inference import fit",
        "evaluation imports inference",
    ),
    "evaluation and torch": ("evaluation/a.py", "def f():\n    import torch.nn", "evaluation imports torch"),
    "evaluation and pyro": ("evaluation/a.py", "from pyro import poutine", "evaluation imports pyro"),
    "evaluation and lightning": ("evaluation/a.py", "import lightning.pytorch as pl", "evaluation imports lightning"),
    "evaluation and the marks": ("evaluation/a.py", "from bmtl.tasks import task", "evaluation imports tasks"),
    "evaluation and the inputs": ("evaluation/a.py", "from bmtl.inputs import count", "evaluation imports inputs"),
    "targets and torch": ("targets/a.py", "import torch", "targets imports torch"),
    "targets and evaluation": ("targets/a.py", "from bmtl.evaluation import metrics", "targets imports evaluation"),
    "distributions and tasks": ("distributions/a.py", "from bmtl.tasks import task", "distributions imports tasks"),
    "arviz itself": ("datasets/a.py", "import arviz as az", "datasets imports arviz"),
    "datasets and models": ("datasets/a.py", "from bmtl.models import vmtl", "datasets imports models"),
    "datasets and evaluation": ("datasets/a.py", "from bmtl import evaluation", "datasets imports evaluation"),
    "the marks and a package": ("tasks.py", "from bmtl.datasets import load", "tasks imports datasets"),
    "another top-level file": ("errors.py", "from .models import vmtl", "errors imports models"),
    "a package and the experiments": ("models/a.py", "from bmtl.experiments import run", "models imports experiments"),
    "a package and the command line": ("inference/a.py", "from bmtl import cli", "inference imports cli"),
    "the experiments and the command line": (
        "experiments/a.py",
        "from bmtl.cli.console import console",
        "experiments imports cli",
    ),
    "the public names": ("models/a.py", "import bmtl", "through the public names"),
    "a public name": ("models/a.py", "from bmtl import fit", "through the public names"),
}

ALLOWED = {
    "cli/a.py": "from bmtl import evaluation, inference, models, experiments\nfrom bmtl.cli.b import x",
    "experiments/a.py": "import bmtl.models\nfrom ..inference import fit\nfrom .b import x\nimport torch",
    "__init__.py": "from importlib import import_module\nimport_module('bmtl.inference')",
    "tasks.py": "import pyro\nfrom pyro import poutine",
    "models/a.py": "from bmtl.tasks import task\nfrom ..tasks import shared\nfrom bmtl import tasks, __version__",
    "models/networks/b.py": "from bmtl.models.a import x\nfrom ..a import y\nfrom . import c",
    "inference/balancing/__init__.py": "from .a import x\nfrom ..svi import y\nfrom ...tasks import task",
    "evaluation/a.py": "import arviz_base\nfrom arviz_plots import plot_ppc_pit\nimport xarray, torchvision_like",
    "datasets/a.py": "import torch\nfrom bmtl import inputs\nfrom bmtl.targets import Real",
    "targets/a.py": "import numpy, scipy, xarray",
    "distributions/a.py": "import torch, pyro",
}


def plant(folder: Path, files: dict[str, str]) -> Path:
    package = folder / "bmtl"
    folders = (f"{name}/__init__.py" for name in (*MAY_IMPORT.keys() - {"tasks", "inputs"}, "cli", "experiments"))
    for name in (*folders, "__init__.py", "__main__.py", "tasks.py", "inputs.py", *files):
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files.get(name, ""), encoding="utf-8")
    return package


@pytest.mark.parametrize(("file", "source", "reason"), PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_violation_is_found(tmp_path, file, source, reason):
    (found,) = violations(plant(tmp_path, {file: source}))
    assert found.startswith(f"bmtl/{file}:")
    assert reason in found


def test_what_the_plan_allows_is_not_reported(tmp_path):
    assert violations(plant(tmp_path, ALLOWED)) == []
