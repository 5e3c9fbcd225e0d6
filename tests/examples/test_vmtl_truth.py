import numpy as np
import pytest


def test_the_quick_run(example, start, monkeypatch, tmp_path):
    name = "3 classes, 40 rows, 10 features"  # the one whose heat map is drawn
    monkeypatch.setattr(example, "KINDS", {name: example.KINDS[name]})
    printed = start("--quick", "--out", tmp_path)
    text = (tmp_path / "truth.md").read_text()
    assert all(line in printed for line in text.splitlines())
    for words in ("| SVI, full-rank guide ", "| NUTS ", "Full-rank guide. In 20 simulated data sets", "| current    |"):
        assert words in text
    assert "nan" not in text
    for picture in ("ranks.png", "relatedness.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_what_a_task_takes_from_its_cluster(example):
    """Two clusters of three, the first task misled; no other split of the six holds as much."""
    taken = np.full((6, 6), 0.05)
    taken[range(6), [3, 0, 1, 4, 5, 3]] = 0.8
    np.fill_diagonal(taken, 0.0)
    clusters = list(example.CLUSTERS.values())
    np.testing.assert_allclose(example.within(taken, clusters), [0.1, *[0.85] * 5])
    assert example.best_partition(taken) == clusters
    order = [3, 1, 5, 0, 4, 2]
    assert example.best_partition(taken[np.ix_(order, order)]) == [0, 1, 0, 1, 0, 1]


def test_too_few_data_sets_and_seeds_are_refused(start, capsys):
    for arguments, said in ((("--datasets", 19), "from 20, and 19"), (("--seeds", 0), "from 1, and 0")):
        with pytest.raises(SystemExit):
            start(*arguments)
        assert said in capsys.readouterr().err
