import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bmtl
from bmtl.inference.record import StepRecord, history_arrays
from tests.inference.programs import NAN, Regressions, batch, nothing


def a_record(gradients, alpha=None, step=0, **options):
    """A record of tasks with these gradients (K, P); a row of NaN is an absent task."""
    gradients = torch.as_tensor(np.asarray(gradients), dtype=torch.float64)
    k = len(gradients)
    active = ~gradients[:, 0].isnan()
    alpha = torch.full((k,), torch.nan) if alpha is None else torch.as_tensor(alpha)
    return StepRecord(
        **{
            "step": step,
            "epoch": 1,
            "names": tuple(f"t{i}" for i in range(k)),
            "losses": torch.ones(k).double(),
            "shared": 0.0,
            "active": active,
            "weights": torch.where(active, 2.0, torch.nan).double(),
            "weights_heads": torch.ones(k).double(),
            "alpha": torch.where(active, alpha.double(), torch.nan),
            "gram": gradients @ gradients.T,
            **options,
        }
    )


def uncompared(step, **options):
    return a_record(np.ones((3, 1)), step=step, gram=None, **options)


def gradients_of(seed, k, decades):
    random = np.random.default_rng(seed)
    return random.normal(size=(k, k + 2)) * 10.0 ** random.uniform(-decades, decades, size=(k, 1))


@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(0, 15))
@settings(max_examples=40, deadline=None)
def test_what_follows_from_the_gram_is_what_follows_from_the_gradients(seed, k, decades):
    gradients = gradients_of(seed, k, decades)
    alpha = np.random.default_rng(seed).uniform(0.1, 3, size=k) / np.linalg.norm(gradients, axis=1)
    arrays = history_arrays([a_record(gradients, alpha)])
    norms = np.linalg.norm(gradients, axis=1)
    units = gradients / norms[:, None]
    update = alpha @ gradients
    np.testing.assert_allclose(arrays["cosine"][0], units @ units.T, atol=1e-6)
    assert arrays["projection"][0] == pytest.approx((units @ update / np.linalg.norm(update)).min(), abs=1e-9)
    i, j = 0, k - 1
    expected = 2 * norms[i] * norms[j] / (norms[i] ** 2 + norms[j] ** 2)
    assert arrays["magnitude_similarity"][0, i, j] == pytest.approx(expected, rel=1e-6)


@given(st.integers(0, 10_000), st.integers(2, 12))
@settings(max_examples=30, deadline=None)
def test_magnitude_similarity_is_symmetric_and_at_most_1_on_the_diagonal(seed, k):
    found = history_arrays([a_record(gradients_of(seed, k, 3))])["magnitude_similarity"][0]
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(np.diagonal(found), 1)
    assert (found > 0).all()
    assert (found <= 1).all()


def test_the_projection_is_1_for_one_direction_and_negative_where_a_task_is_harmed():
    same, harmed = [[1.0, 0.0], [3.0, 0.0]], [[1.0, 0.0], [-3.0, 0.0]]
    arrays = history_arrays([a_record(same), a_record(harmed), a_record(harmed, [3.0, 1.0])])
    assert arrays["projection"][:2].tolist() == [1, -1]
    assert math.isnan(arrays["projection"][2])  # the two add up to nothing


def test_the_projection_is_left_out_where_the_update_is_a_direction_of_its_own():
    records = [a_record(np.eye(2)), a_record(np.eye(2), combination=False)]
    assert history_arrays(records)["projection"] == pytest.approx([math.sqrt(0.5), NAN], nan_ok=True)


def test_absent_tasks_and_zero_gradients_have_no_say():
    gradients = np.array([[1.0, 0.0], [NAN, NAN], [1.0, 1.0], [0.0, 0.0]])
    arrays = history_arrays([a_record(gradients, [1.0, 1.0, 0.0, 1.0])])
    assert arrays["projection"][0] == pytest.approx(math.sqrt(0.5))
    measured = np.array([True, False, True, False])
    assert (np.isfinite(arrays["cosine"][0]) == np.outer(measured, measured)).all()
    assert np.isnan(arrays["magnitude_similarity"][0, 1]).all()
    assert arrays["magnitude_similarity"][0, 0, 3] == 0


def test_the_effective_learning_rate_is_the_optimizers_times_the_weight():
    svi = bmtl.BalancedSVI(Regressions(), nothing, functools.partial(torch.optim.SGD, lr=0.1), "si")
    svi.step(*batch(missing=False))
    svi.optimizer.param_groups[0]["lr"] = 0.05
    svi.step(*batch(missing=False))
    arrays = history_arrays(svi.history)
    assert arrays["lr"].tolist() == [0.1, 0.05]
    np.testing.assert_array_equal(arrays["effective_lr"], arrays["lr"][:, None] * arrays["weights"])


def test_a_run_that_compared_nothing_has_no_matrices():
    arrays = history_arrays([uncompared(0), uncompared(1)])
    assert not arrays.keys() & {"gram", "cosine", "magnitude_similarity", "projection"}
    assert max(values.ndim for values in arrays.values()) == 2


def test_steps_without_a_comparison_are_nan_among_those_with_one():
    arrays = history_arrays([uncompared(0), a_record(np.eye(3), step=1), uncompared(2)])
    for name in ("gram", "cosine", "magnitude_similarity"):
        assert np.isnan(arrays[name][[0, 2]]).all()
        np.testing.assert_array_equal(arrays[name][1], np.eye(3) if name != "magnitude_similarity" else np.ones((3, 3)))


def test_probed_cosines_stand_in_place_of_the_geometrys():
    records = [
        a_record(np.ones((3, 1)), probed={("t2", "t0"): -0.5}),
        a_record(np.ones((3, 1)), step=1),
        uncompared(2, probed={("t2", "t0"): 0.25}),
    ]
    cosine = history_arrays(records)["cosine"]
    for pair in ((0, 2), (2, 0)):
        assert cosine[(..., *pair)] == pytest.approx([-0.5, NAN, 0.25], nan_ok=True)
    assert cosine[:, 0, 1] == pytest.approx([1, 1, NAN], nan_ok=True)
    only = history_arrays(records[2:])
    assert "gram" not in only
    assert np.isfinite(only["cosine"]).sum() == 2


def test_an_empty_history_has_no_arrays():
    with pytest.raises(ValueError, match="no step"):
        history_arrays([])
