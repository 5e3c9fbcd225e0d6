"""What is saved is all that the next steps depend on, and a file that is no checkpoint says so."""

import copy
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

import bmtl
from bmtl.inference.checkpoint import CheckpointError, check_file, check_folder, load, save
from bmtl.inference.svi import BalancedSVI
from tests.inference.programs import Regressions, Sites, SitesGuide, assert_same, batch, nothing

BALANCERS = ("ew", "uw", "igb-v1", "nash-mtl", "igb-v1 >> last-layer >> nash-mtl >> norm")


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01)


def runs():
    """One run a balancer, and one with latents, whose guide has no parameters before the first batch."""
    torch.manual_seed(0)
    found = {balancer: BalancedSVI(Regressions(), nothing, adam, balancer) for balancer in BALANCERS}
    model = Sites()
    return found | {"latents": BalancedSVI(model, AutoNormal(model), adam, "nash-mtl")}


def go_on(svi, steps=5):
    """Steps on batches that all three global generators have a part in; two steps make an epoch."""
    for _ in range(steps):
        x, y = batch(seed=random.randrange(1000))
        svi.step(x + 0.1 * torch.randn_like(x), {n: v + np.random.normal() for n, v in y.items()})  # noqa: NPY002
        if svi.steps % 2 == 0:
            svi.end_epoch()


def outcome(svi):
    state = copy.deepcopy(svi.state_dict())
    del state["history"]["seconds"]
    return state


def resume_all(folder):
    """What a fresh process does: takes every run up and goes on, then writes where it came to."""
    for name, svi in runs().items():
        load(svi, Path(folder) / f"{name}.ckpt")
        go_on(svi)
        torch.save(outcome(svi), Path(folder) / f"{name}.resumed")


def test_a_run_taken_up_in_a_fresh_process_is_the_uninterrupted_run_bit_for_bit(tmp_path):
    expected = {}
    for name, svi in runs().items():
        go_on(svi)
        save(svi, tmp_path / f"{name}.ckpt")
        go_on(svi)
        expected[name] = outcome(svi)
    code = f"from tests.inference.test_checkpoint import resume_all; resume_all({str(tmp_path)!r})"
    root = Path(__file__).parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, env=environment)
    for name, state in expected.items():
        assert_same(torch.load(tmp_path / f"{name}.resumed"), state, name)
        assert (state["steps"], state["epoch"]) == (10, 6)


def test_saving_changes_nothing(tmp_path):
    one, other = runs()["igb-v1"], runs()["igb-v1"]
    for svi in (one, other):
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        go_on(svi, 3)
        if svi is one:
            save(svi, tmp_path / "run.ckpt")
        go_on(svi, 3)
    assert_same(outcome(one), outcome(other))


def test_a_checkpoint_is_whole_or_absent_and_nothing_is_left_beside_it(tmp_path, monkeypatch):
    svi = runs()["ew"]
    go_on(svi)
    save(svi, tmp_path / "deep" / "run.ckpt")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run.ckpt"]
    before = (tmp_path / "deep" / "run.ckpt").read_bytes()

    go_on(svi)
    whole = torch.save

    def full_disk(state, file):
        whole(state, file)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(svi, tmp_path / "deep" / "run.ckpt")
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run.ckpt"]
    assert (tmp_path / "deep" / "run.ckpt").read_bytes() == before

    save(svi, tmp_path / "deep" / "run.ckpt")  # an existing one is replaced
    again = runs()["ew"]
    load(again, tmp_path / "deep" / "run.ckpt")
    again.initialise(*batch())
    assert again.steps == 10


def test_a_run_that_has_not_begun_cannot_be_saved(tmp_path):
    with pytest.raises(ValueError, match="nothing to save"):
        save(runs()["ew"], tmp_path / "run.ckpt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_an_error_that_says_so_and_changes_nothing(tmp_path, share):
    svi = runs()["ew"]
    go_on(svi)
    path = tmp_path / "run.ckpt"
    save(svi, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    before = outcome(svi)
    with pytest.raises(CheckpointError, match="run.ckpt is no intact checkpoint"):
        load(svi, path)
    assert_same(outcome(svi), before)
    with pytest.raises(CheckpointError, match="run.ckpt is no intact checkpoint"):
        bmtl.fit(svi, [batch()], max_epochs=1, progress=False, resume=path)


def test_a_flipped_bit_is_found(tmp_path):
    svi = runs()["ew"]
    go_on(svi)
    path = tmp_path / "run.ckpt"
    save(svi, path)
    whole = path.read_bytes()
    weight = svi.model.trunk.weight.detach().numpy().tobytes()
    where = whole.index(weight)
    path.write_bytes(whole[:where] + bytes([whole[where] ^ 1]) + whole[where + 1 :])  # still opens, and loads in torch
    with pytest.raises(CheckpointError, match="no intact checkpoint"):
        load(runs()["ew"], path)


class Unsafe:
    """Pickles to a call."""

    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": torch.zeros(2)}, "not written by bmtl"),
        ([1, 2], "not written by bmtl"),
        (Unsafe(), "no intact checkpoint"),
    ],
)
def test_a_foreign_file_is_refused_and_never_run(tmp_path, content, message, capsys):
    torch.save(content, tmp_path / "foreign.ckpt")
    with pytest.raises(CheckpointError, match=f"foreign.ckpt.*{message}"):
        check_file(tmp_path / "foreign.ckpt")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"epoch,step\n1,2\n", b"PK\x03\x04", bytes(range(256))])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "other.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match="other.ckpt is no intact checkpoint"):
        check_file(tmp_path / "other.ckpt")


def test_a_checkpoint_of_a_later_version_says_so(tmp_path):
    svi = runs()["ew"]
    go_on(svi)
    save(svi, tmp_path / "run.ckpt")
    state = torch.load(tmp_path / "run.ckpt")
    torch.save(state | {"format": 99}, tmp_path / "run.ckpt")
    with pytest.raises(CheckpointError, match="format 99"):
        load(runs()["ew"], tmp_path / "run.ckpt")


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / "missing.ckpt", tmp_path):
        with pytest.raises(CheckpointError, match=f"no checkpoint {path}"):
            load(runs()["ew"], path)


def test_a_checkpoint_of_another_model_is_refused_with_its_name(tmp_path):
    svi = runs()["ew"]
    go_on(svi)
    save(svi, tmp_path / "run.ckpt")
    other = BalancedSVI(Sites(), SitesGuide(), adam)
    go_on(other, 1)
    drawn = torch.get_rng_state()
    with pytest.raises(CheckpointError, match="run.ckpt does not fit"):
        load(other, tmp_path / "run.ckpt")
    assert torch.equal(torch.get_rng_state(), drawn)
    assert other.steps == 1


def test_the_two_kinds_of_checkpoint_point_at_each_other(tmp_path):
    svi = runs()["ew"]
    bmtl.fit(svi, [batch()], max_epochs=1, progress=False, out=tmp_path)
    with pytest.raises(CheckpointError, match=r"bmtl.fit\(..., resume=...\)"):
        load(runs()["ew"], tmp_path / "last.ckpt")
    save(svi, tmp_path / "own.ckpt")
    with pytest.raises(CheckpointError, match="checkpoint.save"):
        bmtl.fit(runs()["ew"], [batch()], max_epochs=1, progress=False, resume=tmp_path / "own.ckpt")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="The folder cannot be written") as error:
            check_folder(folder)
        assert str(folder) in str(error.value)
    assert check_folder(tmp_path / "a" / "b") == (tmp_path / "a" / "b").resolve()
    assert not list((tmp_path / "a" / "b").iterdir())


def test_param_statements_come_back_in_a_fresh_store(tmp_path):
    def model(x, y):
        loc = pyro.param("loc", torch.tensor(0.5))
        with bmtl.task("a"), pyro.plate("a_rows", len(x)):
            bmtl.observe("y_a", pyro.distributions.Normal(loc, 1.0), y["a"])

    def run():
        pyro.clear_param_store()
        return BalancedSVI(model, nothing, pyro.optim.Adam({"lr": 0.1}))

    svi = run()
    go_on(svi, 3)
    save(svi, tmp_path / "run.ckpt")
    go_on(svi, 3)
    expected = pyro.param("loc").item()
    svi = run()
    load(svi, tmp_path / "run.ckpt")
    go_on(svi, 3)
    assert pyro.param("loc").item() == expected
    pyro.clear_param_store()
