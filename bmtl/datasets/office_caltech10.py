"""Office-Caltech10: 2,533 images of 10 classes from 4 domains, each domain a task; SURF or deep features.

Source: B. Gong, Y. Shi, F. Sha, K. Grauman, "Geodesic Flow Kernel for Unsupervised Domain Adaptation", CVPR 2012 (bags of
800 visual words); the lists of 5, 10 and 20 % training images are those of M. Long et al., "Learning Multiple Tasks with
Multilinear Relationship Networks", NeurIPS 2017.

The lists repeat images, and each is here once: 78, 151 and 300 training images in all, down to one per class and task. At
5 % they leave 22 images out (10 %: 1), which are in no part. No validation fits inside so few training images: a stratified
fifth of the others, drawn once and for all, is for validation and never scored. Five test images (10 %; 20 %: 11) have the
features of a training image.

The deep features are the 1,280 averages over the image that a convolutional network trained on ImageNet (EfficientNet-Lite0)
ends with. Published figures on this set with deep features are of other networks (VGG16's 4,096 in Shen et al., 2021).
"""

from pathlib import Path
from typing import Literal

import numpy as np

from bmtl.datasets.files import Archive, find
from bmtl.datasets.many_tasks import assemble
from bmtl.datasets.multi_task_data import MultiTaskData

FILE = "office_caltech10/office_caltech10.npz"
DEEP_FILE = "office_caltech10/office_caltech10_lite0.npz"
PERCENT = (5, 10, 20)
VALIDATION = 0.2
VALIDATION_SEED = 2012

CITATION = "B. Gong, Y. Shi, F. Sha, K. Grauman, Geodesic Flow Kernel for Unsupervised Domain Adaptation, CVPR 2012."
LICENCE = "None stated; the images are those of Office-31 and Caltech-256, for research."
SOURCE = (
    "Put into it the arrays surf (N, 800), label, domain, classes, domains, and split_5, split_10, split_20 (1 training, "
    "0 test, -1 neither), from the features of https://github.com/LeoGautheron/OfficeCaltechDomainAdaptation (commit "
    "0bcf68398284) and the lists of https://github.com/thuml/MTlearn (566df73adf90). The SHA-256 of our file is "
    "90eaa4ea2e2c6a02a67f0b059cec778c71e5cf8e416c71c7ac49bf46b3256dae. The deep features are an array lite0 (N, 1280), "
    "rows in the same order, in a second file."
)


def read(
    root: str | Path | None = None,
    *,
    proportion: float = 0.05,
    features: Literal["surf", "deep"] = "surf",
    scale: Literal["counts", "sqrt", "unit"] = "counts",
    clip: float | None = None,
    draw: int | None = None,
) -> MultiTaskData:
    """The images in one of the official splits, or in one drawn like it.

    Args:
        root: Folder of the data; the default is what the environment variable ``BMTL_DATA`` says.
        proportion: Of training images: 0.05, 0.1 or 0.2.
        features: ``"surf"``, counts of 800 visual words, or ``"deep"``, 1,280 activations of a network.
        scale: Inputs before they are standardised on the training rows: the features as they are (``"counts"``), the
            ``"sqrt"`` of their shares of the image's sum, whose Euclidean distance is Hellinger's, or features divided by
            the image's Euclidean norm (``"unit"``).
        clip: Bound of the scaled inputs, in standard deviations.
        draw: None for the official list; a number draws as many training images of each task and class anew, and
            validation from the rest, with this seed.

    Raises:
        FileNotFoundError: If `root` does not hold the files.
        ValueError: If there is no such split, or an option is unknown.
    """
    percent = next((percent for percent in PERCENT if np.isclose(100 * proportion, percent)), None)
    if percent is None:
        raise ValueError(f"The official splits have the proportions 0.05, 0.1 and 0.2; got {proportion}.")
    if scale not in ("counts", "sqrt", "unit"):
        raise ValueError(f"scale is 'counts', 'sqrt' or 'unit'; got {scale!r}.")
    if features not in ("surf", "deep"):
        raise ValueError(f"features is 'surf' or 'deep'; got {features!r}.")
    archive = Archive(find("office-caltech10", [FILE], root, SOURCE))
    label, domain = archive.array("label"), archive.array("domain")
    split = archive.array(f"split_{percent}")
    if draw is not None:
        split = drawn_like(split, label, domain, draw)
    if features == "deep":
        x = Archive(find("office-caltech10", [DEEP_FILE], root, SOURCE)).array("lite0").astype(np.float64)  # (N, 1280)
    else:
        x = archive.array("surf")  # (N, 800)
    if scale == "sqrt":
        x = np.sqrt(x / x.sum(axis=1, keepdims=True, dtype=np.float64))
    if scale == "unit":
        x = x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    return assemble(
        "office-caltech10",
        x,
        label,
        task=domain,
        task_names=archive.array("domains").tolist(),
        classes=archive.array("classes").tolist(),
        split=split,
        validation=VALIDATION,
        validation_from="test",
        seed=VALIDATION_SEED if draw is None else draw,
        clip=clip,
        citation=CITATION,
        licence=LICENCE,
    )


def drawn_like(split: np.ndarray, label: np.ndarray, domain: np.ndarray, seed: int) -> np.ndarray:
    """Another draw of a split: as many training images of each task and class, and all others for testing.

    Args:
        split: 1 for training images, ``(N,)``.
        label: Of each image, ``(N,)``.
        domain: Of each image, ``(N,)``.
        seed: Of the draw.
    """
    random = np.random.default_rng(seed)
    drawn = np.zeros_like(split)
    for task, kind in sorted(set(zip(domain.tolist(), label.tolist(), strict=True))):
        of = np.flatnonzero((domain == task) & (label == kind))
        drawn[random.choice(of, size=int((split[of] == 1).sum()), replace=False)] = 1
    return drawn
