from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from bmtl.datasets import MultiTaskData
from bmtl.datasets.molecules import Molecules
from bmtl.evaluation import metrics
from bmtl.experiments import METHODS, Budget, load_fitted, run
from bmtl.models.neural_linear import PENALTIES, Posterior, stacked
from tests.experiments.toys import BUDGET, mixed, ragged, toy

RANDOM = np.random.default_rng(0)
H = RANDOM.normal(size=(40, 5)) @ np.diag([3.0, 1.0, 1.0, 0.3, 1e-3]) + 2.0
R = H @ [0.3, -1.0, 0.0, 1.0, 0.0] + 4.0 + 0.5 * RANDOM.normal(size=40)
NEURAL_LINEAR = METHODS["neural-linear"]


def test_the_posterior_is_that_of_a_gaussian_process_with_a_linear_kernel():
    """Mean and variance at new rows, by the function-space formula, the flat intercept taken out by centring."""
    found = Posterior.fit(H, R)
    new = RANDOM.normal(size=(7, 5)) + 2
    mean, spread = found.predict(new)
    centre = H.mean(0)
    kernel = (H - centre) @ (H - centre).T / found.penalty
    cross = (new - centre) @ (H - centre).T / found.penalty
    solved = np.linalg.solve(kernel + np.eye(40), np.column_stack([R - R.mean(), cross.T]))
    np.testing.assert_allclose(mean, R.mean() + cross @ solved[:, 0], rtol=1e-8)
    prior = ((new - centre) ** 2).sum(1) / found.penalty
    np.testing.assert_allclose(spread, prior - np.einsum("nm,mn->n", cross, solved[:, 1:]) + 1 / 40, rtol=1e-6)


def test_the_penalty_has_the_highest_evidence():
    centred = H - H.mean(0)

    def evidence(penalty):
        cov = np.eye(40) + centred @ centred.T / penalty
        noise = (R - R.mean()) @ np.linalg.solve(cov, R - R.mean()) / 40
        return stats.multivariate_normal(np.zeros(40), noise * cov).logpdf(R - R.mean()), noise

    found = Posterior.fit(H, R)
    best = max(PENALTIES, key=lambda penalty: evidence(penalty)[0])
    assert found.penalty == pytest.approx(best)
    assert found.noise == pytest.approx(evidence(best)[1], rel=1e-8)
    assert Posterior.fit(H, R, 3.0).penalty == 3.0


def test_more_features_than_rows_and_constant_features():
    wide = np.column_stack([RANDOM.normal(size=(20, 50)), np.ones(20)])
    found = Posterior.fit(wide, wide[:, 0])
    assert np.isfinite(found.mean).all()
    assert (found.predict(wide)[1] >= 0).all()


def test_the_better_prediction_has_the_higher_weight():
    r = RANDOM.normal(size=2000)
    good, poor, none = r + 0.1 * RANDOM.normal(size=2000), r + RANDOM.normal(size=2000), RANDOM.normal(size=2000)
    a, b = stacked(r, good, poor)
    assert a > 0.9
    assert 0 <= b <= 1 - a + 1e-9
    assert sum(stacked(none, r, poor)) < 0.2  # neither says anything of it
    assert stacked(r[:1], r[:1], r[:1]) == (0.5, 0.5)


def test_a_run_is_closed_and_goes_through_a_file(tmp_path):
    data = toy()
    tree = run(data, NEURAL_LINEAR, 0, replace(BUDGET, widths=(16,), epochs=20, lr=0.02), tmp_path, keep_model=True)
    fitted = load_fitted(tmp_path)
    ((model, _),) = fitted.parts[0]
    assert model.closed.all()
    assert "support" not in str(model.state_dict().keys())
    predicted = fitted.predictions(data.inputs.x[data.rows["test"]])
    np.testing.assert_allclose(tree["test/predictive_mean/y_mass"], predicted["mass"].mean, rtol=1e-5)
    assert (predicted["mass"].epistemic > 0).all()
    # The variance's scale is fitted to the validation rows.
    prediction = fitted.predictions(data.inputs.x[data.rows["val"]])["mass"]
    labels = data.labels("val")["mass"]
    total = prediction.aleatoric + prediction.epistemic
    assert 0.3 < np.mean((labels - prediction.mean) ** 2 / total) < 3
    assert np.isfinite(metrics.nll(tree)["nll"]).all()


def test_far_from_the_training_rows_features_stay_in_their_range(tmp_path):
    data = toy()
    run(data, NEURAL_LINEAR, 0, BUDGET, tmp_path, keep_model=True)
    fitted = load_fitted(tmp_path)
    far = fitted.predictions(np.full((1, 3), 1e6))["mass"]
    near = fitted.predictions(np.full((1, 3), 100.0))["mass"]  # both are at the bound of standardised features
    assert far.mean == pytest.approx(near.mean, rel=1e-5)


def test_classes_and_targets_with_rows_of_their_own_keep_their_heads(tmp_path):
    without = mixed().subset(["kind", "sign"])
    for data, closed in ((mixed(), [True, False, False]), (ragged(), [False, False]), (without, [False, False])):
        run(data, NEURAL_LINEAR, 0, BUDGET, tmp_path, keep_model=True)
        ((model, _),) = load_fitted(tmp_path).parts[0]
        assert model.closed.tolist() == closed


def test_inputs_that_are_no_table_have_their_heads_replaced_too(tmp_path):
    """The name of the method would be wrong otherwise, and nothing would say so."""
    random = np.random.default_rng(0)
    atoms = random.choice([1, 6, 8], size=(60, 3))
    atoms[::4, 2] = 0
    places = np.cumsum(random.uniform(0.9, 1.2, size=(60, 3, 3)), axis=1)
    y = (atoms == 6).sum(1) + 0.1 * random.normal(size=60)
    rows = {"train": np.arange(30), "val": np.arange(30, 45), "test": np.arange(45, 60)}
    data = MultiTaskData.from_arrays("molecules", Molecules(atoms, places), {"y": y}, rows)
    tree = run(data, NEURAL_LINEAR, 0, Budget(epochs=2, widths=(8, 8), draws=5), tmp_path, keep_model=True)
    fitted = load_fitted(tmp_path)
    ((model, _),) = fitted.parts[0]
    assert model.closed.all()
    again = fitted.predictions({"Z": atoms[rows["test"]], "pos": places[rows["test"]]})["y"]
    np.testing.assert_allclose(tree["test/predictive_mean/y_y"], again.mean, rtol=1e-4, atol=1e-5)
    assert (again.epistemic > 0).all()
