"""Images through the commands: a comparison, its report, a fitted model, and maps of new images."""

import numpy as np
import pytest
from PIL import Image

from bmtl.datasets import load

SMALL = ["-d", "train=6", "-d", "val=2", "-d", "test=2", "-d", "height=12", "-d", "width=16"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    images = load("rooms", train=2, val=0, test=0, height=12, width=16).inputs.images
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"room{i}.png")
    return folder


def test_rooms_are_compared_and_reported(run, tmp_path):
    code, out, _ = run("compare", "rooms", "--methods", "ew", *SMALL, "--epochs", "1", "--jobs", "1", "--out", tmp_path)
    assert not code
    assert "mIoU" in out
    assert "semantic" in (tmp_path / "table.md").read_text(encoding="utf-8")
    assert not run("report", tmp_path)[0]
    assert "Predicted images" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_fitted_model_writes_maps_of_a_folder(run, pictures, tmp_path):
    code, printed, _ = run(
        "train", "rooms", *SMALL, "--epochs", "1", "--method", "mc-dropout", "--out", tmp_path / "run"
    )
    assert not code
    assert "--data FOLDER --out maps" in printed
    assert not run("predict", tmp_path / "run", "--data", pictures, "--out", tmp_path / "maps", "--draws", "2")[0]
    classes = Image.open(tmp_path / "maps" / "room1_semantic.png")
    assert classes.mode == "P"
    assert np.asarray(classes).shape == (12, 16)
    assert np.load(tmp_path / "maps" / "room0_depth.npy", allow_pickle=False).shape == (12, 16)
    assert (tmp_path / "maps" / "room0_normal_uncertainty.png").is_file()
    code, _, error = run("predict", tmp_path / "run", "--data", pictures, "--out", tmp_path / "maps.csv")
    assert code
    assert "written to a folder" in error
