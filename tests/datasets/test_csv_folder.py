import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bmtl.datasets import load

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


def two(label=lambda age: age / 10) -> dict[str, str]:
    return {name: table(ages, label) for name, ages in AGES.items()}


def test_each_file_is_a_task(folder):
    data = load(f"csv:{folder(**two())}", units="mg")
    assert data.name == "wards"
    assert data.tasks == ("north", "south")
    assert data.units == {"north": "mg", "south": "mg"}
    assert_array_equal(data.x, [[age, i] for ages in AGES.values() for i, age in enumerate(ages)])
    assert_array_equal(data.y["south"], [np.nan] * 5 + [4.0, 4.1, 4.2, 4.3, 4.4, 4.5])
    assert list(data.rows) == ["train", "val", "test"]


def test_it_is_the_same_as_the_arrays(folder, tmp_path):
    data = load("csv:wards", root=folder(**two()).parent, seed=3)
    np.savez(
        tmp_path / "wards.npz",
        X=data.x,
        y=np.array([*AGES["north"], *AGES["south"]]) / 10,
        task=np.repeat(["north", "south"], [5, 6]),
    )
    assert load("npz:wards.npz", root=tmp_path, seed=3).fingerprint == data.fingerprint


def test_columns_may_stand_in_another_order(folder):
    data = load(f"csv:{folder(**two())}")
    rows = "".join(f"{age / 10},{i},{age}\n" for i, age in enumerate(AGES["south"]))
    assert load(f"csv:{folder(south='y,dose,age' + chr(10) + rows)}").fingerprint == data.fingerprint


def test_text_labels_are_classes(folder):
    data = load(f"csv:{folder(**two(lambda age: 'ill' if age > 42 else 'well'))}")
    assert data.kinds == {"north": 2, "south": 2}
    assert data.classes["south"] == ("ill", "well")
    assert data.y["north"][:5].tolist() == [1, 0, 0, 1, 0]


def test_numbers_are_classes_on_demand_in_their_order(folder):
    path = folder(**two(lambda age: 10 if age > 42 else 9))
    assert load(f"csv:{path}").kinds == {"north": "regression", "south": "regression"}
    data = load(f"csv:{path}", kind="classes")
    assert data.classes["north"] == ("9", "10")


def test_an_empty_label_is_missing(folder):
    for label in (lambda age: "" if age == 43 else age, lambda age: "" if age == 43 else f"class {age % 2}"):
        data = load(f"csv:{folder(**two(label))}", validation=0)
        assert len(np.concatenate(list(data.rows.values()))) == 10
        missing = data.y["south"][8]
        assert missing == -1 or np.isnan(missing)


def test_split_and_groups_are_columns_and_no_features(folder):
    text = "part,patient,age,score\n" + "".join(f"{int(i < 6)},p{i // 2},{30 + i},{i / 4}\n" for i in range(10))
    options = {"target": "score", "split": "part", "groups": "patient", "validation": 0.3}
    data = load(f"csv:{folder(only=text)}", **options)
    assert data.x.shape == (10, 1)
    assert_array_equal(data.rows["test"], [6, 7, 8, 9])
    assert len(data.rows["val"]) == 2
    assert data.rows["val"][0] // 2 == data.rows["val"][1] // 2


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({"a": "x,y\n1,2\n", "b": "x,z,y\n1,2,3\n"}, {}, "b.csv and .*a.csv differ in the columns z"),
        ({"a": "x,y\n1,2\n3\n"}, {}, "its columns x, y: row 3 has another number"),
        ({"a": "x,x\n1,2\n"}, {}, "a name stands twice"),
        ({"a": "x,y\n"}, {}, "there are no rows"),
        ({"a": ""}, {}, "is not a CSV file with the columns' names"),
        ({"a": 'x,y\n"1,2\n'}, {}, "is not a CSV file"),
        ({"a": "x,label\n1,2\n"}, {}, "has no column 'y' for `target`; its columns are: x, label"),
        ({"a": "x,y\n1,2\n"}, {"groups": "patient"}, "has no column 'patient' for `groups`"),
        ({"a": "y\n1\n"}, {}, "has no column of features; its columns are: y"),
        ({"a": "x,y\nred,2\n"}, {}, "The column 'x' must hold numbers: .*'red'.* Encode text first"),
        ({"a": "x,y\n1,red\n"}, {"kind": "regression"}, "Labels of a regression are numbers; got 'red'"),
        ({"a": "x,y\n1,2\n"}, {"kind": 2}, "kind is 'regression', 'classes' or None; got 2"),
    ],
)
def test_files_that_do_not_fit_are_refused(folder, files, options, message):
    with pytest.raises(ValueError, match=message):
        load(f"csv:{folder(**files)}", **options)


def test_an_empty_or_missing_folder_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no CSV file in .*wards. Write one file <task>.csv a task"):
        load(f"csv:{folder()}")
    with pytest.raises(FileNotFoundError, match="needs the file clinics in .*Write one"):
        load("csv:clinics", root=tmp_path)
