"""One file whose columns are features and targets, and the same from a data frame."""

import gzip

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from bmtl.datasets import MultiTaskData, inputs_from_state, inputs_state, load
from bmtl.targets import Binary, Classes, Count, Ordinal, Real, TimeToEvent, Vector

ROWS = 60
PARTS = ("Train", "TRAIN", "train", "valid", "TEST", "Validation")


def wide() -> pd.DataFrame:
    """Text, dates, gaps and several kinds of target, as text in the way a file has it."""
    i = np.arange(ROWS)
    return pd.DataFrame(
        {
            "id": [f"m{k}" for k in i],
            "smiles": [f"C{k}O" for k in i],
            "fold": [PARTS[k % 6] for k in i],
            "patient": [f"p{k // 6}" for k in i],
            "age": np.where(i % 7 == 3, "", (20 + i).astype(str)),
            "city": np.array(["Bern", "Oslo", "Rome"])[i % 3],
            "seen": [f"2021-{1 + k % 12:02d}-{1 + k % 28:02d}" for k in i],
            "strength": (i / 4).astype(str),
            "price": np.where(i % 11 == 0, "NA", np.where(i % 13 == 0, ">40", (i / 2 + 0.25).astype(str))),
            "grade": (1 + i % 5).astype(str),
            "visits": (i % 9).astype(str),
            "churn": np.array(["yes", "no"])[i % 2],
        }
    )


OPTIONS = {
    "targets": ["strength", "price", "grade", "visits", "churn"],
    "ignore": ["id", "smiles", "patient"],
    "split": "fold",
    "kinds": {"grade": "ordinal", "visits": "count"},
    "units": {"price": "EUR"},
}
FAMILIES = {
    "strength": Real(),
    "price": Real(censored=True),
    "grade": Ordinal(("1", "2", "3", "4", "5")),
    "visits": Count(),
    "churn": Binary(("no", "yes")),
}


@pytest.fixture
def save(tmp_path):
    """A function: a data frame or text as a file."""

    def to(table, name="wide.csv", **options):
        if isinstance(table, str):
            (tmp_path / name).write_text(table, encoding="utf-8")
        else:
            table.to_csv(tmp_path / name, index=False, **options)
        return tmp_path / name

    return to


def families(data) -> dict:
    return {name: target.family for name, target in data.targets.items()}


def test_a_wide_file_is_read_as_it_is(save):
    data = load(f"csv:{save(wide())}", **OPTIONS)
    assert data.name == "wide"
    assert families(data) == FAMILIES
    assert [target.unit for target in data.targets.values()] == ["1", "EUR", "1", "1", "1"]
    i = np.arange(ROWS)
    assert_array_equal(data.targets["strength"].values, i / 4)
    assert_array_equal(data.targets["price"].missing, i % 11 == 0)
    assert data.targets["price"].values[13].tolist() == [40, np.inf]
    assert data.targets["grade"].values[:6].tolist() == [0, 1, 2, 3, 4, 0]
    assert data.targets["churn"].values[:2].tolist() == [1, 0]
    assert {part: rows.tolist() for part, rows in data.rows.items()} == {
        "train": i[i % 6 < 3].tolist(),
        "val": i[(i % 6 == 3) | (i % 6 == 5)].tolist(),
        "test": i[i % 6 == 4].tolist(),
    }
    assert data.inputs.describe() == {
        "kind": "table",
        "width": 7,
        "shape": [7],
        "features": ["age", "age (missing)", "city=Bern", "city=Oslo", "city=Rome", "city=(other)", "seen"],
        "bins": [[]] * 7,
    }
    assert data.features("train").shape == (30, 7)
    assert np.isfinite(data.features("test")).all()


def test_what_was_found_is_said_before_training(save):
    data = load(f"csv:{save(wide())}", **OPTIONS)
    assert data.describe_targets()[2] == "grade: ordinal, 60 labels of 60 rows, 5 classes 1 < 2 < 3 < 4 < 5"
    known = [20 + i for i in range(ROWS) if i % 6 < 3 and i % 7 != 3]  # of the training rows
    assert data.describe_inputs() == [
        f"age: number; {np.median(known):g} where missing, with an indicator",
        "city: 3 categories (Bern, Oslo, Rome)",
        "seen: date, in days since 1970-01-01",
    ]
    without = load(f"csv:{save(wide())}", **{**OPTIONS, "kinds": None})
    assert without.kind_hints() == [
        "grade, visits: whole numbers, taken as real. If they are counts or grades, say so with kinds=grade:count or "
        "kinds=grade:ordinal."
    ]
    assert data.kind_hints() == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("wide.tsv", {"sep": "\t"}),
        ("wide.csv", {"sep": ";"}),
        ("wide.csv", {"lineterminator": "\r\n"}),
        ("wide.csv", {"encoding": "utf-8-sig"}),
        ("wide.csv", {"encoding": "utf-16"}),
        ("wide.csv", {"quoting": 1}),
        ("wide.csv.gz", {"compression": "gzip"}),
    ],
)
def test_the_file_s_form_changes_nothing(save, name, options):
    usual = load(f"csv:{save(wide())}", **OPTIONS)
    data = load(f"csv:{save(wide(), name, **options)}", **OPTIONS)
    assert data.fingerprint == usual.fingerprint
    assert data.name == "wide"


def test_decimal_commas_change_nothing(save):
    table = wide()
    commas = table.assign(**{name: table[name].str.replace(".", ",") for name in ("strength", "price")})
    usual = load(f"csv:{save(table)}", **OPTIONS)
    assert load(f"csv:{save(commas, sep=';')}", **OPTIONS).fingerprint == usual.fingerprint
    assert load(f"csv:{save(commas)}", **OPTIONS).fingerprint == usual.fingerprint


def test_a_data_frame_is_the_file_it_would_be(save):
    path = save(wide())
    usual = load(f"csv:{path}", **OPTIONS)
    assert MultiTaskData.from_frame(wide(), **OPTIONS).fingerprint == usual.fingerprint
    typed = pd.read_csv(path, parse_dates=["seen"], dtype={"city": "category"})
    data = MultiTaskData.from_frame(typed, name="mine", **OPTIONS)
    assert data.name == "mine"
    assert data.fingerprint == usual.fingerprint
    assert families(data) == FAMILIES


def test_parquet_and_feather_are_the_data_frame(tmp_path):
    pytest.importorskip("pyarrow")
    wide().to_parquet(tmp_path / "wide.parquet")
    wide().to_feather(tmp_path / "wide.feather")
    expected = MultiTaskData.from_frame(wide(), **OPTIONS)
    for name in ("wide.parquet", "wide.feather"):
        data = load(f"csv:{tmp_path / name}", **OPTIONS)
        assert data.fingerprint == expected.fingerprint
        assert data.name == "wide"


# ---- Predictions take the raw file -----------------------------------------------------------------------------------


def through_a_file(data, tmp_path):
    torch.save(inputs_state(data.inputs), tmp_path / "inputs.pt")
    return inputs_from_state(torch.load(tmp_path / "inputs.pt", weights_only=True))


def test_new_rows_are_prepared_as_the_training_rows_were(save, tmp_path):
    path = save(wide())
    data = load(f"csv:{path}", **OPTIONS)
    back = through_a_file(data, tmp_path)
    assert len(back) == 0
    assert back.describe() == data.inputs.describe()
    for part, rows in data.rows.items():
        assert_array_equal(back.prepare(back.read(path)).numpy()[rows], data.tensors(part)[0].numpy())
    shuffled = wide()[["city", "seen", "id", "age"]].iloc[::-1].assign(more=1)
    assert_array_equal(back.prepare(shuffled).numpy()[::-1], back.prepare(back.read(path)).numpy())
    assert back.prepare(shuffled, torch.float64).dtype == torch.float64
    with pytest.raises(ValueError, match="has no column 'age'.*Add it; its fields may be empty"):
        back.prepare(wide().drop(columns="age"))
    with pytest.raises(ValueError, match="trained on the columns age, city, seen of a table; .* not ndarray"):
        back.prepare(np.zeros((3, 7)))


def test_new_files_are_read_with_the_options_of_the_training_file(save, tmp_path):
    text = "x;grün;y\n" + "".join(f"{i},5;{['ä', 'ö'][i % 2]};{i}\n" for i in range(20)) + "-999;ä;1\n"
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode("latin-1"))
    data = load(f"csv:{path}", encoding="latin-1", missing=-999)
    back = through_a_file(data, tmp_path)
    assert back.features == ("x", "x (missing)", "grün=ä", "grün=ö", "grün=(other)")
    assert_array_equal(back.prepare(back.read(path)).numpy()[data.rows["train"]], data.tensors("train")[0].numpy())
    assert back.prepare(pd.DataFrame({"x": [-999.0], "grün": ["ä"]}))[0, 1] == data.inputs.scaler.transform(
        [[0, 1, 0, 0, 0]]
    )[0, 1].astype(np.float32)


# ---- Splits and groups -----------------------------------------------------------------------------------------------


def test_groups_are_not_parted_and_missing_ones_are_their_own(save):
    table = wide().drop(columns=["fold", "smiles", "id", "price"])
    table.loc[:9, "patient"] = ""
    data = load(f"csv:{save(table)}", targets="strength", groups="patient", seed=3)
    groups = [set(table["patient"][rows]) - {""} for rows in data.rows.values()]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert len(data.rows) == 3


def test_a_split_may_be_numbers_or_leave_rows_out(save):
    table = wide().assign(fold=np.select([np.arange(ROWS) < 30, np.arange(ROWS) < 50], ["1", "0"], "-1"))
    data = load(f"csv:{save(table)}", **OPTIONS)
    assert sorted([*data.rows["train"], *data.rows["val"]]) == list(range(30))
    assert data.rows["test"].tolist() == list(range(30, 50))
    empty = load(f"csv:{save(table.assign(fold=table['fold'].replace('-1', '')))}", **OPTIONS)
    assert empty.fingerprint == data.fingerprint


def test_validation_may_be_left_out(save):
    table = wide().replace({"fold": {"valid": "", "Validation": ""}})
    assert list(load(f"csv:{save(table)}", **OPTIONS, validation=0).rows) == ["train", "test"]


# ---- Kinds of targets ------------------------------------------------------------------------------------------------


def test_times_to_an_event_and_vectors_come_from_several_columns(save):
    table = wide().assign(
        days=(1 + np.arange(ROWS)).astype(str),
        died=np.array(["1", "0"])[np.arange(ROWS) % 2],
        u=(np.arange(ROWS) / 3).astype(str),
        v=np.where(np.arange(ROWS) == 5, "NA", (np.arange(ROWS) / 7).astype(str)),
    )
    options = {"events": {"days": "died"}, "vectors": {"wind": "u+v"}, "ignore": [*OPTIONS["ignore"], "fold", "price"]}
    data = load(f"csv:{save(table)}", targets=["strength", "days"], units={"days": "d", "wind": "m/s"}, **options)
    assert families(data) == {"strength": Real(), "days": TimeToEvent(), "wind": Vector(("u", "v"))}
    assert [target.unit for target in data.targets.values()] == ["1", "d", "m/s"]
    assert data.targets["days"].values[:2].tolist() == [[1, 1], [2, np.inf]]
    assert np.isnan(data.targets["wind"].values[5]).tolist() == [False, True]
    features = {feature.name for feature in data.inputs.encoding.features}
    assert features.isdisjoint({"days", "died", "u", "v", "strength"})
    assert f"{ROWS // 2} right-censored" in data.describe_targets()[1]
    # Without the column of events no time is censored, and it would be a feature.
    uncensored = load(f"csv:{save(table)}", targets="days", kinds="time-to-event", ignore=options["ignore"])
    assert uncensored.kind_hints() == [
        "days: no time is censored. If a column says whether the event was observed, name it: events=days:COLUMN."
    ]
    # Without targets the pairs say them all.
    assert load(f"csv:{save(table)}", **options).tasks == ("days", "wind")


def test_scaling_may_be_left_out(save):
    data = load(f"csv:{save(wide())}", **{**OPTIONS, "scale": "none", "clip": None})
    x, y = data.tensors("train", torch.float64)
    assert_array_equal(y["strength"], data.targets["strength"].values[data.rows["train"]])
    assert x[:, 0].max() > 60


@pytest.mark.parametrize("odd", ["NA", "?", "", "<-3.3", "null", "12 kg"])
def test_one_odd_label_never_makes_classes_of_numbers(save, odd):
    text = "a,y\n" + "".join(f"{i},{i % 7}.5\n" for i in range(60)) + f"3,{odd}\n"
    path = save(text)
    if odd == "12 kg":
        with pytest.raises(ValueError, match="wide.csv, row 62, column 'y': '12 kg' is no number"):
            load(f"csv:{path}")
        return
    data = load(f"csv:{path}")
    assert families(data) == {"y": Real(censored=odd == "<-3.3")}
    assert data.targets["y"].missing[60] == (odd != "<-3.3")


LABEL = st.one_of(
    st.floats(-1e6, 1e6).map(repr),
    st.integers(-(10**6), 10**6).map(str),
    st.sampled_from(["NA", "n/a", "", "?", "-", "null", "NaN"]),
    st.tuples(st.sampled_from(["<", ">", "<= ", "≥"]), st.integers(-99, 99)).map(lambda pair: f"{pair[0]}{pair[1]}"),
)


@given(st.lists(LABEL, min_size=5, max_size=30))
def test_labels_of_a_file_are_read_back(tmp_path_factory, fields):
    numbers = [field for field in fields if field and field[0] in "-0123456789" and field != "-"]
    if len(numbers) < 3 or set(map(float, numbers)) <= {0.0, 1.0}:
        return
    path = tmp_path_factory.mktemp("fuzz") / "t.csv"
    padding = "".join(f"{i},2.5\n" for i in range(20))  # so that every part has labels
    path.write_text("x,y\n" + "".join(f"{i},{field}\n" for i, field in enumerate(fields)) + padding, encoding="utf-8")
    values = load(f"csv:{path}").targets["y"].values
    censored = any(field and field[0] in "<>≥" for field in fields)
    for field, value in zip(fields, values, strict=False):
        lower, upper = value if censored else (value, value)
        if field.strip() in ("", "-") or field[0] in "Nn?":
            assert np.isnan(lower)
            assert np.isnan(upper)
        elif field[0] in "<>≥":
            end = float(field.lstrip("<>=≥ "))
            assert (lower, upper) == ((-np.inf, end) if field[0] == "<" else (end, np.inf))
        else:
            assert lower == upper == float(field)


# ---- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"targets": ()}, "Name the columns of wide.csv that are targets: .*Its columns are: id, smiles"),
        ({}, {"targets": "strenght"}, "no column 'strenght' for the target 'strenght'. Did you mean 'strength'"),
        ({}, {"ignore": ["id", "smile"]}, "no column 'smile' for ignore. Did you mean 'smiles'"),
        ({}, {"split": "part"}, "no column 'part' for split"),
        (
            {},
            {"targets": ["strength"], "ignore": ["strength"]},
            "'strength' of wide.csv is given as the target .* and as ignore",
        ),
        ({}, {"kinds": {"grad": "ordinal"}}, "kinds names 'grad', .*Did you mean 'grade'"),
        (
            {},
            {"kinds": {"city": "ordinal"}},
            "A feature is of the kind number, date, category; got 'ordinal' for 'city'",
        ),
        ({}, {"kinds": {"grade": "grades"}}, "The kind of target 'grade' is one of"),
        ({}, {"units": {"age": "y"}}, "`units` names the unknown 'age'"),
        (
            {},
            {"events": {"age": "churn"}},
            "'churn' of wide.csv is given as the target 'churn' and as the event of 'age'",
        ),
        ({}, {"events": {"agee": "city"}}, "no column 'agee' for the target 'agee'. Did you mean 'age'"),
        ({}, {"events": {"visits": "id"}, "ignore": "smiles"}, "events names 'visits', whose kind is given as 'count'"),
        ({}, {"vectors": {"wind": "age"}}, "The vector 'wind' has two columns or more"),
        ({}, {"drop": "grade"}, "drop leaves out tasks of a folder"),
        ({}, {"decimal": "dot"}, "decimal is 'point' or 'comma'; got 'dot'"),
        ({}, {"proportion": 0.5}, "Give either a split or the proportion"),
        ({}, {"scale": "test"}, "fitted on 'train', 'all', 'none'; got 'test'"),
        ({}, {"ignore": ["patient"]}, "text that differs from row to row in 'id', 'smiles': .*-d ignore=id,smiles"),
        ({"fold": "holdout"}, {}, "wide.csv, row 2, column 'fold': 'holdout' is no part of a split. Expected train"),
        ({"age": [*["1"] * 59, "old"]}, {}, "wide.csv, row 61, column 'age': 'old' is no number"),
        ({"seen": [*["2021-01-01"] * 59, "soon"]}, {"kinds": {"seen": "date"}}, "column 'seen': 'soon' is no date"),
        ({"visits": "1.5"}, {}, "wide.csv, row 2, column 'visits': '1.5'. A count is a whole number"),
        ({"strength": ""}, {}, "Target 'strength' has no label: the column 'strength' of wide.csv is empty"),
        (
            {"km/h": "1", "km_h": "2"},
            {"targets": ["km/h", "km_h"], "kinds": None, "units": ""},
            "Two of the targets km/h, km_h are called alike",
        ),
    ],
)
def test_what_does_not_fit_is_refused(save, changes, options, message):
    path = save(wide().assign(**changes))
    with pytest.raises(ValueError, match=message):
        load(f"csv:{path}", **{**OPTIONS, **options})


def test_a_target_whose_name_has_a_slash_is_renamed_and_its_options_are_given_by_the_column(save):
    table = wide().rename(columns={"price": "EUR/kg", "visits": "n/a day"})
    options = {"targets": ["EUR/kg", "n/a day"], "kinds": {"n/a day": "count"}, "units": {"EUR/kg": "EUR"}}
    data = load(f"csv:{save(table)}", **{**OPTIONS, **options})
    assert {name: target.family for name, target in data.targets.items()} == {
        "EUR_kg": Real(censored=True),
        "n_a day": Count(),
    }
    assert data.targets["EUR_kg"].unit == "EUR"
    assert "EUR/kg: the target is called EUR_kg, since files keep slashes for groups." in data.describe_inputs()


def test_a_feature_that_numbers_the_rows_is_pointed_out(save):
    notes = load(f"csv:{save(wide().assign(nr=np.arange(ROWS)[::-1] + 7, age=np.arange(ROWS) * 2))}", **OPTIONS).notes
    assert notes == ("nr: numbers the rows. If it says nothing else, leave it out (-d ignore=nr).",)


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ([f"{i % 3:04d}" for i in range(ROWS)], "fields such as 0000 begin with 0. If they are codes"),
        ([f"202101{1 + i % 9:02d}" for i in range(ROWS)], "such as 20210101. If they are, say so (-d kinds=age:date)"),
        ([-999 if i % 4 == 1 else i for i in range(ROWS)], "15 rows have -999, and the others lie between 0 and 59"),
        ([1e4 if i == 7 else i for i in range(ROWS)], "1 row has 10000, and the others lie between 0 and 59"),
        ([["Train", "valid", "test"][i % 3] for i in range(ROWS)], "which rows are for tests, name it (-d split=age)"),
        ([f"{1 + i % 3} mg" for i in range(ROWS)], "text such as '1 mg'. If it is a number"),
        ([f"${1 + i % 3}" for i in range(ROWS)], "text such as '$1'. If it is a number"),
        ([f"0{i % 3}:30" for i in range(ROWS)], "a time of day, which is not read"),
        ([f"0{1 + i % 3}/02/21" for i in range(ROWS)], "Write years with four digits"),
    ],
)
def test_features_that_may_be_something_else_are_pointed_out(save, fields, note):
    data = load(f"csv:{save(wide().assign(age=fields))}", **OPTIONS)
    (said,) = data.notes
    assert said.startswith("age: ")
    assert note in said


def test_features_that_are_what_they_seem_are_not(save):
    usual = {"age": [0, 0, *range(58)], "city": [["0-10", "10-20", "P1", "P2"][i % 4] for i in range(ROWS)]}
    assert load(f"csv:{save(wide().assign(**usual))}", **OPTIONS).notes == ()


def test_compact_dates_are_read_where_they_are_said_to_be_dates(save):
    compact = wide()["seen"].str.replace("-", "")
    options = {**OPTIONS, "kinds": {**OPTIONS["kinds"], "seen": "date"}}
    usual = load(f"csv:{save(wide())}", **OPTIONS).fingerprint
    assert load(f"csv:{save(wide().assign(seen=compact))}", **options).fingerprint == usual
    assert MultiTaskData.from_frame(wide().assign(seen=compact.astype(int)), **options).fingerprint == usual


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ([-999 if i % 4 == 1 else i / 7 for i in range(ROWS)], "15 rows have -999"),
        (list(range(5, 5 + ROWS)), "numbers the rows. Is it a target?"),
        ([f"{1 + i % 3} ± 1" for i in range(ROWS)], "text such as '1 ± 1'"),
        ([2.0 ** (i / 6) for i in range(ROWS)], "all labels are above 0, and most are small"),
    ],
)
def test_targets_that_may_be_something_else_are_pointed_out(save, fields, hint):
    data = load(f"csv:{save(wide().assign(strength=fields))}", **OPTIONS)
    assert any(said.startswith("strength: ") and hint in said for said in data.kind_hints())


def test_features_made_from_a_target_and_few_test_rows_are_warned_of(save):
    leaking = wide().assign(age=np.exp(np.arange(ROWS) / 9), city=["in" if i % 2 else "out" for i in range(ROWS)])
    warnings = load(f"csv:{save(leaking)}", **OPTIONS).data_warnings()
    assert [said.split(":")[0] for said in warnings] == [
        "The target 'strength' orders the training rows as a feature does (age)",
        "The target 'churn' orders the training rows as a feature does (city=in, city=out)",
    ]
    usual = load(f"csv:{save(wide())}", **{**OPTIONS, "targets": ["strength", "price"], "kinds": None})
    assert usual.data_warnings() == []
    small = load(f"csv:{save(wide().head(20))}", targets=["strength", "price"], ignore=OPTIONS["ignore"])
    few, uncertain = small.data_warnings()
    assert few.startswith("The number of test rows is 4")
    assert uncertain.startswith("Fewer than 5 validation rows have a label of strength, price: a noise")


def test_names_of_columns_may_be_given_in_another_unicode_form(save):
    table = wide().rename(columns={"strength": "force\u0301", "age": "a  g\ne", "city": "ci\u0301ty"})
    data = load(
        f"csv:{save(table)}",
        targets="forc\u00e9",
        ignore=["id", "smiles", "patient", "price"],
        kinds={"a g e": "number", "cíty": "category"},
        units={"force\u0301": "N"},
    )
    assert {name: target.unit for name, target in data.targets.items()} == {"forcé": "N"}
    assert [feature.name for feature in data.inputs.encoding.features][:3] == ["fold", "a g e", "cíty"]


def test_a_file_of_one_column_asks_for_its_delimiter(save):
    with pytest.raises(ValueError, match="has the one column 'a b y'. Is it delimited by something else"):
        load(f"csv:{save('a b y' + chr(10) + '1 2 3' + chr(10))}")


def test_a_file_alone_needs_no_options_where_its_labels_are_y(save):
    data = load(f"csv:{save(wide()[['age', 'city', 'grade']].rename(columns={'grade': 'y'}))}")
    assert data.tasks == ("y",)
    assert list(data.rows) == ["train", "val", "test"]


def test_metadata_of_macos_is_refused_by_name(tmp_path):
    (tmp_path / "._wide.csv").write_bytes(b"\x00\x05\x16\x07\x00\x02")
    with pytest.raises(ValueError, match="._wide.csv is the metadata that macOS keeps"):
        load(f"csv:{tmp_path / '._wide.csv'}", targets="a")


def test_classes_of_one_file_are_each_target_s_own(save):
    table = wide()[["age", "city", "churn"]].assign(colour=np.array(["no", "maybe", "yes"])[np.arange(ROWS) % 3])
    data = load(f"csv:{save(table)}", targets=["churn", "colour"])
    assert families(data) == {"churn": Binary(("no", "yes")), "colour": Classes(("maybe", "no", "yes"))}


def test_compressed_bytes_need_no_ending(tmp_path):
    (tmp_path / "t.csv").write_bytes(gzip.compress(b"x,y\n" + b"".join(b"%d,%d.5\n" % (i, i) for i in range(20))))
    assert len(load(f"csv:{tmp_path / 't.csv'}").inputs) == 20
