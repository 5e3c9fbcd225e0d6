import numpy as np
import pytest
from scipy import stats

from bmtl.targets import Classes, Count, Law, Pixels, Prediction, Real, Scaler, Scored, TimeToEvent, Vector
from bmtl.targets.laws import distribution

SCALER = Scaler(np.array(3.0), np.array(2.0))


def student(rows=4, draws=5, seed=0, scale=1.0):
    random = np.random.default_rng(seed)
    return Law(
        "student-t",
        {"loc": random.normal(size=(draws, rows)), "scale": np.full((draws, 1), scale), "df": np.full((1, rows), 5.0)},
    )


def whole(rows=4, draws=5, seed=0):
    random = np.random.default_rng(seed)
    return Prediction(
        draws=random.normal(size=(draws, rows)),
        mean=random.normal(size=rows),
        law=student(rows, draws, seed),
        aleatoric=np.ones(rows),
        epistemic=np.full(rows, 0.5),
        log_likelihood=random.normal(size=(draws, rows)),
        pit=random.uniform(size=rows),
    )


def test_everything_is_in_units():
    before = whole()
    after = before.in_units(Real(), SCALER)
    np.testing.assert_array_equal(after.draws, 3 + 2 * before.draws)
    np.testing.assert_array_equal(after.mean, 3 + 2 * before.mean)
    np.testing.assert_array_equal(after.aleatoric, 4 * before.aleatoric)
    np.testing.assert_array_equal(after.epistemic, 4 * before.epistemic)
    np.testing.assert_allclose(after.log_likelihood, before.log_likelihood - np.log(2))
    np.testing.assert_array_equal(after.pit, before.pit)
    y = np.linspace(-1, 1, 4)
    np.testing.assert_allclose(distribution(after.law).cdf(3 + 2 * y), distribution(before.law).cdf(y), rtol=1e-12)
    np.testing.assert_allclose(
        distribution(after.law).log_prob(3 + 2 * y), distribution(before.law).log_prob(y) - np.log(2)
    )


def test_densities_of_exact_labels_are_divided_and_probabilities_are_not():
    """Against scipy: the likelihood of an interval is a probability in any unit."""
    z = np.array([[0.3, 0.3], [-1.0, np.inf], [-np.inf, 0.2], [0.0, 1.0]])
    likelihood = np.log([stats.norm.pdf(0.3), stats.norm.sf(-1), stats.norm.cdf(0.2), stats.norm.cdf(1) - 0.5])
    after = Prediction(np.zeros((1, 4)), log_likelihood=likelihood[None]).in_units(Real(censored=True), SCALER, z)
    y = SCALER.inverse(z)
    law = stats.norm(3, 2)
    expected = np.log([law.pdf(y[0, 0]), law.sf(y[1, 0]), law.cdf(y[2, 1]), law.cdf(y[3, 1]) - law.cdf(y[3, 0])])
    np.testing.assert_allclose(after.log_likelihood[0], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("family", "law"),
    [
        (Count(), Law("poisson", {"rate": np.full((5, 4), 1.96)})),
        (Count(), Law("negative-binomial", {"mean": np.full((5, 4), 1.96), "concentration": np.ones((1, 1))})),
        (Classes(), None),
        (Pixels(Count()), None),
    ],
    ids=["poisson", "negative binomial", "classes", "pixels of counts"],
)
def test_what_is_never_scaled_is_never_unscaled(family, law):
    """Whatever scaler is given: a count of 1.96 on average reads 1.96."""
    before = Prediction(np.full((5, 4), 2.0), mean=np.full(4, 1.96), law=law, log_likelihood=np.zeros((5, 4)))
    assert before.in_units(family, SCALER) is before


@pytest.mark.parametrize("family", [Real(), TimeToEvent(), Vector(("x", "y"))], ids=lambda family: family.name)
def test_the_identity_changes_nothing(family):
    before = whole()
    assert before.in_units(family, Scaler.identity()) is before
    assert before.in_units(family, Scaler(np.zeros(2), np.ones(2))) is before


def test_a_count_s_law_on_a_standardised_target_is_refused():
    law = Law("poisson", {"rate": np.ones((5, 4))})
    with pytest.raises(
        ValueError, match="'poisson' is not of numbers that can be standardised. Leave the target as it is"
    ):
        Prediction(np.zeros((5, 4)), law=law).in_units(Real(), SCALER)


def test_vectors_have_a_unit_a_component():
    scaler = Scaler(np.array([1.0, -1.0]), np.array([2.0, 10.0]))
    random = np.random.default_rng(0)
    law = Law("multivariate-normal", {"loc": random.normal(size=(5, 4, 2)), "scale_tril": np.eye(2)[None, None]})
    y = random.normal(size=(4, 2))
    y[1, 0] = np.nan
    mixture = distribution(law)
    before = Prediction(
        mixture.sample(6, 0),
        mean=mixture.mean(),
        law=law,
        aleatoric=np.ones(4),
        log_likelihood=mixture.component_log_prob(y),
    )
    after = before.in_units(Vector(("x", "y")), scaler, y)
    np.testing.assert_allclose(after.draws, scaler.inverse(before.draws))
    assert after.aleatoric is not None
    np.testing.assert_array_equal(after.aleatoric, np.ones(4))
    np.testing.assert_allclose(after.log_likelihood, distribution(after.law).component_log_prob(scaler.inverse(y)))


def test_rows_of_a_prediction():
    before = whole()
    for chosen in (np.array([2, 0]), np.array([True, False, True, False]), slice(1, 3)):
        after = before.take(chosen)
        at = np.arange(4)[chosen]
        assert after.rows == len(at)
        np.testing.assert_array_equal(after.draws, before.draws[:, at])
        np.testing.assert_array_equal(after.log_likelihood, before.log_likelihood[:, at])
        for field in ("mean", "aleatoric", "epistemic", "pit"):
            np.testing.assert_array_equal(getattr(after, field), getattr(before, field)[at])
        np.testing.assert_array_equal(distribution(after.law).cdf(0.2), distribution(before.law).cdf(0.2)[at])
    assert Prediction(np.zeros((0, 3))).take(slice(0, 2)).rows == 2


def test_a_law_that_is_the_same_for_all_rows_is_one_of_each():
    """A model of a mean alone has parameters without rows."""
    law = Law("student-t", {"loc": np.array([[1.0], [2.0]]), "scale": np.ones((1, 1)), "df": np.full((1, 1), np.inf)})
    prediction = Prediction(np.zeros((2, 3)), law=law)
    y = np.array([0.0, 1.0, 2.0])
    rows = Scored(y, prediction, Real(), SCALER)
    expected = (stats.norm.cdf(y - 1) + stats.norm.cdf(y - 2)) / 2
    np.testing.assert_allclose(rows.predictive().cdf(y), expected)
    assert Real().score("crps").compute(rows) > 0
    chosen = prediction.take(np.array([True, False, True]))
    np.testing.assert_allclose(Scored(y[[0, 2]], chosen, Real(), SCALER).predictive().cdf(y[[0, 2]]), expected[[0, 2]])
    both = Prediction.concatenate([prediction, chosen])
    assert both.law.size == 5
    after = prediction.in_units(Real(), SCALER)
    np.testing.assert_allclose(Scored(y, after, Real(), SCALER).predictive().cdf(3 + 2 * y), expected)


def test_which_fields_there_are():
    assert whole().has("predictive")
    assert not whole().has("probability")
    drawn = Prediction(np.zeros((2, 3)))
    assert drawn.has("draws")
    assert drawn.has("predictive")
    nothing = Prediction(np.zeros((0, 3)))
    assert not nothing.has("draws")
    assert not nothing.has("predictive")
    assert nothing.rows == 3


def test_parts_go_together_row_by_row():
    first, second = whole(4), whole(3, seed=1)
    both = Prediction.concatenate([first, second])
    np.testing.assert_array_equal(both.draws, np.concatenate([first.draws, second.draws], axis=1))
    np.testing.assert_array_equal(both.pit, np.concatenate([first.pit, second.pit]))
    expected = np.concatenate([distribution(part.law).cdf(0.1) for part in (first, second)])
    np.testing.assert_array_equal(distribution(both.law).cdf(0.1), expected)
    assert Prediction.concatenate([first, Prediction(np.zeros((0, 2)))]).mean is None
    with pytest.raises(ValueError, match="no prediction"):
        Prediction.concatenate([])


def test_pixels_are_rows_of_their_own():
    random = np.random.default_rng(0)
    image = (2, 3, 4)
    law = Law("laplace", {"loc": random.normal(size=(5, *image)), "scale": np.full((5, 1, 1, 1), 2.0)})
    before = Prediction(
        random.normal(size=(5, *image)),
        mean=random.normal(size=image),
        probability=random.uniform(size=(*image, 3)),
        law=law,
        aleatoric=np.ones(2),
        log_likelihood=random.normal(size=(5, 2)),
        pit=random.uniform(size=image),
    )
    after = before.flatten(image)
    assert after.rows == 24
    np.testing.assert_array_equal(after.mean, before.mean.ravel())
    np.testing.assert_array_equal(after.probability, before.probability.reshape(24, 3))
    np.testing.assert_array_equal(after.law.parameters["loc"], law.parameters["loc"].reshape(5, 24))
    np.testing.assert_array_equal(after.law.parameters["scale"], np.full((5, 24), 2.0))
    assert after.aleatoric is None  # of an image, and not of its pixels
    assert after.log_likelihood is None
