import json


def test_the_quick_run_and_its_resumption(example, start, tmp_path):
    printed = start("--quick", "--out", tmp_path)
    assert (tmp_path / "table.md").read_text() in printed
    for name in ("sweep.png", "figure6.png", "pictures.png"):
        assert (tmp_path / name).stat().st_size > 1000
    kept = json.loads((tmp_path / "results.json").read_text())
    learnt = kept["runs"][f"learnt, from {example.STARTS[-1]:g}, seed 0"]
    assert set(learnt["scores"]) == set(example.TASKS)
    assert learnt["log_variance"]["instance"][0] == example.STARTS[-1]
    again = start("--quick", "--out", tmp_path)
    assert "seed 0" not in again, "what is done is not done again"
