import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from bmtl.evaluation.attributes import JSON_NAMES, decode_attributes, encode_attributes, installed


def test_every_kind_comes_back_as_it_was():
    given = {
        "text": "Å",
        "empty": "",
        "integer": -3,
        "float": 0.5,
        "yes": True,
        "nothing": None,
        "mapping": {"a": [1, None]},
        "one": ["only"],
        "huge": 2**70,
        "looks_like_json": "[1]",
    }
    encoded = encode_attributes(given)
    assert all(type(value) in (str, int, float) for value in encoded.values())
    assert decode_attributes(xr.Dataset(attrs=encoded)) == given


def test_numpy_scalars_become_plain_numbers():
    encoded = encode_attributes({"seed": np.int64(3), "rate": np.float32(0.5), "flag": np.bool_(True)})
    assert encoded == {"seed": 3, "rate": 0.5, "flag": "true", JSON_NAMES: '["flag"]'}


def test_what_json_does_not_know_becomes_text():
    assert json.loads(encode_attributes({"where": {"folder": Path("a/b")}})["where"]) == {"folder": str(Path("a/b"))}


def test_nothing_to_undo_leaves_no_list():
    assert JSON_NAMES not in encode_attributes({"method": "ew"})


def test_versions_leave_out_what_is_not_installed():
    found = installed(["numpy", "no-such-package-at-all"])
    assert found == {"numpy": np.__version__}


@pytest.mark.parametrize("seed", [0, 2**63 - 1, 2**63, 2**64])
def test_any_seed_survives(seed):
    assert decode_attributes(xr.Dataset(attrs=encode_attributes({"seed": seed})))["seed"] == seed
