"""Tables of the pages on scenes, noise and defaults are those that scripts make of the files that were kept with them."""

import csv
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
RESULTS = DOCS / "results"


def example(name, folder="examples"):
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "examples"))
        spec.loader.exec_module(module)
    sys.modules.pop(name, None)
    return module


def rows_of(text):
    """Lines of tables but for rules, without the spaces that align them."""
    lines = [line for line in text.splitlines() if line.startswith("|") and set(line) - set("|-: ")]
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]


def on_page(page, text):
    there = rows_of((DOCS / page).read_text(encoding="utf-8"))
    missing = [row for row in rows_of(text) if row not in there]
    assert not missing, f"{page} does not have {missing}"


def lines_of(name):
    with (RESULTS / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_page_of_known_noise():
    files = (RESULTS / f"homoscedastic_{name}.csv" for name in ("noise", "temperature"))
    on_page("homoscedastic.md", example("homoscedastic_noise").page(*files))


def test_kendalls_model_on_rooms():
    kept = json.loads((RESULTS / "kendall_rooms.json").read_text(encoding="utf-8"))
    module = example("kendall_rooms")
    on_page("homoscedastic.md", module.page(kept))
    seeds = {len(runs) for name, runs in module.by_name(kept).items() if not name.startswith("added")}
    assert seeds == {min(seeds)}, "every row has as many seeds"
    assert min(seeds) >= 2


@pytest.mark.parametrize("data", ["rooms", "rooms_segnet", "kitchen", "camvid"])
def test_balancers_on_scenes(data):
    module = example("igb_scenes")
    values = module.read_values(RESULTS / f"igb_scenes_{data}.csv")
    on_page("scenes.md", module.nine_metrics(values))
    assert {len(runs) for runs in values.values()} == {2}


def test_a_minute_of_camvid():
    lines = lines_of("camvid_minute.csv")
    rows = {(line["trunk"], line["likelihood"]) for line in lines}
    assert rows == {("lite0", "categorical"), ("unet", "categorical"), ("unet", "weighted-categorical")}
    for trunk, likelihood in rows:
        own = [line for line in lines if (line["trunk"], line["likelihood"]) == (trunk, likelihood)]
        assert [line["part"] for line in own] == ["test"] * 3
        cells = [f"{float(line['miou']):.3f}" for line in own]
        mean = np.mean([float(line["miou"]) for line in own])
        on_page("scenes.md", f"| {trunk} | {likelihood} | {' | '.join(cells)} | {mean:.3f} |")


def test_times_of_steps():
    lines = lines_of("dense_steps.csv")
    for trunk in dict.fromkeys(line["trunk"] for line in lines):
        ratios = [line["ratio"] for line in lines if line["trunk"] == trunk]
        on_page("scenes.md", f"| {trunk} | {' | '.join(ratios)} |")


def test_defaults_on_tables(tmp_path):
    module = example("defaults", "benchmarks")
    lines = module.read(RESULTS / "defaults.csv")
    on_page("defaults.md", module.errors_page(lines))
    on_page("defaults.md", module.uncertainty_page(lines))
    one = lines["yacht", "uw"]
    assert module.keep(tmp_path / "a.csv", lines.values()) == lines == module.read(tmp_path / "a.csv")
    changed = module.keep(tmp_path / "a.csv", [one | {"nll": "1.5"}])
    assert changed == lines | {("yacht", "uw"): one | {"nll": "1.5"}}


def test_pictures_are_small():
    pictures = [*DOCS.glob("kendall_*.png"), *DOCS.glob("igb_*.png"), *DOCS.glob("report_*.png")]
    assert len(pictures) >= 11
    assert all(picture.stat().st_size < 200_000 for picture in pictures)
