"""Models of the VMTL family from the description of a data set."""

import functools
from typing import Any

import torch
from torch import nn

from bmtl.models.likelihoods import likelihood_of
from bmtl.models.recipes import Built, Choice, Trunk, chosen
from bmtl.models.spec import DataSpec
from bmtl.models.vmtl.kl_weights import KLWeights
from bmtl.models.vmtl.presets import vmtl_preset


def vmtl(
    spec: DataSpec,
    *,
    trunk: Trunk,
    generator: torch.Generator,
    preset: str = "VMTL",
    likelihood: Choice = None,
    kl_w: float | None = None,
    kl_z: float | None = None,
    **switches: Any,
) -> Built:
    """Variational multi-task learning (Shen et al., 2021): `vmtl_preset` with the trunk's layers in the encoder.

    Where a preset has Gaussian latents, their divergences are multiplied by `kl_w` and `kl_z`, by default 0.1 and 1e-4: at
    their full weight, 1, they outweigh tens of rows a task, and predictions are at chance. Inputs have no dropout unless
    `dropout` says so. For z's prior, rows of a row's own class answer where all tasks have all classes
    (``attention="class"``), and all rows elsewhere.

    Args:
        spec: Of the data, with the training rows as its support.
        trunk: Makes the encoder's hidden layers, with ELU.
        generator: Draws initial weights.
        preset: One of `bmtl.models.vmtl.PRESETS`.
        likelihood: Instead of the families' own; of all targets the same.
        kl_w: Weight of the classifiers' divergences.
        kl_z: Weight of the representations'.
        **switches: Of `VMTL`, over those of the preset.

    Raises:
        ValueError: If weights are given twice, the targets have no likelihood in common, or as `VMTL`.
    """
    given: dict[str, Any] = {"dropout": 0.0, **switches}
    if not given.get("as_released") and "kl_weights" not in given:
        given["kl_weights"] = KLWeights(0.1 if kl_w is None else kl_w, 1e-4 if kl_z is None else kl_z)
    elif (kl_w, kl_z) != (None, None):
        raise ValueError(
            f"kl_w={kl_w} and kl_z={kl_z} go without kl_weights and as_released, which have weights of their own."
        )
    if "attention" not in given and _lacks_a_class(spec):
        given["attention"] = "all"
    names = chosen(spec, likelihood)
    likelihoods = {
        # A class's temperature would only rescale its classifier.
        name: likelihood_of(family, names[name], noise="fixed" if family.class_names else "parameter")
        for name, family in spec.targets.items()
    }
    model = vmtl_preset(
        preset,
        int(spec.inputs.get("width", 0)),
        likelihoods,
        spec.n_data,
        trunk=functools.partial(trunk, activation=nn.ELU),
        support=spec.support,
        generator=generator,
        **given,
    )
    return model, model.guide()


vmtl.requires_support = True  # type: ignore[attr-defined]


def _lacks_a_class(spec: DataSpec) -> bool:
    """Whether some task has no training row of some class."""
    labels = {} if spec.support is None else spec.support[1]
    return any(
        name in labels and len(labels[name][labels[name] != -1].unique()) < len(family.class_names)
        for name, family in spec.targets.items()
        if family.class_names
    )
