"""Models and balancers of one's own by their paths: in two processes, under Dask, and in a model that is loaded again."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from joblib.externals.loky import get_reusable_executor

import bmtl
from bmtl.datasets import load
from bmtl.evaluation import results
from bmtl.evaluation.attributes import decode_attributes
from tests.cli.commands import TINY

pytestmark = pytest.mark.usefixtures("short_ending")

CODE = '''
"""Counts by a Poisson program without any of bmtl's recipes, and a balancer."""
import pyro
import pyro.distributions as dist
import torch
from torch import nn

import bmtl
from bmtl.experiments import Method
from bmtl.inference.balancing import Transform


class Counts(nn.Module):
    def __init__(self, targets, n_data, width):
        super().__init__()
        self.targets, self.n_data = list(targets), n_data
        self.trunk = nn.Linear(3, width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, 1) for name in targets})

    def forward(self, x, y=None):
        h = bmtl.shared(self.trunk(x).relu())
        for name in self.targets:
            with bmtl.task(name):
                factor = pyro.sample(f"factor_{name}", dist.LogNormal(h.new_zeros(()), 0.5 * h.new_ones(())))
                rate = factor * self.heads[name](h)[..., 0].exp()
                with pyro.plate(f"{name}_rows", self.n_data, subsample=h):
                    bmtl.observe(f"y_{name}", dist.Poisson(rate), None if y is None else y[name])


def counts(spec, *, width=5):
    """Own layers of the global generator, and no use for the trunk."""
    return Counts(spec.targets, spec.n_data, width), "auto-normal"


class Halves(Transform):
    def loss_derivatives(self, losses, ctx):
        return torch.full_like(losses, FACTOR)


FACTOR = 0.5
wide = Method("wide", model=__file__ + ":counts", options={"width": 7}, normalize="per_datum")
text = "neither"
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with code of one's own and 80 rows of two targets that are counts, some missing."""
    random = np.random.default_rng(0)
    x = random.normal(size=(80, 3))
    rate = np.exp(np.stack([1 + 0.5 * x[:, 0], 0.5 - 0.3 * x[:, 1]], 1))
    labels = random.poisson(rate).astype(float)
    labels[[3, 50], 1] = np.nan
    np.savez(tmp_path / "counts.npz", X=x, y=labels, task_names=np.array(["visits", "calls"]))
    (tmp_path / "mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


DATA = ("npz:counts.npz", "-d", "kinds=count")
METHODS = "mine.py:counts,ew,mine.py:Halves,mine.py:wide,mypackage.balancers:Thirds"


def test_own_recipes_slots_and_methods_are_compared_in_two_processes(run, folder, monkeypatch):
    """By their files, and by a module of a package below the current folder, which new processes find too."""
    (folder / "mypackage").mkdir()
    (folder / "mypackage/__init__.py").touch()
    (folder / "mypackage/balancers.py").write_text(CODE.replace("Halves", "Thirds"))
    monkeypatch.setattr(sys, "path", sys.path.copy())  # the command adds the current folder
    get_reusable_executor().shutdown()  # processes of an earlier test have the path of then
    given = ("compare", *DATA, *TINY, "--methods", METHODS, "--no-reference", "--jobs", 2, "--out", "out")
    code, out, err = run(*given)
    assert (code, err) == (0, ""), out
    assert "visits: count" in out
    frame = pd.read_csv("out/table.csv", index_col="learner")
    assert frame.index.tolist() == ["counts", "ew", "Halves", "wide", "Thirds"]
    assert np.isfinite(frame.filter(like="MAE")).all(axis=None)
    tree = results.read(folder / "out/counts/seed-0/results.nc")
    assert set(tree["posterior"].data_vars) == {"factor_visits", "factor_calls"}
    assert float(tree["test/predictive_mean/y_visits"].min()) > 0  # counts, which nothing has scaled
    weights = results.read(folder / "out/Halves/seed-0/results.nc")["training/weights"].values
    np.testing.assert_array_equal(weights, 0.5)

    file = folder / "out/Halves/seed-0/results.nc"
    written = {path: path.stat().st_mtime_ns for path in folder.glob("out/*/*/results.nc")}
    assert run(*given)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in written} == written  # finished cells are not run again
    (folder / "mine.py").write_text(CODE.replace("FACTOR = 0.5", "FACTOR = 0.25"))
    assert run(*given, "--methods", "ew,mine.py:Halves")[0] == 0
    np.testing.assert_array_equal(results.read(file)["training/weights"].values, 0.25)  # of other code
    ew = folder / "out/ew/seed-0/results.nc"
    assert ew.stat().st_mtime_ns == written[ew]


def test_the_seed_decides_weights_that_a_recipe_draws_without_the_generator(run, folder):
    """In one process or in two: the run is the same."""
    for jobs, out in ((1, "a"), (2, "b")):
        methods = ("--methods", "mine.py:counts,ew", "--no-reference", "--jobs", jobs)
        code, told, err = run("compare", *DATA, *TINY, *methods, "--out", out)
        assert code == 0, told + err
    one, other = (results.read(folder / out / "counts/seed-0/results.nc") for out in "ab")
    np.testing.assert_array_equal(one["training/losses"].values, other["training/losses"].values)
    np.testing.assert_array_equal(one["posterior/factor_calls"].values, other["posterior/factor_calls"].values)


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None, protocol="tcp"
    ) as local:
        yield local.scheduler_address


def test_own_code_runs_under_dask(run, folder, cluster):
    methods = ("--methods", "mine.py:counts,mine.py:Halves", "--no-reference")
    code, out, err = run("compare", *DATA, *TINY, *methods, "--dask", cluster, "--out", folder / "out")
    assert code == 0, out + err  # Dask logs to the same stream when a busy machine keeps its event loop waiting
    assert "Traceback" not in err
    assert pd.read_csv("out/table.csv", index_col="learner").index.tolist() == ["counts", "Halves"]
    code = decode_attributes(results.read(folder / "out/Halves/seed-0/results.nc"))["configuration"]["method"]["code"]
    assert list(code) == [f"{folder}/mine.py:Halves"]


def test_every_method_under_a_balancer_of_ones_own(run, folder):
    given = ("--methods", "ew,mine.py:counts", "--balancers", "ew,mine.py:Halves >> last-layer >> nash-mtl")
    code, out, err = run("compare", *DATA, *TINY, *given, "--no-reference", "--jobs", 1, "--out", "out")
    assert code == 0, err + out
    frame = pd.read_csv("out/table.csv", index_col="learner")
    assert len(frame) == 4
    assert all(len(path.relative_to(folder / "out").parts[0]) < 60 for path in folder.glob("out/*/*/results.nc"))


def in_folder(folder, *arguments):
    """The command line in a new process whose current folder this is."""
    command = [sys.executable, "-c", "from bmtl.cli import main; main()", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(Path(bmtl.__file__).parents[1])}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_model_of_own_code_predicts_in_a_new_process_if_allowed_and_unchanged(run, folder, monkeypatch):
    code, out, err = run(
        "train", *DATA, *TINY, "--method", "mine.py:counts", "--balancer", "mine.py:Halves", "--out", "m"
    )
    assert code == 0, out + err
    data = load("npz:counts.npz", kinds="count")
    np.savez(folder / "new.npz", X=data.inputs.x[data.rows["test"]])
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    given = ("predict", folder / "m", "--data", folder / "new.npz", "--out")

    code, out, err = run(*given, "refused/p.csv")
    assert (code, out) == (2, "")
    assert f"{folder}/mine.py:counts" in err
    assert "--allow-code" in err
    assert not (elsewhere / "refused").exists()

    code, out, err = in_folder(elsewhere, *given, "p.csv", "--allow-code")
    assert (code, err) == (0, ""), err
    frame = pd.read_csv(elsewhere / "p.csv")
    of_the_run = results.read(folder / "m/results.nc")["test/predictive_mean/y_visits"]
    np.testing.assert_allclose(frame["visits mean"], of_the_run, rtol=1e-5)

    (folder / "mine.py").write_text(CODE + "\n")
    code, out, err = run(*given, "q.csv", "--allow-code")
    assert (code, out) == (2, "")
    assert "mine.py:counts has changed since" in err
    assert "restore" in err
    (folder / "mine.py").unlink()
    code, _, err = run(*given, "q.csv", "--allow-code")
    assert code == 2
    assert f"There is no file {folder}/mine.py" in err


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none.py:counts", "There is no file "),
        ("mine.py:cuonts", "mine.py has no 'cuonts'. It defines: Counts, counts, Halves"),
        ("mine.py:text", "mine.py:text is a str; a method is a recipe"),
        ("mine.py:Counts", "failed"),
        ("no_package.part:recipe", "No module named 'no_package'"),
        ("broken.py:recipe", "broken.py cannot be imported: line 2 raises (ZeroDivisionError"),
        ("unfinished.py:recipe", "SyntaxError"),
        ("mine.py", "no method and no balancer 'mine.py'"),
    ],
)
def test_code_that_will_not_do_is_named(run, folder, path, message):
    (folder / "broken.py").write_text("x = 1\ny = x / 0\n")
    (folder / "unfinished.py").write_text("def recipe(:\n")
    code, out, err = run("compare", *DATA, *TINY, "--methods", path, "--jobs", 1, "--out", folder / "out")
    if path.endswith("Counts"):  # a class that is no recipe is known by what it does, when it is asked for a model
        assert code == 1
        assert "TypeError" in err
    else:
        assert code == 2
        assert message in err
        assert not (folder / "out").exists()
    assert "Traceback" not in err + out
