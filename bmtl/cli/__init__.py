"""The command line: ``bmtl demo | compare | report | train | predict | list``."""

from __future__ import annotations

import os
import platform
import sys
from typing import Annotated, Any

import typer

from bmtl import __version__
from bmtl.cli import compare, demo, list, report, train_predict  # each adds its commands
from bmtl.cli.console import app, console, errors, print_error

__all__ = ["app", "compare", "demo", "list", "main", "report", "train_predict"]

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def _version(wanted: bool) -> None:
    if wanted:
        from bmtl.evaluation.attributes import installed

        stack = ("torch", "pyro-ppl", "lightning", "arviz", "numpy", "xarray", "scikit-learn")
        versions = ", ".join(f"{name} {number}" for name, number in installed(stack).items())
        console.print(
            f"bmtl {__version__} (Python {platform.python_version()}, {versions})", highlight=False, soft_wrap=True
        )
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_version,
            is_eager=True,
            help="Show the versions of bmtl and of the packages that it uses, and exit.",
        ),
    ] = False,
) -> None:
    """Bayesian multi-task learning on Pyro and PyTorch."""


def main() -> None:
    """Entry point. Wrong input ends with one line and code 2, Ctrl-C with code 130, failed runs with code 1."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # for package.module:name below the current folder; last, so that it hides nothing
    try:
        # Typer returns the code of an Exit, and newer versions make one of Ctrl-C.
        code = app(prog_name="bmtl", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except _usage_error() as error:
        error.show()
        sys.exit(error.exit_code)
    except (ValueError, TypeError, OSError, ArithmeticError, ImportError, MemoryError) as error:
        print_error(str(error) or type(error).__name__)
        sys.exit(2)
    if code == _INTERRUPTED:
        errors.print("Interrupted. What was finished has been written.")
    sys.exit(code)


def _usage_error() -> type[Any]:
    """The base class of typer's errors about arguments, wherever this version of typer keeps it."""
    return next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")
