import numpy as np

from bmtl.evaluation.report.usefulness import in_words, usefulness
from bmtl.targets.metrics.selective import risk_of_the_surer_half
from tests.evaluation.report.pages import check


def risks(kind, rows=200, seed=0):
    rng = np.random.default_rng([seed, len(kind)])
    loss = rng.exponential(size=rows)
    by = {"useful": loss + rng.normal(size=rows), "none": rng.normal(size=rows), "constant": np.ones(rows)}[kind]
    return risk_of_the_surer_half(loss, by)


def test_useless_uncertainty_is_said_to_be_with_its_numbers():
    found = {"mu": risks("constant"), "homo": risks("constant")}
    assert in_words(found) == (
        "the uncertainty is the same for all rows on every target: it cannot say which predictions to trust."
    )
    nothing = in_words({"mu": risks("none"), "homo": risks("none", seed=1)})
    assert nothing.startswith(
        "the uncertainty does not predict the errors on any target: leaving out the least certain half"
    )
    assert nothing.endswith(", no more than chance.")
    assert "(an ideal order: \N{MINUS SIGN}" in nothing


def test_useful_uncertainty_is_said_to_be():
    both = in_words({"mu": risks("useful"), "homo": risks("useful", seed=1)})
    assert both.endswith("more than chance on every target.")
    mixed = in_words({"mu": risks("useful"), "homo": risks("none"), "cv": risks("constant")})
    assert "on 1 of 3 targets no more than chance (homo)." in mixed
    assert mixed.endswith("On 1 of 3 targets the uncertainty is the same for all rows.")
    assert in_words({"mu": risks("useful")}).endswith("more than chance.")


def test_methods_with_one_sentence_share_it(full_tree):
    page = check(
        f"<!DOCTYPE html><title>a</title><style></style><script></script>{usefulness({'a': full_tree(), 'b': full_tree()})}"
    )
    assert "a, b: " in page.text
    shown = page.table("method", "target", "loss of all rows")
    assert set(shown) == {"a", "b"}
