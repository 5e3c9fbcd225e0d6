import json
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def test_the_quick_run_and_its_resumption(example, start, tmp_path):
    printed = start("--quick", "--out", tmp_path, "--docs", tmp_path / "docs")
    assert (tmp_path / "table.md").read_text() in printed
    for name in ("sweep", "figure6", "pictures"):
        assert (tmp_path / "docs" / f"kendall_{name}.png").stat().st_size > 1000
    kept = json.loads((tmp_path / "docs" / "results" / "kendall_rooms.json").read_text())
    learnt = kept["runs"][f"{example.LEARNT}; seed 0"]
    assert set(learnt["scores"]) == set(learnt["validation"]) == set(example.TASKS)
    assert set(learnt["log_variance"]["instance"][:1]) == {0.0}
    assert [set(ends) for ends in learnt["again"]] == [set(example.TASKS)]  # one start
    assert learnt["again"][0] != learnt["end"]
    assert example.page(kept) in printed
    again = start("--quick", "--noises", "--out", tmp_path)
    assert "seed 0\n" not in again, "what is done is not done again"
    assert again == (tmp_path / "noises.md").read_text() + "\n"
    assert set(again.split()) <= set(printed.split())


def test_weights_by_hand_are_chosen_on_validation(example):
    def run(semantic, other):
        scores = dict.fromkeys(example.TASKS, 1.0)
        return {"scores": scores | {"semantic": other}, "validation": scores | {"semantic": semantic}}

    done = {f"{task} alone": [run(1.0, 1.0)] for task in example.TASKS}
    done |= {"weights 1, 1, 1": [run(2.0, 0.5)], "weights 1, 3, 1": [run(1.5, 3.0)]}
    assert example.by_hand(done) == "weights 1, 1, 1"
    assert example.change(done, "weights 1, 1, 1") == pytest.approx([100 * 0.5 / 3])


@pytest.mark.rows
def test_a_trained_row_of_the_page_comes_out_again(example, tmp_path):
    """Inverse depth alone, by the page's first seed: within a tenth of its score."""
    page = json.loads((REPOSITORY / "docs" / "results" / "kendall_rooms.json").read_text())
    height, width, frames = (page["settings"][name] for name in ("height", "width", "frames"))
    sizes = {"train": frames, "val": frames // 4, "test": frames // 4}
    data = example.load("rooms", root=tmp_path, inverse=True, height=height, width=width, **sizes)
    found, _ = example.train(data.subset(("inverse_depth",)), 0, page["settings"]["epochs"])
    scores = page["runs"]["inverse_depth alone; seed 0"]["scores"]
    assert found["scores"]["inverse_depth"] == pytest.approx(scores["inverse_depth"], rel=0.1)
