import numpy as np
import pytest

from bmtl.evaluation.images import PredictedImages
from bmtl.evaluation.plots.images import COLUMNS, image_maps
from bmtl.targets import Classes, Real

RANDOM = np.random.default_rng(0)
SHAPE = (2, 4, 6)


def images(**changes):
    given = {
        "rows": np.array([3, 8]),
        "pictures": RANDOM.integers(0, 256, (*SHAPE, 3)).astype(np.uint8),
        "labels": RANDOM.normal(size=SHAPE),
        "prediction": RANDOM.normal(size=SHAPE),
        "aleatoric": RANDOM.random(SHAPE),
    }
    return PredictedImages(**given | changes)


def test_a_row_for_each_target_of_each_image():
    labels = RANDOM.integers(-1, 2, SHAPE)
    shown = {"depth": images(), "kind": images(labels=labels, prediction=np.maximum(labels, 0))}
    figure = image_maps(shown, {"depth": Real(), "kind": Classes(("wall", "floor"))})
    axes = np.reshape(figure.axes, (4, 5))
    assert [panel.get_title(loc="left") for panel in axes[0]] == list(COLUMNS)
    assert [row[1].get_ylabel() for row in axes] == ["depth", "kind"] * 2
    assert all(len(panel.images) == 1 for panel in axes.flat)
    np.testing.assert_array_equal(axes[2, 0].images[0].get_array(), shown["depth"].pictures[1])


def test_an_uncertainty_that_is_the_same_everywhere_is_a_number():
    figure = image_maps({"depth": images(aleatoric=np.full(SHAPE, 0.25))}, {"depth": Real()}, most=1)
    last = figure.axes[-1]
    assert not last.images
    assert [text.get_text() for text in last.texts] == ["0.5\neverywhere"]


def test_without_an_image_there_is_nothing_to_draw():
    with pytest.raises(ValueError, match="no image"):
        image_maps({}, {})
