"""The models of Shen et al. (2021) by name."""

from collections.abc import Mapping
from typing import Any

from bmtl.models.likelihoods import Likelihood
from bmtl.models.vmtl.kl_weights import ReleasedKLWeights
from bmtl.models.vmtl.mixing import RELEASED, Temperature
from bmtl.models.vmtl.program import VMTL

_POINT = {"latent_z": "point", "latent_w": "point", "prior": "flat"}

PRESETS: dict[str, dict[str, Any]] = {
    "STL": {"encoder_sharing": "task", **_POINT},
    "VSTL": {"encoder_sharing": "task", "prior": "normal"},
    "BMTL": _POINT,
    "VBMTL": {"prior": "normal"},
    "VMTL-mean": {"weights": "mean"},
    "VMTL-learned": {"weights": "learned"},
    "VMTL": {"weights": "gumbel"},
    "VMTL-AC": {"weights": "gumbel", "classifier": "amortised"},
}
"""Switches of `VMTL` by preset."""


def vmtl_preset(
    name: str,
    inputs: int,
    targets: Mapping[str, Likelihood],
    n_data: int | Mapping[str, int],
    *,
    as_released: bool = False,
    **switches: Any,
) -> VMTL:
    """A model of the family by the name it has in the paper.

    Args:
        name: One of `PRESETS`.
        inputs: As for `VMTL`.
        targets: As for `VMTL`.
        n_data: As for `VMTL`.
        as_released: Take the objective of the authors' released code: the weighted sum without an anchor, the temperature
            schedule, its divergences' weights, ``Normal(0, 1)`` priors, the linear encoder ("mlp" for VMTL-AC), and
            predictions at the posterior means. Train it with ``TaskELBO("analytic", num_particles=10,
            vectorize_particles=True, normalize="task_mean")``, Adam and weight decay 5e-4. The
            code updates tasks in turn, each by
            its own optimizer, and has normal priors in the first step; here all tasks move at once.
        **switches: Of `VMTL`, over those of the preset.

    Raises:
        ValueError: If the preset is unknown, and as `VMTL`.
    """
    if name not in PRESETS:
        raise ValueError(f"A preset is one of {', '.join(map(repr, PRESETS))}, and {name!r} was given.")
    given = dict(PRESETS[name])
    if as_released:
        given["encoder"] = "mlp" if name == "VMTL-AC" else "linear"
        given["predict"] = "mean"
        if given.get("prior") != "flat":
            given |= {"scale_w": 1.0, "kl_weights": ReleasedKLWeights()}
        if given.get("prior", "tasks") == "tasks":
            given |= {"combine": "sum", "anchor": 0.0}
        if given.get("weights") == "gumbel":
            given["temperature"] = Temperature(**RELEASED, repeats=len(targets))
    return VMTL(inputs, targets, n_data, **(given | switches))
