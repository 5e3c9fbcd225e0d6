"""The option `censored` of recipes: labels at the bounds of their family."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

import bmtl
from bmtl.models import mlp, recipes
from bmtl.models.spec import DataSpec
from bmtl.targets import Binary, Real

Y = torch.tensor([5.0, 5.0, 6.0, 7.5, 5.0, 9.0])
X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
RECIPES = [
    (recipes.evidential, {"objective": "nll"}),
    (recipes.evidential, {"objective": "nll+lipschitz"}),
    (recipes.homoscedastic, {"likelihood": "student-t"}),
    (recipes.homoscedastic, {}),
    (recipes.gaussian, {}),
]


def built(recipe, family, **options):
    spec = DataSpec({"y": family}, 6, {"kind": "table", "width": 3}, labels={"y": Y})
    generator = torch.Generator().manual_seed(0)
    return recipe(spec, trunk=lambda: mlp(3, (4,), generator=generator), generator=generator, **options)


@pytest.mark.parametrize(("recipe", "options"), RECIPES)
def test_labels_at_a_bound_count_with_the_probability_beyond_it(recipe, options):
    family = Real(bounds=(5.0, None))
    exact = bmtl.draw(*built(recipe, family, **options), X, {"y": Y}, num_draws=1).targets["y"]
    censored = bmtl.draw(*built(recipe, family, censored=True, **options), X, {"y": Y}, num_draws=1).targets["y"]
    assert exact.law is not None
    assert censored.law is None
    at = (Y == 5.0).numpy()
    np.testing.assert_allclose(censored.log_likelihood[:, ~at], exact.log_likelihood[:, ~at], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.exp(censored.log_likelihood[0, at]), exact.pit[at], rtol=1e-4)
    assert (censored.mean >= 5.0).all()


def test_the_mean_is_that_of_the_clipped_label():
    model, guide = built(recipes.gaussian, Real(bounds=(5.0, None)), censored=True)
    plain, plain_guide = built(recipes.gaussian, Real(bounds=(5.0, None)))
    law = bmtl.draw(plain, plain_guide, X, num_draws=1).targets["y"].law.parameters
    loc, scale = law["loc"][0], np.broadcast_to(law["scale"], law["loc"].shape)[0]
    z = (loc - 5.0) / scale
    expected = 5.0 + scale * (z * norm.cdf(z) + norm.pdf(z))
    np.testing.assert_allclose(bmtl.draw(model, guide, X, num_draws=1).targets["y"].mean, expected, rtol=1e-4)


def test_it_needs_a_target_with_bounds():
    for family in (Real(), Binary()):
        with pytest.raises(ValueError, match=r"Real\(bounds=\(lower, upper\)\), and none of \['y'\] has"):
            built(recipes.homoscedastic, family, censored=True)
