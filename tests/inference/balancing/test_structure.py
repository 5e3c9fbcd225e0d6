"""Who imports whom in the balancing folder: no circle, type-only imports included."""

import ast

import pytest

from bmtl.inference.balancing import Balancer, IGBv1, LastLayer, NashMTL, Norm, Pipeline, balancer
from tests.test_imports import PACKAGE, imported, modules


def graph(package):
    """Module -> modules of the package that it names in an import, at any depth and for types only too."""
    files = {name: (path, is_package) for path, name, is_package in modules(package)}
    found = {}
    for name, (path, is_package) in files.items():
        named = [other for _, other in imported(ast.parse(path.read_text(encoding="utf-8")), name, is_package)]
        # `from a.b import c` names the module a.b.c, or else a.b.
        owners = (other if other in files else other.rpartition(".")[0] for other in named)
        found[name] = {owner for owner in owners if owner in files and owner != name}
    return found


def circles(edges):
    """Groups of modules that reach each other."""

    def reached(start):
        seen, queue = set(), [start]
        while queue:
            for other in edges.get(queue.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    queue.append(other)
        return seen

    reach = {name: reached(name) for name in edges}
    return {frozenset({name, *(o for o in reach[name] if name in reach[o])}) for name in edges if name in reach[name]}


def test_balancing_has_no_circle_of_imports():
    edges = graph(PACKAGE)
    inside = {name for name in edges if name.startswith("bmtl.inference.balancing")}
    assert len(inside) > 50
    assert not [sorted(circle) for circle in circles(edges) if circle & inside]


def test_a_circle_is_found(tmp_path):
    package = tmp_path / "bmtl"
    package.mkdir()
    for name, text in {
        "__init__": "",
        "a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from bmtl.b import B",
        "b": "from bmtl.c import x",
        "c": "def f():\n    from bmtl import a",
        "d": "from bmtl.a import x",
    }.items():
        (package / f"{name}.py").write_text(text)
    assert circles(graph(package)) == {frozenset({"bmtl.a", "bmtl.b", "bmtl.c"})}


def test_joined_choices_are_a_description_until_a_balancer_is_made_of_them():
    chain = Norm() >> NashMTL() >> IGBv1() >> LastLayer()
    assert isinstance(chain, Pipeline)
    assert str(chain) == "igb-v1 >> last-layer >> nash-mtl >> norm"
    made = balancer(chain, heads="alpha")
    assert made.heads == "alpha"
    assert [made.transform, made.geometry, made.weighting, made.length] == list(chain.slots)
    with pytest.raises(ValueError, match="both a length"):
        chain >> Norm()


@pytest.mark.parametrize(
    "join",
    [
        lambda b: IGBv1() >> b,
        lambda b: b >> IGBv1(),
        lambda b: (IGBv1() >> Norm()) >> b,
        lambda b: b >> (IGBv1() >> Norm()),
        lambda b: b >> balancer("igb-v1"),
        lambda b: balancer("igb-v1") >> b,
    ],
)
def test_joined_with_a_balancer_they_are_a_balancer_that_treats_heads_alike(join):
    joined = join(balancer("nash-mtl", heads="alpha"))
    assert isinstance(joined, Balancer)
    assert joined.heads == "alpha"
    assert (joined.transform.name, joined.weighting.name) == ("igb-v1", "nash-mtl")
