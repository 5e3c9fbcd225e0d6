import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bmtl.datasets import load
from bmtl.targets import Binary, Classes, Count, Ordinal, Real

AGES = {"north": [31, 45, 52, 28, 60], "south": [40, 41, 42, 43, 44, 45]}


@pytest.fixture
def folder(tmp_path):
    """A function: a folder with one file per task."""

    def of(**files):
        path = tmp_path / "wards"
        path.mkdir(exist_ok=True)
        for name, text in files.items():
            (path / f"{name}.csv").write_text(text, encoding="utf-8")
        return path

    return of


def table(ages, label=lambda age: age / 10) -> str:
    return "age,dose,y\n" + "".join(f"{age},{i},{label(age)}\n" for i, age in enumerate(ages))


def families(data) -> dict:
    return {name: target.family for name, target in data.targets.items()}


def two(label=lambda age: age / 10) -> dict[str, str]:
    return {name: table(ages, label) for name, ages in AGES.items()}


def test_each_file_is_a_task(folder):
    data = load(f"csv:{folder(**two())}", units="mg")
    assert data.name == "wards"
    assert data.tasks == ("north", "south")
    assert {target.unit for target in data.targets.values()} == {"mg"}
    assert_array_equal(data.inputs.x, [[age, i] for ages in AGES.values() for i, age in enumerate(ages)])
    assert_array_equal(data.targets["south"].values, [np.nan] * 5 + [4.0, 4.1, 4.2, 4.3, 4.4, 4.5])
    assert list(data.rows) == ["train", "val", "test"]


def test_it_is_the_same_as_the_arrays(folder, tmp_path):
    data = load("csv:wards", root=folder(**two()).parent, seed=3)
    np.savez(
        tmp_path / "wards.npz",
        X=data.inputs.x,
        y=np.array([*AGES["north"], *AGES["south"]]) / 10,
        task=np.repeat(["north", "south"], [5, 6]),
    )
    assert load("npz:wards.npz", root=tmp_path, seed=3).fingerprint == data.fingerprint


def test_columns_may_be_in_another_order(folder):
    data = load(f"csv:{folder(**two())}")
    rows = "".join(f"{age / 10},{i},{age}\n" for i, age in enumerate(AGES["south"]))
    assert load(f"csv:{folder(south='y,dose,age' + chr(10) + rows)}").fingerprint == data.fingerprint


def test_text_labels_are_classes(folder):
    data = load(f"csv:{folder(**two(lambda age: 'ill' if age > 42 else 'well'))}")
    assert {target.family for target in data.targets.values()} == {Binary(("ill", "well"))}
    assert data.targets["north"].values[:5].tolist() == [1, 0, 0, 1, 0]


def test_numbers_are_classes_on_demand_in_their_order(folder):
    path = folder(**two(lambda age: 10 if age > 42 else 9))
    assert families(load(f"csv:{path}")) == {"north": Real(), "south": Real()}
    assert families(load(f"csv:{path}", kinds="classes")) == {
        "north": Classes(("9", "10")),
        "south": Classes(("9", "10")),
    }


def test_each_file_is_of_its_own_kind(folder):
    """Of the kinds of rating.csv (1 to 5) and churn.csv (yes, no), neither decides the other's."""
    files = {
        "rating": table(AGES["north"], lambda age: 1 + age % 5),
        "churn": table(AGES["south"], lambda age: ["no", "yes"][age % 2]),
        "visits": table(AGES["south"], lambda age: age % 3),
        "colour": table(AGES["south"], lambda age: ["red", "green", "blue"][age % 3]),
    }
    data = load(f"csv:{folder(**files)}", kinds={"rating": "ordinal", "visits": "count"})
    assert families(data) == {
        "churn": Binary(("no", "yes")),
        "colour": Classes(("blue", "green", "red")),
        "rating": Ordinal(("1", "2", "3", "4")),
        "visits": Count(),
    }
    assert data.targets["churn"].values.tolist()[:6] == [age % 2 for age in AGES["south"]]
    assert set(data.targets["churn"].values[6:]) == {-1}


def test_classes_with_a_common_name_are_those_of_all_their_files(folder):
    """A class has one number, though a file lacks some; a file of a single class is binary like its neighbours."""
    files = {
        "a": table(AGES["south"], lambda age: ["cat", "dog"][age % 2]),
        "b": table(AGES["south"], lambda age: ["dog", "owl"][age % 2]),
        "c": table(AGES["south"], lambda age: ["yes", "no"][age % 2]),
    }
    data = load(f"csv:{folder(**files)}")
    assert families(data) == {
        "a": Classes(("cat", "dog", "owl")),
        "b": Classes(("cat", "dog", "owl")),
        "c": Binary(("no", "yes")),
    }
    assert set(data.targets["b"].values.tolist()) == {-1, 1, 2}


def test_hidden_files_are_no_tasks(folder):
    path = folder(**two())
    (path / "._north.csv").write_bytes(b"\x00\x05\x16\x07\x00\x02")
    (path / ".DS_Store").write_bytes(b"\x00")
    (path / "notes.txt").write_text("hello")
    assert load(f"csv:{path}").tasks == ("north", "south")


def test_tasks_may_be_left_out(folder):
    data = load(f"csv:{folder(**two())}", drop="north")
    assert data.tasks == ("south",)
    assert len(data.inputs) == 6


def test_an_empty_label_is_missing(folder):
    for label in (lambda age: "" if age == 43 else age, lambda age: "" if age == 43 else f"class {age % 2}"):
        data = load(f"csv:{folder(**two(label))}", validation=0)
        assert len(np.concatenate(list(data.rows.values()))) == 10
        assert data.targets["south"].missing[8]


def test_split_and_groups_are_columns_and_no_features(folder):
    text = "part,patient,age,score\n" + "".join(f"{int(i < 6)},p{i // 2},{30 + i},{i / 4}\n" for i in range(10))
    options = {"targets": "score", "split": "part", "groups": "patient", "validation": 0.3}
    data = load(f"csv:{folder(only=text)}", **options)
    assert data.inputs.x.shape == (10, 1)
    assert_array_equal(data.rows["test"], [6, 7, 8, 9])
    assert len(data.rows["val"]) == 2
    assert data.rows["val"][0] // 2 == data.rows["val"][1] // 2


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({"a": "x,y\n1,2\n", "b": "x,z,y\n1,2,3\n"}, {}, "b.csv and .*a.csv differ in the columns z"),
        ({"a": "x,y\n1,2\n3\n"}, {}, "a.csv, row 3: 1 fields, and the header has 2"),
        ({"a": "x,y\n"}, {}, "has no rows below its header x, y"),
        ({"a": "x,label\n1,2\n"}, {}, "a.csv has no column 'y' for the target 'y'. Its columns are: x, label"),
        ({"a": "x,y\n1,2\n"}, {"groups": "patient"}, "has no column 'patient' for groups"),
        ({"a": "y\n1\n"}, {}, "has the one column 'y'"),
        ({"a": "x,y\n1,red\n"}, {"kinds": "real"}, "a.csv, row 2, column 'y': 'red' is no number"),
        ({"a": "x,y\n1,2\n", "b": "x,y\n1,2\n2,?\n3,2 kg\n"}, {}, "b.csv, row 4, column 'y': '2 kg' is no number"),
        ({"a": "x,y\n1,2\n", "b": "x,y\n1,?\n"}, {}, "'b' has no label: the column 'y' of b.csv is empty"),
        ({"a": "x,y\n1,2\n"}, {"kinds": {"b": "real"}}, "`kinds` names the unknown 'b'; the targets are: a"),
        ({"a": "x,y\n1,2\n"}, {"drop": "b"}, "`drop` names the unknown 'b'"),
        ({"a": "x,y\n1,2\n"}, {"drop": "a"}, "No task of .*wards is left"),
        ({"a": "x,y,z\n1,2,3\n"}, {"targets": ["y", "z"]}, "labels in one column; got targets=y,z"),
        ({"a": "x,y\n1,2\n"}, {"events": {"a": "x"}}, "are of one file with several targets"),
    ],
)
def test_files_that_do_not_fit_are_refused(folder, files, options, message):
    with pytest.raises(ValueError, match=message):
        load(f"csv:{folder(**files)}", **options)


def test_an_empty_or_missing_folder_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no CSV file in .*wards. Give a file with the columns' names"):
        load(f"csv:{folder()}")
    with pytest.raises(FileNotFoundError, match="needs the file clinics in .*Give a file"):
        load("csv:clinics", root=tmp_path)
