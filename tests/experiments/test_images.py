"""Targets of images from data to files: what is kept of predictions, in chunks, of several networks, and as maps."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from bmtl import experiments
from bmtl.datasets import Images, MultiTaskData
from bmtl.evaluation import metrics, results
from bmtl.evaluation.images import images_of
from bmtl.evaluation.parts import scored
from bmtl.evaluation.report import report
from bmtl.experiments import Budget, load_fitted, reduced, write_maps
from bmtl.experiments.reduced import draw_reduced
from bmtl.inference import draw
from bmtl.models import TaskModel, likelihood_of
from bmtl.models.networks import unet_trunk
from bmtl.models.representations import MCDropout
from bmtl.targets import Classes, Pixels, Real, UnitVector, Vector
from bmtl.targets.metrics.dense import confusion_matrix, mean_iou

N, HEIGHT, WIDTH = 12, 7, 9
BUDGET = Budget(epochs=1, batch_size=3, widths=(4, 6), draws=3)


@pytest.fixture(scope="module")
def data():
    """Images whose red is the class and whose green the depth; void pixels, and a row without depth."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (N, HEIGHT, WIDTH, 3), dtype=np.uint8)
    part = images[..., 0].astype(np.int64) // 90
    part[:, 0] = -1
    depth = 1 + images[..., 1] / 100
    depth[4], depth[:, 3, 3] = np.nan, np.nan
    normal = rng.normal(size=(N, HEIGHT, WIDTH, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    normal[:, 2] = np.nan
    vector = rng.normal(size=(N, HEIGHT, WIDTH, 2)) * 3
    vector[:, :, 1] = np.nan
    return MultiTaskData.from_arrays(
        "coloured",
        Images(images),
        {"part": part, "depth": depth, "normal": normal, "vector": vector},
        {"train": np.arange(6), "val": np.arange(6, 8), "test": np.arange(8, N)},
        families={
            "part": Pixels(Classes(("low", "middle", "high"))),
            "depth": Pixels(Real(positive=True)),
            "normal": Pixels(UnitVector()),
            "vector": Pixels(Vector(("x", "y"), common_unit=True)),
        },
        units={"depth": "m", "vector": "px"},
        scaling="none",
    )


@pytest.fixture(scope="module")
def model(data):
    g = torch.Generator().manual_seed(0)
    trunk = unet_trunk(data.inputs.describe(), widths=(4, 6), generator=g, mc_dropout=0.3)
    likelihoods = {name: likelihood_of(target.family) for name, target in data.targets.items()}
    return TaskModel(trunk, trunk.width, likelihoods, 6, representation=MCDropout, generator=g)


def of_part(data, model, part="test", draws=4):
    guide = model.guide()
    return draw_reduced(data, part, lambda x, y: draw(model, guide, x, y, num_draws=draws, seed=3), draws, seed=0)[1]


def test_chunks_change_nothing(data, model, monkeypatch):
    """Draws of every chunk are of the same thinned networks, so that scores, samples and maps are those of all rows."""
    whole = of_part(data, model)
    monkeypatch.setattr(reduced, "ENTRIES", 1)
    single = of_part(data, model)
    for name, of in whole.items():
        mine, theirs = single[name].rows, of.rows
        assert mine.whole == pytest.approx(theirs.whole, rel=1e-4)
        np.testing.assert_array_equal(mine.rows, theirs.rows)
        np.testing.assert_allclose(mine.labels, theirs.labels)
        if theirs.prediction.mean is not None:
            np.testing.assert_allclose(mine.prediction.mean, theirs.prediction.mean, atol=1e-4)
        np.testing.assert_array_equal(mine.images.rows, theirs.images.rows)
        np.testing.assert_allclose(mine.images.epistemic, theirs.images.epistemic, atol=1e-4)


def test_scores_are_of_all_labelled_pixels(data, model):
    """Against the predictions of all rows at once, pixel by pixel."""
    x, y = data.tensors("test")
    found = of_part(data, model)
    whole = draw(model, model.guide(), x, y, num_draws=4, seed=3).targets
    labels = data.labels("test")
    guess = whole["part"].probability.argmax(-1)
    assert found["part"].rows.whole["mean_iou"] == pytest.approx(mean_iou(confusion_matrix(labels["part"], guess, 3)))
    error = np.abs(whole["depth"].mean - labels["depth"])
    assert found["depth"].rows.whole["mae"] == pytest.approx(np.nanmean(error), rel=1e-5)
    assert found["depth"].rows.whole["relative_error"] == pytest.approx(np.nanmean(error / labels["depth"]), rel=1e-5)
    cosine = (whole["normal"].mean * labels["normal"]).sum(-1) / np.linalg.norm(whole["normal"].mean, axis=-1)
    assert found["normal"].rows.whole["mean_angle"] == pytest.approx(
        np.nanmean(np.degrees(np.arccos(cosine))), rel=1e-4
    )
    length = np.linalg.norm(whole["vector"].mean - labels["vector"], axis=-1)
    assert found["vector"].rows.whole["distance"] == pytest.approx(np.nanmean(length), rel=1e-5)


def test_a_run_is_scored_and_kept_and_predicts_maps(data, tmp_path):
    """Each kind of run: balanced, single tasks, an ensemble, dropout; through files and the report."""
    method = replace(experiments.method("mc-dropout"), name="dropout", options={"noise": "fixed", "dropout": 0.5})
    tree = experiments.run(data, method, 0, BUDGET, tmp_path / "run", keep_model=True)
    again = results.read(tmp_path / "run" / "results.nc")
    rows = scored(again)
    assert rows["part"].family.name == "classes"
    assert metrics.score(again, "mean_iou").sel(task="part").item() == rows["part"].whole["mean_iou"]
    assert len(rows["depth"].labels) == rows["depth"].prediction.rows == 4 * (HEIGHT * WIDTH - 1)
    assert set(experiments.validation_scores(tree)) == set(data.tasks)
    images = images_of(again["test"])
    assert images["part"].pictures.shape == (3, HEIGHT, WIDTH, 3)
    assert images["normal"].epistemic.shape == (3, HEIGHT, WIDTH)
    assert images["vector"].epistemic.max() > 0
    page = report(tmp_path / "run").read_text(encoding="utf-8")
    assert "Predicted images: dropout" in page

    fitted = load_fitted(tmp_path / "run")
    raw = data.inputs.images[8:10, :5]  # of another size
    files = write_maps(fitted, raw, ["a", "b"], tmp_path / "maps", num_draws=2)
    assert len(files) == 1 + 2 * (3 + 3 * 4)
    assert {file.name for file in files} == {file.name for file in (tmp_path / "maps").iterdir()}
    classes = np.asarray(Image.open(tmp_path / "maps" / "a_part.png"))
    predictions = next(iter(fitted.image_predictions(raw, num_draws=2)))
    np.testing.assert_array_equal(classes, predictions["part"].probability[0].argmax(-1))
    depth = np.load(tmp_path / "maps" / "a_depth.npy", allow_pickle=False)
    np.testing.assert_allclose(depth, predictions["depth"].mean[0], rtol=1e-6)
    about = json.loads((tmp_path / "maps" / "targets.json").read_text())
    assert about["part"]["classes"] == ["low", "middle", "high"]
    assert about["depth"]["unit"] == "m"
    with pytest.raises(ValueError, match=r"Predictions of images \(part, depth, normal, vector\) fit no table"):
        fitted.table(raw)
    with pytest.raises(ValueError, match="Two images would be written to a_"):
        write_maps(fitted, raw, ["a", "a"], tmp_path / "maps")


@pytest.mark.parametrize("name", ["stl", "ensemble"])
def test_other_kinds_of_run_hold_the_same(data, name):
    method = experiments.method(name)
    if name == "ensemble":
        method = replace(method, ensemble_size=2)
    tree = experiments.run(data, method, 0, replace(BUDGET, draws=2), trust=True)
    rows = scored(tree)
    assert set(rows) == set(data.tasks)
    assert all(np.isfinite(list(of.whole.values())).all() for of in rows.values())
    if name == "ensemble":  # two networks disagree
        assert images_of(tree["test"])["depth"].epistemic.max() > 0


def test_mtan_is_a_method(data):
    options = {"noise": "fixed", "head": "conv", "trunk_options": {"width": 1 / 16}}
    method = experiments.Method("mtan", trunk="mtan", options=options)
    tree = experiments.run(data, method, 0, replace(BUDGET, draws=2))
    assert set(scored(tree)) == set(data.tasks)
    with pytest.raises(ValueError, match="features are each target's own; its heads are head='conv', not 'linear'"):
        experiments.run(data, experiments.Method("mtan", trunk="mtan", options={"noise": "fixed"}), 0, BUDGET)


def test_a_batch_of_one_pixel_images_and_of_one_image(data):
    small = MultiTaskData.from_arrays(
        "one",
        Images(data.inputs.images[:3, :1, :1]),
        {"part": np.array([0, 1, 2]).reshape(3, 1, 1)},
        {"train": [0], "val": [1], "test": [2]},
        families={"part": Pixels(Classes(("a", "b", "c")))},
    )
    tree = experiments.run(small, experiments.method("homoscedastic"), 0, replace(BUDGET, batch_size=1))
    assert len(scored(tree)["part"].labels) == 1
