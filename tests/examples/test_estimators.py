"""The example of the estimators runs."""


def test_the_short_mode_prints_scores_and_loads_what_it_saved(start):
    printed = start("--quick")
    assert "same predictions: True" in printed
    score = float(printed.split("accuracy (quarter): ")[1].split()[0])
    assert score > 0.7
    assert "90 % intervals hold" in printed
