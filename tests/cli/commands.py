"""The command line in this process and in others, and options that train in a moment."""

import subprocess
import sys
from pathlib import Path

import pytest

from bmtl import cli

TINY = ("--epochs", 2, "--batch-size", 32, "--widths", 6, "--draws", 8)
HOUSES = ("-d", "targets=price,grade,visits,sold", "-d", "ignore=id,remark", "-d", "units=price:kEUR")
KINDS = ("-d", "kinds=grade:ordinal(low,medium,high),visits:count")


def call_main(*arguments):
    """Runs the command line in this process: its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["bmtl", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
    return stop.value.code or 0


def in_new_process(*arguments):
    """Runs the command line in a process of its own: exit code, output, error output."""
    command = [sys.executable, "-c", "from bmtl.cli import main; main()", *map(str, arguments)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def names(folder):
    """The files below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
