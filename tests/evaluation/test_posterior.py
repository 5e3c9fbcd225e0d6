import numpy as np
import pytest

from bmtl.evaluation.posterior import posterior_group, stored_names


def test_every_axis_is_named_and_labelled():
    group = posterior_group(
        {"noise": np.zeros((6, 3)), "w": np.zeros((6, 2, 4)), "b": np.zeros(6)},
        {"target": ["a", "b", "c"]},
        {"noise": ["target"]},
    )
    assert group["noise"].dims == ("chain", "draw", "target")
    assert group["w"].dims == ("chain", "draw", "w_dim_0", "w_dim_1")
    assert group["b"].shape == (1, 6)
    assert group["target"].values.tolist() == ["a", "b", "c"]
    assert group["w_dim_1"].values.tolist() == [0, 1, 2, 3]


def test_chains_stay_apart():
    draws = np.arange(12.0)
    group = posterior_group({"w": draws, "v": np.stack([draws, -draws], axis=1)}, {}, {}, chains=3)
    assert group["w"].dims == ("chain", "draw")
    assert group["w"].values.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert group["v"].sel(chain=1, draw=2).values.tolist() == [6, -6]


@pytest.mark.parametrize(
    ("site", "stored"),
    [
        ("net/0.weight", "net_0.weight"),
        ("-beta", "_-beta"),
        ("+x", "_+x"),
        (".hidden", "_.hidden"),
        ("a\0b", "a_b"),
        ("w ", "w"),
        ("", "_"),
        ("cafe\N{COMBINING ACUTE ACCENT}", "café"),
    ],
)
def test_a_site_that_no_file_could_hold_is_stored_under_a_name_that_it_can(site, stored):
    group = posterior_group({site: np.zeros(4), "other": np.ones(4)}, {}, {})
    assert list(group.data_vars) == [stored, "other"]
    assert group[stored].attrs == {"site": repr(site)}


def test_long_names_stay_different():
    names = stored_names(["x" * 300 + "a", "x" * 300 + "b", "é" * 200])
    assert len(set(names.values())) == 3
    assert all(len(name.encode()) <= 200 for name in names.values())
    with pytest.raises(ValueError, match="'a/b' and 'a_b' are both 'a_b'"):
        stored_names(["a/b", "a_b"])


def test_half_precision_and_complex_draws_have_a_type_that_files_know():
    group = posterior_group(
        {"h": np.ones((4, 2), dtype=np.float16), "z": np.full((4, 2), 1 + 2j), "flag": np.ones(4, dtype=bool)},
        {},
        {"z": ["k"]},
    )
    assert group["h"].dtype == np.float32
    assert group["z_real"].dims == group["z_imag"].dims == ("chain", "draw", "k")
    assert (group["z_real"] == 1).all()
    assert (group["z_imag"] == 2).all()
    assert group["flag"].dtype == bool


@pytest.mark.parametrize(
    ("sites", "coords", "dims", "chains", "message"),
    [
        ({"w": np.zeros(0)}, {}, {}, 1, "expected \\(draws, ...\\)"),
        ({"w": np.zeros(())}, {}, {}, 1, "expected \\(draws, ...\\)"),
        ({"w": np.zeros(7)}, {}, {}, 2, "of 2 chains of equal length"),
        ({"w": np.zeros((4, 2))}, {}, {"w": []}, 1, "expected 1 different names"),
        ({"w": np.zeros((4, 2))}, {}, {"w": ["draw"]}, 1, "none of them 'chain', 'draw'"),
        ({"w": np.zeros((4, 2, 2))}, {}, {"w": ["a", "a"]}, 1, "expected 2 different names"),
        ({"w": np.zeros((4, 2))}, {"a": [1, 2, 3]}, {"w": ["a"]}, 1, "has 2 entries along 'a', where coords has 3"),
        ({"w": np.zeros(4), "v": np.zeros(6)}, {}, {}, 1, "has 6 entries along 'draw'"),
        ({"w": np.zeros((4, 2)), "a": np.zeros(4)}, {}, {"w": ["a"]}, 1, "name of another site's dimension"),
        ({"w": np.array([object()])}, {}, {}, 1, "has dtype object"),
    ],
)
def test_what_does_not_fit_is_refused(sites, coords, dims, chains, message):
    with pytest.raises(ValueError, match=message):
        posterior_group(sites, coords, dims, chains)
