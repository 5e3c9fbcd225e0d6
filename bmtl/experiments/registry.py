"""Recipes of models and makers of trunks by name; everything else is an import path.

A recipe is ``recipe(spec, *, trunk, generator, **options)`` and returns a model, or ``(model, guide)``; a maker of trunks is
``maker(inputs, *, widths, generator, **options)`` and returns a module with an attribute ``width``. `bmtl.models` describes
both. Installed packages add names by the entry-point groups ``bmtl.models``, ``bmtl.trunks``, ``bmtl.balancers`` and
``bmtl.datasets``.
"""

from collections.abc import Mapping
from types import MappingProxyType

from bmtl.datasets.checks import meant
from bmtl.experiments.importing import Imported, announced, is_path, load

MODELS: Mapping[str, str] = MappingProxyType(
    {
        "homoscedastic": "bmtl.models.recipes:homoscedastic",
        "neural-linear": "bmtl.models.recipes:neural_linear",
        "evidential": "bmtl.models.recipes:evidential",
        "gaussian": "bmtl.models.recipes:gaussian",
        "bakker-heskes": "bmtl.models.recipes:bakker_heskes",
        "multilinear": "bmtl.models.recipes:multilinear",
        "bottleneck": "bmtl.models.recipes:bottleneck",
        "gaussian-process": "bmtl.models.recipes:gaussian_process",
        "vmtl": "bmtl.models.recipes:vmtl",
    }
)
"""Recipe by name."""

TRUNKS: Mapping[str, str] = MappingProxyType(
    {
        "tabular": "bmtl.models.networks.tabular:tabular_trunk",
        "mlp": "bmtl.models.networks.mlp:mlp_trunk",
        "schnet": "bmtl.models.networks.molecules:schnet_trunk",
        "nnconv": "bmtl.models.networks.molecules:nnconv_trunk",
        "fingerprints": "bmtl.models.networks.pairwise:fingerprints_trunk",
        "fingerprints-ids": "bmtl.models.networks.pairwise:fingerprints_ids_trunk",
        "deep-dta": "bmtl.models.networks.deep_dta:deep_dta_trunk",
        "deep-dta-half": "bmtl.models.networks.deep_dta:deep_dta_half_trunk",
        "graph-dta": "bmtl.models.networks.graph_dta:graph_dta_trunk",
        "graph-composition": "bmtl.models.networks.graph_dta:graph_composition_trunk",
    }
)
"""Maker of trunks by name."""

_DEFAULT_TRUNKS = MappingProxyType({"table": "tabular"})  # by kind of input; a kind may name its own in describe()


def recipe(name: str) -> Imported:
    """The recipe of a name or import path.

    Raises:
        ValueError: If there is none, or it cannot be imported.
    """
    return _loaded("model", name, MODELS, "bmtl.models")


def trunk(name: str) -> Imported:
    """The maker of trunks of a name or import path.

    Raises:
        ValueError: If there is none, or it cannot be imported.
    """
    return _loaded("trunk", name, TRUNKS, "bmtl.trunks")


def checked_recipe(name: str) -> str:
    """The name of a recipe as every process finds it: files by their absolute paths.

    bmtl's own are not imported for it, which would take a second for each name in a list.

    Raises:
        ValueError: As `recipe`.
    """
    return name if name in MODELS else recipe(name).path


def default_trunk(inputs: Mapping[str, object]) -> str:
    """The trunk for inputs of this description.

    Raises:
        ValueError: If their kind has none.
    """
    kind = str(inputs.get("kind", ""))
    name = inputs.get("trunk") or _DEFAULT_TRUNKS.get(kind)
    if not isinstance(name, str):
        raise ValueError(f"There is no trunk for inputs of kind {kind!r}. Name one: trunk='package.module:maker'.")
    return name


def models() -> dict[str, str]:
    """All recipes by name, those of installed packages included, with their import paths."""
    return {**MODELS, **announced("bmtl.models")}


def trunks() -> dict[str, str]:
    """All makers of trunks by name, those of installed packages included, with their import paths."""
    return {**TRUNKS, **announced("bmtl.trunks")}


def _loaded(what: str, name: str, known: Mapping[str, str], group: str) -> Imported:
    if name in known:
        return Imported(load(known[name]).value, name, "")  # bmtl's own: its version says which code it is
    paths = announced(group)
    if name in paths:
        found = load(paths[name])
        return Imported(found.value, name, found.digest)
    if is_path(name):
        return load(name)
    raise ValueError(
        f"There is no {what} {name!r}.{meant(name, [*known, *paths])} The names are: {', '.join([*known, *paths])}; "
        "anything else is given as package.module:name or file.py:name."
    )
