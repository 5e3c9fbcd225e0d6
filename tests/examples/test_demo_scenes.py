def test_a_sheet_of_rooms_is_drawn(start, tmp_path):
    picture = tmp_path / "rooms.png"
    printed = start("--quick", "--augment", "--out", picture)
    assert picture.stat().st_size > 5_000
    assert "semantic: 100.0% of the pixels have a label" in printed
    assert "wall 0." in printed
