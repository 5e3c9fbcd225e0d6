"""The methods that have a name, and any other by its balancer or import path."""

from collections.abc import Mapping

from bmtl.datasets.checks import meant
from bmtl.experiments import importing, registry
from bmtl.experiments.methods import Method
from bmtl.experiments.slots import all_slots, is_slot

_FIXED = {"noise": "fixed"}

METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("stl", options=_FIXED, single_task=True),
        *(
            Method(name, balancer, options=_FIXED)
            for name, balancer in (
                ("ew", "ew"),
                ("uw", "uw"),
                ("igb-v1", "igb-v1"),
                ("nash-mtl", "nash-mtl"),
                ("igb-v1+nash", "igb-v1 >> nash-mtl"),
            )
        ),
        Method("homoscedastic", options={"noise": "parameter"}, normalize="per_datum"),
        Method("bayesian", options={"noise": "latent", "head": "bayesian"}, normalize="per_datum"),
        Method("neural-linear", "igb-v1", model="neural-linear"),
        Method("gaussian", model="gaussian"),
        Method("ensemble", model="gaussian", ensemble_size=5),
        Method("mc-dropout", options={**_FIXED, "dropout": 0.05}),
        Method("enet", model="evidential", options={"objective": "nll"}),
        Method("mse-enet", model="evidential", options={"objective": "nll+mse"}),
        Method("mse-enet-0.1", model="evidential", options={"objective": "nll+mse", "weight": 0.1}),
        Method("mt-enet", model="evidential", options={"objective": "nll+lipschitz"}),
        Method("mt-enet-sample", model="evidential", options={"objective": "nll+lipschitz", "threshold": "sample"}),
        Method("mt-enet-censored", model="evidential", options={"objective": "nll+lipschitz", "censored": True}),
        Method("student-t-censored", options={"likelihood": "student-t", "censored": True}),
        Method("bakker-heskes", model="bakker-heskes", normalize="per_datum"),
        Method("mrn", model="multilinear", normalize="per_datum"),
        Method("mtvib", model="bottleneck", options={"beta": 0.01}, normalize="per_datum"),
        *(
            Method(name, model="vmtl", options={"preset": preset, **options})
            for name, preset, options in (
                ("vstl", "VSTL", {}),
                ("bmtl", "BMTL", {}),
                ("vbmtl", "VBMTL", {}),
                ("vmtl-mean", "VMTL-mean", {}),
                ("vmtl-learned", "VMTL-learned", {}),
                ("vmtl", "VMTL", {}),
                ("vmtl-dirichlet", "VMTL", {"weights": "dirichlet"}),
                ("vmtl-w", "VMTL", {"latent_z": "point"}),
                ("vmtl-ac", "VMTL-AC", {}),
            )
        ),
        Method("gp-icm", model="gaussian-process", options={"kernel": "icm"}, normalize="per_datum"),
        Method("gp-lmc", model="gaussian-process", options={"kernel": "lmc"}, normalize="per_datum"),
    )
}
"""Methods by name; "stl" to "igb-v1+nash" are the unit-variance program with point-mass parameters."""


def method(name: str | Method) -> Method:
    """A method by its name, its import path, or its balancer; a `Method` is itself.

    Args:
        name: One of `METHODS`; the name of an installed recipe (entry point of ``bmtl.models``); the import path of a
            `Method`, of a recipe, or of a balancer's slot; or the string form of a balancer, for the unit-variance program
            under it.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(name, Method):
        return name
    if name in METHODS:
        return METHODS[name]
    if name in registry.models():
        return Method(name, model=name)
    if importing.is_path(name):
        found = importing.load(name)
        short = name.rpartition(":")[2]
        if isinstance(found.value, Method):
            return found.value
        if is_slot(found.value):
            return Method(short, balancer=found.path, options=_FIXED)
        if callable(found.value):
            return Method(short, model=found.path)
        raise ValueError(
            f"{name} is a {type(found.value).__name__}; a method is a recipe (a function or class), a balancer's slot, or a "
            "bmtl.experiments.Method."
        )
    slots = all_slots()
    names = {part.partition("(")[0].strip() for part in name.split(">>")}
    if not names & slots.keys() and ">>" not in name:
        raise ValueError(
            f"There is no method and no balancer {name!r}.{meant(name, [*METHODS, *slots])} The methods are: "
            f"{', '.join(METHODS)}. `bmtl list` shows the balancers too; code of your own is named as package.module:name "
            "or file.py:name."
        )
    return Method(name, name, options=_FIXED)
