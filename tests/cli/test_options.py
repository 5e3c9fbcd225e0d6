import numpy as np
import pytest

from bmtl.cli.options import items, numbers, pairs, read, reader_options, scores_by_target


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("ew", ["ew"]),
        ("ew, uw,", ["ew", "uw"]),
        ("cagrad(c=0.4,tol=1),ew", ["cagrad(c=0.4,tol=1)", "ew"]),
        ("igb-v1 >> nash-mtl,ew", ["igb-v1 >> nash-mtl", "ew"]),
        ('"Price, EUR",grade', ["Price, EUR", "grade"]),
        ('"a(b", c', ["a(b", "c"]),
        ('the "best", b', ['the "best"', "b"]),
        ("odd),b", ["odd)", "b"]),
    ],
)
def test_lists_are_comma_separated_outside_brackets_and_quotes(text, expected):
    assert items(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:count", {"a": "count"}),
        ("a:ordinal(x, y:z),b:3", {"a": "ordinal(x, y:z)", "b": "3"}),
        ('"a, b: c":km/h, d:"x,y"', {"a, b: c": "km/h", "d": "x,y"}),
        ("a:b:c", {"a": "b:c"}),
    ],
)
def test_pairs_have_their_colon_outside_brackets_and_quotes(text, expected):
    assert pairs(text) == expected


def test_scores_are_one_or_by_target():
    assert scores_by_target("") is None
    assert scores_by_target(" auroc ") == "auroc"
    assert scores_by_target("churn:auroc,visits:mae") == {"churn": "auroc", "visits": "mae"}


def test_numbers():
    assert numbers("1e-3, 2", "lr") == [1e-3, 2.0]
    for wrong in ("", ",", "fast", "1;2"):
        with pytest.raises(ValueError, match="--lr is a number or several with commas between"):
            numbers(wrong, "lr")


@pytest.mark.parametrize(
    ("dataset", "text", "expected"),
    [
        # A name of digits is a name where the reader wants names, and a number where it wants numbers.
        ("npz:f", "drop=25400", {"drop": "25400"}),
        ("npz:f", "drop=25400,25401", {"drop": ["25400", "25401"]}),
        ("npz:f", "units=1", {"units": "1"}),
        ("npz:f", "units=mass:kg,25400:m", {"units": {"mass": "kg", "25400": "m"}}),
        ("npz:f", "names=true", {"names": "true"}),
        ("npz:f", "seed=7", {"seed": 7}),
        ("npz:f", "clip=5", {"clip": 5.0}),
        ("npz:f", "unpack=TRUE", {"unpack": True}),
        ("npz:f", "unpack=no", {"unpack": False}),
        ("npz:f", "clip=none", {"clip": None}),
        ("npz:f", "kinds=3", {"kinds": 3}),
        ("npz:f", "kinds=count", {"kinds": "count"}),
        ("csv:f", "kinds=a:ordinal(x,y,z),b:2", {"kinds": {"a": "ordinal(x,y,z)", "b": 2}}),
        ("csv:f", "targets=price", {"targets": "price"}),
        ("csv:f", 'targets="Price, EUR"', {"targets": "Price, EUR"}),
        ("csv:f", "split=none", {"split": "none"}),  # a column may be called so
        ("csv:f", "vectors=force:fx+fy,heat:u+v", {"vectors": {"force": "fx+fy", "heat": "u+v"}}),
        ("csv:f", "events=days:seen", {"events": {"days": "seen"}}),
        ("csv:f", "missing=-999", {"missing": -999.0}),
        ("csv:f", "missing=none,-999", {"missing": ["none", -999.0]}),
        ("npz:f", "validation-from = test", {"validation_from": "test"}),
        ("uci/energy", "split=2", {"split": 2}),
        ("csv:f", "split=2", {"split": "2"}),  # a column
        ("qm9-12k", "sizes=train:400,val:100,test:90", {"sizes": {"train": 400, "val": 100, "test": 90}}),
        ("qm9-mini", "unknown=1", {"unknown": "1"}),  # for `load` to tell
    ],
)
def test_options_are_of_the_types_that_the_reader_wants(dataset, text, expected):
    found = reader_options(dataset, [text])
    assert found == expected
    assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["seed"], "is name=value, and 'seed' was given. Its options are: x, y, task, "),
        (["seed=1", "seed=2"], "'seed' .* is given twice"),
        (["seed=two"], "seed=two of the data's reader cannot be read: 'two' is no whole number"),
        (["unpack=maybe"], "unpack=maybe .*: 'maybe' is no yes or no"),
        (["clip=much"], "clip=much .*: 'much' is no number"),
        (["events=days"], "events=days .*: 'days' is not of the form name:value,name:value"),
    ],
)
def test_options_that_will_not_do_are_told(given, message):
    with pytest.raises(ValueError, match=message):
        reader_options("npz:f", given)


@pytest.fixture
def splits(tmp_path):
    """A UCI set of 40 rows with three splits."""
    random = np.random.default_rng(0)
    folder = tmp_path / "toy" / "data"
    folder.mkdir(parents=True)
    np.savetxt(folder / "data.txt", random.normal(size=(40, 4)))
    np.savetxt(folder / "index_features.txt", np.arange(3), fmt="%d")
    np.savetxt(folder / "index_target.txt", [3], fmt="%d")
    (folder / "n_splits.txt").write_text("3")
    for split in range(3):
        order = random.permutation(40)
        np.savetxt(folder / f"index_train_{split}.txt", order[:36], fmt="%d")
        np.savetxt(folder / f"index_test_{split}.txt", order[36:], fmt="%d")
    return tmp_path


@pytest.fixture
def table(tmp_path):
    """A table of 30 rows with a column that may be a split."""
    rows = "\n".join(f"{i},{i % 7},{'test' if i % 3 else 'train'}" for i in range(30))
    (tmp_path / "table.csv").write_text(f"x,y,part\n{rows}\n")
    return tmp_path / "table.csv"


def test_splits(splits):
    every, count = read("uci/toy", splits, None, 0)
    assert count == len(every) == 3
    assert len({data.fingerprint for data in every}) == 3
    some, count = read("uci/toy", splits, None, 2)
    assert [data.fingerprint for data in some] == [data.fingerprint for data in every[:2]]
    one, count = read("uci/toy", splits, ["split=1"], 0)
    assert (one.fingerprint, count) == (every[1].fingerprint, 1)


def test_splits_that_there_are_not_are_told(splits, table):
    with pytest.raises(ValueError, match="uci/toy has 3 splits, and 4 were asked for"):
        read("uci/toy", splits, None, 4)
    with pytest.raises(ValueError, match="split=1 names one split, and --splits asks for 2"):
        read("uci/toy", splits, ["split=1"], 2)
    with pytest.raises(ValueError, match="has one split; use --seeds for several runs on it"):
        read(f"csv:{table}", None, ["split=part"], 2)


def test_splits_are_drawn_where_the_data_have_none(table):
    options = ["ignore=part", "seed=3"]
    drawn, count = read(f"csv:{table}", None, options, 3)
    assert count == len(drawn) == 3
    of_test = [data.rows["test"].tolist() for data in drawn]
    assert len(set(map(tuple, of_test))) == 3
    again, _ = read(f"csv:{table}", None, ["ignore=part", "seed=4"], 0)
    assert again.rows["test"].tolist() == of_test[1]


def test_a_reader_option_may_leave_out_targets(archive):
    one, count = read(f"npz:{archive}", None, ["drop=25400"], 0)
    assert (one.tasks, count) == (("mass",), 1)


@pytest.mark.parametrize("command", [("compare", "--methods", "ew"), ("train", "--method", "ew")], ids=lambda c: c[0])
def test_a_device_that_is_not_there_and_an_unknown_precision(
    run, archive, tmp_path, command, never_trains, monkeypatch
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    given = (command[0], f"npz:{archive}", *command[1:], "--out", tmp_path / "out")
    code, _, error = run(*given, "--device", "cuda")
    assert code != 0
    assert "sees no CUDA device here" in error
    code, _, error = run(*given, "--precision", "half")
    assert code != 0
    assert "precision is one of float32, float64, bf16-mixed, and 'half' was given" in error
    assert not (tmp_path / "out").exists()


def test_device_and_precision_are_shown_and_recorded(run, archive, tmp_path, short_ending, monkeypatch):
    from bmtl.evaluation import results
    from bmtl.evaluation.attributes import decode_attributes

    options = ("--epochs", 1, "--widths", 4, "--draws", 4, "--no-reference", "--jobs", 1)
    code, out, _ = run(
        "compare", f"npz:{archive}", "--methods", "ew", "--precision", "float64", *options, "--out", tmp_path
    )
    assert code == 0
    assert "on cpu in float64." in out
    tree = results.read(tmp_path / "ew/seed-0/results.nc")
    assert decode_attributes(tree)["configuration"]["budget"]["precision"] == "float64"
    assert decode_attributes(tree)["labels"]["train"]["mass"] > 0
    validation = tree["training"]["validation_losses"].dropna("step")
    assert validation.sizes["step"] == 1  # of one epoch
    monkeypatch.setattr("bmtl.evaluation.report.figures._image", lambda draw, title, largest: "")
    code, out, _ = run("report", tmp_path)
    assert code == 0
    assert "17 of 17 sections" in out
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Labels of each target" in page
    assert "Training and validation" in page
