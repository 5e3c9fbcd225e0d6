"""What is saved is all that the next steps depend on, and a file that is no checkpoint says so."""

import copy
import functools
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
from bmtl.inference.balancing import EW, SLOTS
from bmtl.inference.checkpoint import check_file, check_folder, load, random_state, save, sealed, write
from bmtl.inference.errors import CheckpointError
from bmtl.inference.plain import digest, plain
from bmtl.inference.svi import BalancedSVI
from tests.inference.programs import Regressions, Sites, SitesGuide, assert_same, batch, nothing, without_seconds

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
    return without_seconds(copy.deepcopy(svi.state_dict()))


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


# ---- Every choice of a balancer, through a file ----------------------------------------------------------------------


def spec_of(name):
    """A balancer in which this choice has something to do."""
    slot = SLOTS[name]
    if slot.slot == "transform":
        return f"{name} >> full" if slot.observes != "none" else name
    if slot.slot == "weighting":
        return "full(cross=True) >> " + name if slot.needs == "cross" else name
    return f"{name} >> nash-mtl" if slot.slot == "geometry" else f"nash-mtl >> {name}"


SPECS = [
    *map(spec_of, sorted(SLOTS)),
    *("last-layer(every=2,moved=0.1) >> mgda >> norm", "igb-v1 >> last-layer >> cagrad", "uw >> full(every=3) >> moco"),
    *("dwa(window=2)", "stch(warmup=1) >> gradvac >> norm", "excess-mtl >> full(cross=True) >> sdm-grad"),
]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("optim", [functools.partial(torch.optim.Adam, lr=np.float64(0.01))])
def test_every_balancers_state_goes_through_a_file_bit_for_bit(tmp_path, spec, optim):
    """The states of mgda and cagrad, and of any run with numpy's numbers in its optimizer, could be written and not read."""

    def run():
        torch.manual_seed(0)
        model = Sites() if spec == "bayes-agg" else Regressions()
        guide = SitesGuide() if spec == "bayes-agg" else nothing
        return BalancedSVI(model, guide, optim, spec)

    def go(svi, seeds):
        for seed in seeds:
            torch.manual_seed(seed)
            svi.step(*batch(seed=seed, missing=False))
            if seed % 2:
                svi.end_epoch()

    svi, again = run(), run()
    go(svi, range(4))
    save(svi, tmp_path / "run.ckpt")
    load(again, tmp_path / "run.ckpt")
    for one in (svi, again):
        go(one, range(4, 7))
    assert_same(plain(outcome(again)), plain(outcome(svi)))
    assert str(again.balancer) == str(svi.balancer)


# ---- What is compared first ------------------------------------------------------------------------------------------


def run(balancer="ew", optim=adam, model=Regressions, steps=2, **options):
    torch.manual_seed(0)
    svi = BalancedSVI(model(), nothing, optim, balancer, **options)
    for seed in range(steps):
        svi.step(*batch(seed=seed))
    return svi


def of(kind, **options):
    return lambda parameters: kind(parameters, **options)


def by_group(parameters):
    trunk = [p for name, p in parameters.items() if ".trunk." in name]
    return torch.optim.Adam(
        [{"params": trunk}, {"params": [p for n, p in parameters.items() if ".trunk." not in n]}], 0.01
    )


def deeper():
    model = Regressions()
    model.trunk.extra = torch.nn.Linear(2, 2)
    return model


REFUSED = {
    "another optimizer": (
        {"optim": of(torch.optim.SGD, lr=0.01)},
        "torch.optim.sgd.SGD, and this run has torch.optim.adam",
    ),
    "another variant": ({"optim": of(torch.optim.AdamW, lr=0.01)}, "AdamW"),
    "another learning rate": ({"optim": of(torch.optim.Adam, lr=0.3)}, r"made with \{'lr': 0.3\}.*\{'lr': 0.01\}"),
    "other moments": ({"optim": of(torch.optim.Adam, lr=0.01, betas=(0.5, 0.9))}, "betas"),
    "other groups": ({"optim": by_group}, r"\[2, 6\] parameters by group, this run's \[8\]"),
    "another weighting": ({"balancer": "nash-mtl"}, "'nash-mtl' with heads='transform', and this run's 'ew'"),
    "another option": ({"balancer": "igb-v1(base_epoch=7)"}, "base_epoch=7"),
    "another geometry": ({"balancer": "last-layer >> upgrad"}, "last-layer"),
    "other weights": ({"balancer": EW({"a": 2.0})}, "weights"),
    "other heads": ({"balancer": bmtl.balancer("nash-mtl", heads="alpha")}, "heads='alpha'"),
    "wider": ({"model": functools.partial(Regressions, width=5)}, r"trunk.weight.*\(5, 3\) there and \(4, 3\) here"),
    "more layers": ({"model": deeper}, "trunk.extra.weight' is only in the saved state"),
    "other tasks": ({"model": functools.partial(Regressions, tasks=("a", "b"))}, r"the tasks \['a', 'b'\]"),
}


def whole(svi):
    return copy.deepcopy(svi.state_dict()), torch.get_rng_state(), random.getstate(), svi.steps


@pytest.mark.parametrize(("other", "message"), REFUSED.values(), ids=REFUSED)
def test_a_run_of_another_make_is_refused_and_nothing_changes(tmp_path, other, message):
    save(run(**other), tmp_path / "run.ckpt")
    svi = run()
    before = whole(svi)
    with pytest.raises(CheckpointError, match=message):
        load(svi, tmp_path / "run.ckpt")
    assert_same(whole(svi), before)
    svi.step(*batch())  # and goes on

    fresh = run(steps=0)
    before = copy.deepcopy(fresh.module.state_dict())

    def resume():
        load(fresh, tmp_path / "run.ckpt")
        fresh.step(*batch())

    with pytest.raises(CheckpointError, match=message):
        resume()
    assert_same(copy.deepcopy(fresh.module.state_dict()), before)
    if fresh.initialised:  # what was refused at the first batch is refused at the second: it is not forgotten
        with pytest.raises(CheckpointError, match=message):
            fresh.step(*batch())


def test_a_state_that_fails_half_way_is_taken_back():
    """What no comparison finds: the second of two parts fails when it is loaded."""
    svi, other = run("uw"), run("uw", steps=4)
    before = whole(svi)
    state = copy.deepcopy(other.state_dict())
    state["balancer"]["state"]["transform.s.0"] = torch.zeros(5)
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        svi.load_state_dict(state)
    assert_same(whole(svi), before)
    state = copy.deepcopy(other.state_dict())
    state["scaler"] = {"scale": "large"}
    svi.scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        svi.load_state_dict(state)
    svi.scaler = None
    assert_same(whole(svi), before)


def test_moments_follow_their_parameters_by_name(tmp_path):
    """In the saved run the trunk joined last; a fresh one has it first."""
    svi = run(steps=0)
    svi.model.trunk.requires_grad_(False)
    svi.step(*batch())
    svi.model.trunk.requires_grad_(True)
    for seed in range(3):
        svi.step(*batch(seed=seed))
    save(svi, tmp_path / "run.ckpt")
    again = run(steps=0)
    load(again, tmp_path / "run.ckpt")
    for one in (svi, again):
        for seed in range(3, 6):
            one.step(*batch(seed=seed))
    assert_same(copy.deepcopy(again.module.state_dict()), copy.deepcopy(svi.module.state_dict()))


def test_a_pyro_optimizers_moments_are_taken_up_by_a_run_that_has_begun(tmp_path):
    def model(x, y):
        loc = pyro.param("loc", torch.tensor(0.5))
        with bmtl.task("a"), pyro.plate("a_rows", len(x)):
            bmtl.observe("y_a", pyro.distributions.Normal(loc, 1.0), y["a"])

    pyro.clear_param_store()
    svi = BalancedSVI(model, nothing, pyro.optim.Adam({"lr": 0.1}))
    go_on(svi, 3)
    save(svi, tmp_path / "run.ckpt")
    found = []
    for _ in range(2):
        go_on(svi, 4)
        found.append(pyro.param("loc").item())
        load(svi, tmp_path / "run.ckpt")
    assert found[0] == found[1]
    other = BalancedSVI(model, nothing, pyro.optim.Adam({"lr": 0.2}))
    load(other, tmp_path / "run.ckpt")
    with pytest.raises(CheckpointError, match=r"made with \{'lr': 0.1\}"):
        go_on(other, 1)
    pyro.clear_param_store()


# ---- Damaged content -------------------------------------------------------------------------------------------------


def field(*keys):
    """Where a field of the state is: the dict that holds it, and its key."""

    def find(state):
        for key in keys[:-1]:
            state = state[key]
        return state, keys[-1]

    return find


FIELDS = {
    "/".join(map(str, keys)): field(*keys)
    for keys in (
        *(
            ("names",),
            ("module",),
            ("params",),
            ("numbers",),
            ("epoch_sums",),
            ("epoch_counts",),
            ("steps",),
            ("epoch",),
        ),
        *(("batch",), ("skipped",), ("lr0",), ("history",), ("scaler",), ("optimizer",), ("balancer",), ("gradients",)),
        *(("optimizer", "class"), ("optimizer", "groups"), ("optimizer", "state"), ("optimizer", "options")),
        *(("optimizer", "state", "state"), ("optimizer", "state", "param_groups")),
        *(("optimizer", "state", "param_groups", 0, "params"), ("balancer", "slots"), ("balancer", "state")),
        *(("history", "packed"), ("history", "every"), ("history", "names"), ("history", "last")),
        ("module", "model.trunk.weight"),
    )
}


def missing(holder, key):
    del holder[key]


def of_another_type(holder, key):
    holder[key] = "word" if not isinstance(holder[key], str) else 3


def emptied(holder, key):
    value = holder[key]
    holder[key] = value.new_zeros(0) if isinstance(value, torch.Tensor) else type(value)()


# An optimizer before its first step has no moments, and one of another version of torch may lack options.
EMPTY_IS_FINE = ("params", "scaler", "gradients", "optimizer/state/state", "optimizer/options")


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("change", [missing, of_another_type, emptied])
def test_a_state_with_a_damaged_field_is_a_named_error_and_changes_nothing(tmp_path, name, change):
    svi, other = run("nash-mtl"), run("nash-mtl", steps=3)
    state = copy.deepcopy(other.state_dict())
    holder, key = FIELDS[name](state)
    if change is emptied and isinstance(holder[key], int | float):
        holder[key] = -1
    else:
        change(holder, key)
    before = whole(svi)
    if change is not emptied or name not in EMPTY_IS_FINE:
        with pytest.raises(CheckpointError):
            svi.load_state_dict(state)
        assert_same(whole(svi), before)

    save(other, tmp_path / "run.ckpt")
    saved = torch.load(tmp_path / "run.ckpt", weights_only=True)
    change(*FIELDS[name](saved["bmtl"]["svi"]))
    torch.save(saved, tmp_path / "run.ckpt")
    if digest(saved["bmtl"]["svi"]) != digest(plain(other.state_dict())):  # some are empty as they are
        with pytest.raises(CheckpointError, match="run.ckpt: Its content is not what was written"):
            load(svi, tmp_path / "run.ckpt")
        assert_same(whole(svi), before)


@pytest.mark.parametrize("key", ["torch", "cuda", "numpy", "python"])
@pytest.mark.parametrize("change", [missing, of_another_type])
def test_damaged_generators_are_named_and_nothing_changes(tmp_path, key, change):
    svi, other = run(), run(steps=3)
    state = {"bmtl": {"svi": other.state_dict(), "random": random_state()}}
    change(state["bmtl"]["random"], key)
    write(sealed(state), tmp_path / "run.ckpt")  # as if a version had written it so
    before = whole(svi)
    with pytest.raises(CheckpointError, match=f"generators.*{key}"):
        load(svi, tmp_path / "run.ckpt")
    assert_same(whole(svi), before)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("numpy", [1, 2]),
        ("numpy", ["MT19937", torch.zeros(3), 0, 0, 0.0]),
        ("python", (3, (1, 2), None)),
        ("torch", torch.zeros(3)),
    ],
)
def test_generators_that_cannot_be_taken_up_are_named(tmp_path, key, value):
    svi = run()
    state = {"bmtl": {"svi": run(steps=3).state_dict(), "random": random_state() | {key: value}}}
    write(sealed(state), tmp_path / "run.ckpt")
    before = whole(svi)
    with pytest.raises(CheckpointError, match=f"generator '{key}' cannot be loaded"):
        load(svi, tmp_path / "run.ckpt")
    assert_same(whole(svi), before)


LIGHTNINGS = ("epoch", "global_step", "state_dict", "loops", "callbacks", "optimizer_states", "lr_schedulers", "bmtl")


@pytest.mark.parametrize("key", LIGHTNINGS)
@pytest.mark.parametrize("change", [missing, of_another_type])
def test_a_checkpoint_of_fit_with_a_damaged_entry_is_a_named_error(tmp_path, key, change):
    bmtl.fit(run(steps=0), [batch()], [batch()], max_epochs=1, progress=False, out=tmp_path)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    change(saved, key)
    torch.save(saved, tmp_path / "last.ckpt")
    svi = run()
    before = whole(svi)
    with pytest.raises(CheckpointError, match="last.ckpt: It"):
        bmtl.fit(svi, [batch()], max_epochs=2, progress=False, resume=tmp_path / "last.ckpt")
    assert_same(whole(svi), before)


def test_240_flipped_bits_are_all_found(tmp_path):
    """In the file as it is, and in one whose check sums were made anew."""
    svi = run(steps=3)
    save(svi, tmp_path / "run.ckpt")
    whole_file = (tmp_path / "run.ckpt").read_bytes()
    generator = np.random.default_rng(0)
    found = 0
    for where, bit in zip(generator.integers(len(whole_file), size=240), generator.integers(8, size=240), strict=True):
        flipped = bytearray(whole_file)
        flipped[where] ^= 1 << bit
        (tmp_path / "flipped.ckpt").write_bytes(bytes(flipped))
        try:
            state = check_file(tmp_path / "flipped.ckpt")
        except CheckpointError:
            found += 1
        else:  # in the archive's own headers, which say nothing of the content
            assert_same(state, check_file(tmp_path / "run.ckpt"))
    assert found > 100

    saved = torch.load(tmp_path / "run.ckpt", weights_only=True)
    weight = saved["bmtl"]["svi"]["module"]["model.trunk.weight"]
    weight.view(torch.int32)[0, 0] ^= 1
    torch.save(saved, tmp_path / "flipped.ckpt")
    with pytest.raises(CheckpointError, match="the digest differs"):
        check_file(tmp_path / "flipped.ckpt")


# ---- Written so that it reads back -----------------------------------------------------------------------------------


def test_what_would_not_read_back_is_an_error_when_it_is_written(tmp_path, monkeypatch):
    svi = run()
    save(svi, tmp_path / "run.ckpt")
    before = (tmp_path / "run.ckpt").read_bytes()
    svi.optimizer.param_groups[0]["tag"] = object()
    with pytest.raises(CheckpointError, match=r"\['param_groups'\]\[0\]\['tag'\] is of type object"):
        save(svi, tmp_path / "run.ckpt")
    del svi.optimizer.param_groups[0]["tag"]

    written = torch.save

    def lossy(state, file):
        written({**state, "bmtl": {**state["bmtl"], "random": {}}}, file)

    monkeypatch.setattr(torch, "save", lossy)
    with pytest.raises(CheckpointError, match="does not read back"):
        save(svi, tmp_path / "run.ckpt")
    monkeypatch.undo()
    assert (tmp_path / "run.ckpt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["run.ckpt"]


def test_numpy_numbers_in_a_scheduler_and_an_optimizer_are_no_hindrance_to_fit(tmp_path):
    scheduler = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=np.float64(0.5))
    optim = functools.partial(torch.optim.Adam, lr=np.float64(0.01), betas=(np.float64(0.9), 0.999))
    svi = run("cagrad", optim, steps=0)
    bmtl.fit(svi, [batch()], [batch()], max_epochs=2, progress=False, out=tmp_path, scheduler=scheduler)
    again = run("cagrad", optim, steps=0)
    bmtl.fit(
        again, [batch()], [batch()], max_epochs=3, progress=False, out=tmp_path, scheduler=scheduler,
        resume=tmp_path / "last.ckpt",
    )  # fmt: skip
    assert again.steps == 3
    assert again.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 / 8)


@pytest.mark.parametrize("number", [1, 2, "3", None])
def test_another_schema_is_refused_with_the_way_out(tmp_path, number):
    svi = run()
    state = {**sealed({"bmtl": {"svi": svi.state_dict(), "random": random_state()}})}
    state["bmtl"]["schema"] = number
    torch.save(state, tmp_path / "run.ckpt")
    bmtl.fit(svi, [batch()], max_epochs=1, progress=False, out=tmp_path)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    saved["bmtl"]["schema"] = number
    torch.save(saved, tmp_path / "last.ckpt")
    for name, use in (
        ("run.ckpt", lambda path: load(svi, path)),
        ("last.ckpt", lambda path: bmtl.fit(svi, [batch()], max_epochs=2, progress=False, resume=path)),
    ):
        with pytest.raises(CheckpointError, match=f"{name}: It has schema {number}, .* reads schema 3. Train again"):
            use(tmp_path / name)


def test_the_files_of_the_first_schema_are_refused_with_the_way_out(tmp_path):
    torch.save({"format": 1, "svi": {}, "random": {}}, tmp_path / "run.ckpt")
    torch.save({"bmtl": {"svi": {}, "validation": {}, "seed": 0}, "epoch": 3}, tmp_path / "last.ckpt")
    for name in ("run.ckpt", "last.ckpt"):
        with pytest.raises(CheckpointError, match="It has schema 1, .* Train again"):
            check_file(tmp_path / name)
