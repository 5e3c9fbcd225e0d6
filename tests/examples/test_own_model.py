def test_the_example_runs(start):
    assert "homo" in start("--epochs", 1)
