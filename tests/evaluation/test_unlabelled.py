import numpy as np
import pytest

from bmtl.evaluation.results import PredictedRows, ReportedTarget, to_datatree
from bmtl.targets import Classes, Count, Prediction

TARGETS = {"n": ReportedTarget(Count()), "kind": ReportedTarget(Classes(("cat", "dog", "cow")))}


def rows(count, **fields):
    return PredictedRows(Prediction(np.zeros((4, count)), **fields))


def test_all_fields_of_rows_without_labels():
    given = {
        "n": rows(5, mean=np.arange(5.0), aleatoric=np.ones(5), epistemic=np.full(5, 2.0)),
        "kind": rows(5, probability=np.full((5, 3), 1 / 3)),
    }
    tree = to_datatree({"predictions": given}, TARGETS)
    assert tree["predictions/y_n"].dims == ("chain", "draw", "row")
    assert tree["predictions_mean/y_n"].values.tolist() == [0, 1, 2, 3, 4]
    assert tree["predictions_probability/y_kind"].dims == ("row", "class_kind")
    assert tree["predictions_probability/class_kind"].values.tolist() == ["cat", "dog", "cow"]
    assert (tree["predictions_uncertainty/total_n"] == 3).all()
    assert "observed_data" not in tree.children


def test_targets_with_inputs_of_their_own_have_rows_of_their_own():
    tree = to_datatree({"predictions": {"n": rows(5), "kind": rows(3)}}, TARGETS)
    assert tree["predictions/y_n"].sizes["row_n"] == 5
    assert tree["predictions/y_kind"].sizes["row_kind"] == 3


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="'predictions' has a target 'x'"):
        to_datatree({"predictions": {"x": rows(5)}}, TARGETS)
    with pytest.raises(ValueError, match=r"mean of 'n' has shape \(4,\); expected 5 rows"):
        to_datatree({"predictions": {"n": rows(5, mean=np.zeros(4))}}, TARGETS)
