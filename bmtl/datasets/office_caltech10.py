"""Office-Caltech10, SURF features: 2,533 images of 10 classes from 4 domains, each domain a task.

Source: B. Gong, Y. Shi, F. Sha, K. Grauman, "Geodesic Flow Kernel for Unsupervised Domain Adaptation", CVPR 2012 (bags of
800 visual words); the lists of 5, 10 and 20 % training images are those of M. Long et al., "Learning Multiple Tasks with
Multilinear Relationship Networks", NeurIPS 2017.

The lists repeat images, and each is here once: 78, 151 and 300 training images in all, down to one per class and task. At
5 % they leave 22 images out (10 %: 1), which are in no part. No validation fits inside so few training images: a stratified
fifth of the others, drawn once and for all, is for validation and never scored. Five test images (10 %; 20 %: 11) have the
features of a training image.
"""

from pathlib import Path
from typing import Literal

import numpy as np

from bmtl.datasets.files import Archive, find
from bmtl.datasets.many_tasks import assemble
from bmtl.datasets.multi_task_data import MultiTaskData

FILE = "office_caltech10/office_caltech10.npz"
PERCENT = (5, 10, 20)
VALIDATION = 0.2
VALIDATION_SEED = 2012

CITATION = "B. Gong, Y. Shi, F. Sha, K. Grauman, Geodesic Flow Kernel for Unsupervised Domain Adaptation, CVPR 2012."
LICENCE = "None stated; the images are those of Office-31 and Caltech-256, for research."
SOURCE = (
    "Put into it the arrays surf (N, 800), label, domain, classes, domains, and split_5, split_10, split_20 (1 training, "
    "0 test, -1 neither), from the features of https://github.com/LeoGautheron/OfficeCaltechDomainAdaptation (commit "
    "0bcf68398284) and the lists of https://github.com/thuml/MTlearn (566df73adf90). The SHA-256 of our file is "
    "90eaa4ea2e2c6a02a67f0b059cec778c71e5cf8e416c71c7ac49bf46b3256dae."
)


def read(
    root: str | Path | None = None,
    *,
    proportion: float = 0.05,
    scale: Literal["counts", "sqrt"] = "counts",
    clip: float | None = None,
) -> MultiTaskData:
    """The images in one of the official splits.

    Args:
        root: Folder of the data; the default is what the environment variable ``BMTL_DATA`` says.
        proportion: Of training images: 0.05, 0.1 or 0.2.
        scale: Inputs before they are standardised on the training rows: the ``"counts"`` of visual words, or the ``"sqrt"``
            of their shares of the image's words, whose Euclidean distance is Hellinger's.
        clip: Bound of the scaled inputs, in standard deviations.

    Raises:
        FileNotFoundError: If `root` does not hold the file.
        ValueError: If there is no such split, or an option is unknown.
    """
    percent = next((percent for percent in PERCENT if np.isclose(100 * proportion, percent)), None)
    if percent is None:
        raise ValueError(f"The official splits have the proportions 0.05, 0.1 and 0.2; got {proportion}.")
    if scale not in ("counts", "sqrt"):
        raise ValueError(f"scale is 'counts' or 'sqrt'; got {scale!r}.")
    archive = Archive(find("office-caltech10", [FILE], root, SOURCE))
    x = archive.array("surf")  # (N, 800)
    if scale == "sqrt":
        x = np.sqrt(x / x.sum(axis=1, keepdims=True, dtype=np.float64))
    return assemble(
        "office-caltech10",
        x,
        archive.array("label"),
        task=archive.array("domain"),
        task_names=archive.array("domains").tolist(),
        classes=archive.array("classes").tolist(),
        split=archive.array(f"split_{percent}"),
        validation=VALIDATION,
        validation_from="test",
        seed=VALIDATION_SEED,
        clip=clip,
        citation=CITATION,
        licence=LICENCE,
    )
