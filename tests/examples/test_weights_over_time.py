def test_the_picture_is_drawn(start, tmp_path):
    picture = tmp_path / "weights.png"
    printed = start("--out", picture, "--epochs", 1, "--balancers", "ew,igb-v1")
    assert picture.stat().st_size > 10_000
    assert "igb-v1: 1" in printed
