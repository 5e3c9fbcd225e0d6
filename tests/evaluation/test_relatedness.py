import numpy as np
import pytest
import xarray as xr

from bmtl.evaluation.plots import relatedness_matrix
from bmtl.evaluation.relatedness import ANCHOR, nearest, relatedness
from tests.evaluation import trees

TASKS = ("amazon", "dslr", "webcam")


@pytest.fixture
def tree(make_tree):
    """A run whose draws of the weights follow a Dirichlet law with known means; the anchor has half."""
    concentration = np.array([[0, 1, 3], [1, 0, 9], [2, 2, 0]])
    random = np.random.default_rng(0)
    share = np.zeros((4000, 3, 4))
    for t, row in enumerate(concentration):
        others = np.flatnonzero(row)
        share[:, t, others] = 0.5 * random.dirichlet(row[others], size=4000)
    share[..., 3] = 0.5
    built = trees.tree(
        posterior={"relatedness_w": share},
        dims={"relatedness_w": ("task", "source")},
        coords={"task": TASKS, "source": [*TASKS, ANCHOR]},
        method="VMTL",
    )
    return built, share


def test_means_and_intervals_are_those_of_the_draws(tree):
    built, share = tree
    found = relatedness(built, level=0.9)
    np.testing.assert_allclose(found["mean"], share.mean(0))
    np.testing.assert_allclose(found["mean"].sum("source"), 1.0)
    np.testing.assert_allclose(found["low"], np.quantile(share, 0.05, axis=0))
    np.testing.assert_allclose(found["high"], np.quantile(share, 0.95, axis=0))
    # The share of webcam in dslr's prior is half a Beta(9, 1), of mean 0.45.
    assert found["mean"].sel(task="dslr", source="webcam").item() == pytest.approx(0.45, abs=0.005)
    assert (np.diagonal(found["high"].values[:, :3]) == 0).all()


def test_the_nearest_is_the_task_with_the_largest_share_however_large_the_anchor(tree):
    built, share = tree
    found = nearest(built)
    assert found["nearest"].values.tolist()[:2] == ["webcam", "webcam"]
    assert found["share_of_draws"].sel(task="dslr").item() == pytest.approx((share[:, 1, 2] > share[:, 1, 0]).mean())
    assert found["share_of_draws"].sel(task="webcam").item() == pytest.approx(0.5, abs=0.03)


def test_chains_count_together(tree):
    built, _ = tree
    group = built["posterior"].to_dataset()
    split = xr.concat(
        [group.isel(draw=slice(0, 2000)), group.isel(draw=slice(2000, 4000)).assign_coords(draw=group["draw"][:2000])],
        "chain",
    )
    two = xr.DataTree.from_dict({"posterior": split.assign_coords(chain=[0, 1])})
    np.testing.assert_allclose(relatedness(two)["low"], relatedness(built)["low"])


def test_the_heat_map_shows_means_and_intervals(tree):
    built, share = tree
    axes = relatedness_matrix(built).axes[0]
    drawn = axes.images[0].get_array()
    np.testing.assert_allclose(drawn.data, share.mean(0))
    assert np.ma.getmaskarray(drawn)[:, :3].tolist() == np.eye(3, dtype=bool).tolist()
    assert [label.get_text() for label in axes.get_yticklabels()] == list(TASKS)
    assert [label.get_text() for label in axes.get_xticklabels()] == [*TASKS, ANCHOR]
    assert len(axes.texts) == 9
    low, high = np.quantile(share[:, 1, 2], [0.025, 0.975])
    assert axes.texts[4].get_text() == f"{share[:, 1, 2].mean():.2f}\n{low:.2f} to {high:.2f}"
    assert axes.get_title(loc="left") == "VMTL: prior of w, mean and 95 % of the draws"


def test_many_tasks_have_no_numbers():
    names = [f"t{i}" for i in range(15)]
    share = np.full((2, 15, 16), 1 / 16)
    built = trees.tree(
        posterior={"relatedness_z": share},
        dims={"relatedness_z": ("task", "source")},
        coords={"task": names, "source": [*names, ANCHOR]},
    )
    assert not relatedness_matrix(built, latent="z").axes[0].texts


def test_what_is_missing_or_no_share_is_told(tree, make_tree):
    built, _ = tree
    with pytest.raises(ValueError, match=r"no relatedness_z .*\['relatedness_w'\]"):
        relatedness(built, latent="z")
    with pytest.raises(ValueError, match="no relatedness_w"):
        nearest(make_tree())
    with pytest.raises(ValueError, match="level is 1"):
        relatedness(built, level=1)
    wrong = trees.tree(
        posterior={"relatedness_w": np.full((2, 2, 3), 0.5)},
        dims={"relatedness_w": ("task", "source")},
        coords={"task": ["a", "b"], "source": ["a", "b", ANCHOR]},
    )
    with pytest.raises(ValueError, match="do not sum to one"):
        relatedness(wrong)
