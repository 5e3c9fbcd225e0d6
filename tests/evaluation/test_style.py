import os

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from bmtl.evaluation.storage import ResultsFileError
from bmtl.evaluation.style import lines_of, method_legend, named, panels, save, styled, task_names


def test_every_method_looks_different():
    looks = lines_of([f"method {i}" for i in range(28)])
    assert len({(look["color"], look["linestyle"]) for look in looks.values()}) == 28
    assert len(lines_of([str(i) for i in range(50)])) == 50
    assert lines_of([]) == {}


def test_a_method_keeps_its_look_when_others_follow():
    short, long = lines_of(["a", "b"]), lines_of(["a", "b", "c"])
    assert all(short[name]["color"] == long[name]["color"] for name in short)


def test_the_users_settings_come_back():
    before = mpl.rcParams["axes.titlesize"]
    with styled():
        assert mpl.rcParams["axes.titlesize"] == 9
    assert mpl.rcParams["axes.titlesize"] == before


@pytest.mark.parametrize("count", [1, 3, 4, 5, 11, 12])
def test_panels_are_as_many_as_titles_and_every_column_has_numbers_below(count):
    titles = [f"task {i}" for i in range(count)]
    axes = panels(Figure(), titles, 4)
    assert list(axes) == titles
    assert all(axes[title].get_title(loc="left") == title or axes[title].get_title() == title for title in titles)
    for title in titles[max(0, count - 4) :]:
        assert axes[title].xaxis.get_tick_params()["labelbottom"]


def test_a_legend_is_no_wider_than_its_figure():
    figure = Figure(figsize=(5, 3), layout="constrained")
    figure.subplots()
    method_legend(figure, [f"igb-v1 >> nash-mtl >> norm {i}" for i in range(9)], labels={"x": "y"})
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width


def test_a_tree_alone_goes_by_its_method():
    assert list(named(xr.DataTree(xr.Dataset(attrs={"method": "uw"})))) == ["uw"]
    assert list(named(xr.DataTree())) == ["run"]
    with pytest.raises(ValueError, match="nothing to draw"):
        named({})


def test_tasks_are_those_of_all_runs_or_those_chosen():
    records = {
        "a": xr.DataArray(np.zeros(2), dims="task", coords={"task": ["x", "y"]}),
        "b": xr.DataArray(np.zeros(2), dims="task", coords={"task": ["y", "z"]}),
        "c": None,
    }
    assert task_names(records, None) == (["x", "y", "z"], "")
    assert task_names(records, ["z"]) == (["z"], "")
    with pytest.raises(ValueError, match="There is no task 'w'; the runs have"):
        task_names(records, ["w"])
    with pytest.raises(ValueError, match=r"None of the runs \['c'\] has this of any task"):
        task_names({"c": None}, None)


def test_too_many_tasks_are_cut_and_the_note_says_so():
    record = xr.DataArray(np.zeros(139), dims="task", coords={"task": [f"school {i}" for i in range(139)]})
    shown, note = task_names({"a": record}, None)
    assert len(shown) == 36
    assert note == "; the first 36 of 139 tasks"
    assert len(task_names({"a": record}, record["task"].values.tolist())[0]) == 139


@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("a.pdf", b"%PDF"), ("a", b"\x89PNG")])
def test_saved_whole_in_the_format_of_the_suffix(tmp_path, name, magic):
    path = save(Figure(figsize=(1, 1)), tmp_path / "figures" / name)
    assert path.read_bytes().startswith(magic)
    assert os.listdir(path.parent) == [name]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = save(Figure(figsize=(1, 1)), tmp_path / "a.png")
    before = path.read_bytes()

    def fail(self, filename, **_):
        filename.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(ResultsFileError, match="a.png could not be written"):
        save(Figure(), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.png"]


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="ends in .nc; expected one of"):
        save(Figure(), tmp_path / "a.nc")
