"""``bmtl demo`` on a part of its data."""

import io
import re
import sys

import numpy as np
import pytest
from rich.console import Console

from bmtl import cli, datasets
from bmtl.cli import compare, demo
from bmtl.datasets import MultiTaskData, load
from bmtl.evaluation import results
from bmtl.experiments import DEMO
from tests.cli.commands import names

REFERENCES = ("constant", "ridge")
PICTURES = {"changes.png", "targets.png", "reliability.png"}


def part_of_qm9():
    """200 molecules and three properties."""
    whole = load("qm9-mini").subset(["mu", "r2", "u0"])
    rows = {"train": np.arange(120), "val": np.arange(120, 160), "test": np.arange(160, 200)}
    targets = {name: target.values for name, target in whole.targets.items()}
    return MultiTaskData.from_arrays("part", whole.inputs.x[:200], {k: v[:200] for k, v in targets.items()}, rows)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """``bmtl demo --quick`` in this process: its folder and what it printed on a terminal."""
    out, printed = tmp_path_factory.mktemp("demo"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        terminal = Console(file=printed, force_terminal=True, width=80, legacy_windows=False)
        for module in (compare, demo):
            patch.setattr(module, "console", terminal)
        patch.setattr(datasets, "load", lambda name: part_of_qm9())
        patch.setattr(sys, "argv", ["bmtl", "demo", "--quick", "--out", str(out)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
    assert not stop.value.code
    return out, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", printed.getvalue())


def test_it_writes_a_comparison_a_share_and_three_pictures(shown):
    out, _ = shown
    written = names(out)
    assert written >= {"changes.nc"} | PICTURES
    for share, place in ((100, "seed-0"), (30, "split-0-seed-0"), (10, "split-0-seed-0")):
        runs = {f"labels-{share}/{name}/{place}/results.nc" for name in (*DEMO, *REFERENCES)}
        assert written >= runs | {f"labels-{share}/comparison.nc", f"labels-{share}/table.csv"}
    assert not list(out.glob("labels-*/*.png"))  # a report draws its own
    scarce = results.read(out / f"labels-10/ew/{place}/results.nc")
    assert scarce["test/observed_data/y_mu"].size == 40  # test rows keep their labels
    hierarchical = results.read(out / f"labels-10/bakker-heskes/{place}/results.nc")
    assert "log_likelihood" in hierarchical.children  # of the training rows, by which the report judges the guide


def test_it_prints_one_table_and_what_it_supports(shown):
    out, printed = shown
    changes = results.read(out / "changes.nc").to_dataset()
    table = printed[printed.index("delta_m [%]") :].split("\n\n")[0].splitlines()
    cells = {line.split()[0]: line.replace("−", "-").split()[1:] for line in table if not line.startswith("-")}
    for name in (*DEMO[1:], *REFERENCES):
        for found, expected in zip(cells[name], changes["delta_m"].sel(learner=name).values[:, 0], strict=True):
            assert float(found) == pytest.approx(expected, rel=0.006, abs=0.006)
    assert cells["stl"] == ["–"] * 3
    assert "With 10 % of the labels, " in printed.replace("\n", " ")
    assert "One draw is too few to compare methods." in printed
    assert max(map(len, printed[printed.index("delta_m [%]") :].split("Wrote")[0].splitlines())) <= 80
