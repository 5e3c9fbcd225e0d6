"""Training runs that a test makes in one process and in two, each of the two with rows of its own.

Every case is a function of (rank, world) that returns tensors; `work` runs all of them in a process of a group.
"""

import functools
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from lightning.pytorch import Trainer
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler

import bmtl
from bmtl.inference.lightning_module import BalancedTraining
from bmtl.inference.probe import ConflictProbe
from bmtl.inference.svi import BalancedSVI
from bmtl.inference.training import fit
from tests.inference.programs import NAN, Regressions, Sites, SitesGuide, batch, double, nothing

Found = dict[str, Tensor]
Case = Callable[[int, int], Found]
ROWS = 12  # of a step, in all processes together
N_DATA = 60
SGD = functools.partial(torch.optim.SGD, lr=0.05)


def joined(step: int, missing: str = "") -> tuple[Tensor, dict[str, Tensor]]:
    """The rows of a step: half of a's labels are missing, and the first process has none of the task `missing`."""
    x, y = batch(ROWS, seed=step, missing=False)
    y = {name: 1.0 + k + values for k, (name, values) in enumerate(y.items())}
    y["a"][::2] = NAN
    if missing:
        y[missing][: ROWS // 2] = NAN
    return x, y


def rows_of(rank: int, world: int, first: int = ROWS // 2) -> slice:
    """The rows of one process: the `first` ones are the first process's."""
    return slice(None) if world == 1 else (slice(0, first), slice(first, ROWS))[rank]


def part(given: tuple[Tensor, dict[str, Tensor]], rows: slice | list[int]) -> tuple[Tensor, dict[str, Tensor]]:
    x, y = given
    return x[rows], {name: values[rows] for name, values in y.items()}


def found_by(svi: BalancedSVI) -> Found:
    parameters = {f"p.{name}": p.detach().clone() for name, p in svi.module.named_parameters()}
    records = {
        name: torch.stack([getattr(r, name) for r in svi.history]) for name in ("losses", "weights", "weights_heads")
    }
    grams = [r.gram for r in svi.history if r.gram is not None]
    numbers = torch.tensor([[r.shared, r.fidelity] for r in svi.history])
    return {**parameters, **records, "gram": torch.stack(grams) if grams else torch.zeros(0), "numbers": numbers}


def regressions(
    rank: int,
    world: int,
    *,
    spec: str,
    missing: str = "",
    first: int = ROWS // 2,
    heads: str = "transform",
    normalize: str = "per_datum",
    halves: bool = False,
) -> Found:
    """Three squared errors on one trunk. The second process is built with another seed: the first one's counts."""
    torch.manual_seed(rank)
    balancer = bmtl.balancer(spec.format(seed=5 + rank), heads=heads)
    svi = BalancedSVI(Regressions(N_DATA), nothing, SGD, balancer, bmtl.TaskELBO(normalize=normalize))
    quarter = ROWS // 4
    mixed = [*range(quarter), *range(2 * quarter, 3 * quarter), *range(quarter, 2 * quarter), *range(3 * quarter, ROWS)]
    for _ in range(2):
        for step in range(2):
            given = joined(step, missing)
            if halves and world == 1:  # either half of the joined batch is that of both processes
                given = part(given, mixed)
            svi.step(*part(given, rows_of(rank, world, first)))
        svi.end_epoch()
    return found_by(svi)


class Visiting(Regressions):
    """Visits the tasks that the batch brings, each with inputs of its own."""

    def forward(self, x: dict[str, Tensor], y: dict[str, Tensor]) -> None:
        for name, values in y.items():
            h = bmtl.shared(torch.tanh(self.trunk(x[name])))
            with bmtl.task(name), pyro.plate(f"{name}_rows", self.n_data[name], subsample=values):
                bmtl.observe(f"y_{name}", dist.Normal(self.heads[name](h).squeeze(-1), 1.0), values)


def visits(rank: int, world: int, *, spec: str) -> Found:
    """Tasks with inputs and row numbers of their own; c is the second process's alone, a's rows are uneven."""
    torch.manual_seed(0)
    model = Visiting({"a": 40, "b": 60, "c": 50})
    svi = BalancedSVI(model, nothing, SGD, spec)
    cuts = {"a": 2, "b": ROWS // 2, "c": 0}
    for step in range(4):
        x, y = batch(ROWS, seed=step, missing=False)
        mine = {name: rows_of(rank, world, cut) for name, cut in cuts.items()}
        y = {name: y[name][rows] for name, rows in mine.items() if len(y[name][rows])}
        svi.step({name: x[mine[name]] for name in y}, y)
    return found_by(svi)


def watched(rank: int, world: int, *, spec: str) -> Found:
    """A probe, and a task that is measured only; the first process has no label of b."""
    torch.manual_seed(0)
    svi = BalancedSVI(Regressions(N_DATA), nothing, SGD, spec)
    svi.probe = ConflictProbe([("a", "b"), ("c", "b")], every=2, shadow=["a"])
    for step in range(3):
        svi.step(*part(joined(step, "b"), rows_of(rank, world)))
    probed = torch.tensor([list(record.probed.values()) for record in svi.history if record.probed])
    return found_by(svi) | {"probed": probed}


def latents(rank: int, world: int, *, spec: str, balanced: str) -> Found:
    """Latents of the whole data set; equal seeds give all processes the one process's draws."""
    torch.manual_seed(0)
    elbo = bmtl.TaskELBO(balanced=balanced)
    svi = BalancedSVI(Sites(N_DATA), SitesGuide(), functools.partial(SGD, lr=0.001), spec, elbo)
    for step in range(3):
        svi.step(*part(joined(step, "b"), rows_of(rank, world)))
    return found_by(svi)


class Faulty(Regressions):
    """At an input above 100 the gradient is NaN and the loss is not."""

    def forward(self, x: Tensor, y: dict[str, Tensor]) -> None:
        if (x > 100.0).any():
            bias = self.heads["a"].bias.sum()
            with bmtl.task("a"):
                pyro.factor("fault", (bias - bias).abs().sqrt())
        super().forward(x.clamp(max=10.0), y)


def compiled(rank: int, world: int) -> Found:
    """Both processes replay a captured graph; the one runs Python."""
    torch.manual_seed(0)
    svi = BalancedSVI(
        Regressions(N_DATA), nothing, SGD, "last-layer >> upgrad", compile="trace" if world > 1 else False
    )
    for step in range(4):
        svi.step(*part(joined(step, "b"), rows_of(rank, world)))
    assert svi.compiled.replayed or world == 1, svi.compiled.reason
    return found_by(svi)


def faults(rank: int, world: int) -> Found:
    """A NaN label, then a gradient that is NaN, in the second process alone; both skip both steps."""
    torch.manual_seed(0)
    svi = BalancedSVI(Faulty(N_DATA), nothing, SGD, "full >> upgrad", on_error="skip")
    for step in range(4):
        x, y = joined(step)
        if step == 1:
            y["b"][-1] = torch.inf
        if step == 2:
            x[-1] = 1e3
        svi.step(*part((x, y), rows_of(rank, world)))
    skipped = torch.tensor([r.status == "skipped" for r in svi.history])
    return {**found_by(svi), "skipped": skipped}


def accumulated(rank: int, world: int) -> Found:
    """Gradients of two batches, added up."""
    torch.manual_seed(0)
    svi = BalancedSVI(Regressions(N_DATA), nothing, SGD, "last-layer >> mgda")
    for step in range(2):
        svi.backward(*part(joined(step, "c"), rows_of(rank, world)))
    return {str(k): p.grad for k, p in enumerate(svi.parameters) if p.grad is not None}


def told_apart(rank: int, world: int) -> Found:
    """What the processes must not differ in is an error in both."""
    if world == 1:
        return {}
    width = {"width": 3 + rank}
    svi = BalancedSVI(Regressions(N_DATA, **width), nothing, SGD)
    with pytest.raises(ValueError, match="different parameters"):
        svi.step(*joined(0))
    return {}


def wrapped(rank: int, world: int) -> Found:
    """Torch's wrapper is refused: its hooks wait for one backward of one loss."""
    if world == 1:
        return {}
    model = Regressions(N_DATA)
    model.trunk = nn.parallel.DistributedDataParallel(model.trunk)  # type: ignore[assignment]
    with pytest.raises(ValueError, match="averages over the processes itself"):
        BalancedSVI(model, nothing, SGD)
    return {}


def own_draws(rank: int, world: int) -> Found:
    """Processes with seeds of their own draw latents of their own, and stay together all the same."""
    if world == 1:
        return {}
    torch.manual_seed(rank)
    model = Sites(N_DATA)
    svi = BalancedSVI(model, AutoNormal(model), functools.partial(SGD, lr=0.001), "full >> nash-mtl")
    for step in range(3):
        svi.step(*part(joined(step), rows_of(rank, world)))
    mine = [p.grad.clone() for p in svi.parameters]
    return {**found_by(svi), "gradients": torch.cat([g.reshape(-1) for g in mine])}


def scaled(rank: int, world: int) -> Found:
    """A gradient scaler; the second process's rows overflow in the second step, and both lower the scale."""
    torch.manual_seed(0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=2)
    svi = BalancedSVI(Faulty(N_DATA), nothing, SGD, "igb-v1 >> last-layer >> nash-mtl", scaler=scaler)
    scales = []
    for step in range(5):
        x, y = joined(step)
        if step == 1:
            x[-1] = 1e3
        svi.step(*part((x, y), rows_of(rank, world)))
        scales.append(svi.scale)
    assert scales == [256.0, 128.0, 256.0, 256.0, 512.0], scales
    return found_by(svi)


def fitted(rank: int, world: int) -> Found:
    """`fit`, whose batches each process takes in turn; one that is left over is left out."""
    torch.manual_seed(rank)
    svi = BalancedSVI(Regressions(N_DATA), nothing, SGD, "igb-v1 >> representation >> nash-mtl")
    train = [joined(step, "b") for step in range(3)]
    if world > 1:
        train = [part(given, rows_of(r, world)) for given in train for r in range(world)] + [joined(9)]
    val = [joined(step) for step in range(4, 7)]
    result = fit(svi, train, val, max_epochs=2, clip=0.5, accelerator="cpu", devices=world, progress=False)
    assert result.best_epoch == 2
    validation = {f"val.{name}": torch.tensor(values) for name, values in result.validation.items()}
    return {**found_by(svi), **validation}


def lightning(rank: int, world: int) -> Found:
    """A Trainer of the user's own, with the rows of training and validation divided among the processes."""
    torch.manual_seed(rank)
    svi = BalancedSVI(Regressions(N_DATA), nothing, SGD, "full >> upgrad")
    rows = [joined(0), joined(1)]
    table = [part(given, [row]) for given in rows for row in range(ROWS)]  # a row of the table is a batch of one

    def joined_rows(parts: list[tuple[Tensor, dict[str, Tensor]]]) -> tuple[Tensor, dict[str, Tensor]]:
        return torch.cat([x for x, _ in parts]), {n: torch.cat([y[n] for _, y in parts]) for n in parts[0][1]}

    # Lightning's own sampler would shuffle.
    sampler = DistributedSampler(table, shuffle=False) if world > 1 else None  # type: ignore[arg-type,var-annotated]
    loader = DataLoader(table, ROWS // world, sampler=sampler, collate_fn=joined_rows)  # type: ignore[arg-type]
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=world,
        strategy="auto" if world == 1 else "ddp",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = BalancedTraining(svi)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's on the number of workers
        trainer.fit(module, loader, loader)
    return {**found_by(svi), **{f"val.{name}": torch.tensor(values) for name, values in module.validation.items()}}


_SPECS = {
    **{
        spec: {"spec": spec}
        for spec in ("ew", "uw", "famo", "dwa(window=2)", "full >> aligned-mtl", "last-layer >> mgda")
    },
    **{
        f"igb-v1, {geometry}": {"spec": f"igb-v1(base_epoch=1) >> {geometry} >> nash-mtl"}
        for geometry in ("full", "last-layer", "representation")
    },
    "random": {"spec": "rlw(seed={seed}) >> last-layer >> pcgrad(seed={seed})"},
    "sign dropout, all kept": {"spec": "full >> grad-drop(seed={seed}, leak=1.0)"},
    "averages": {"spec": "full >> db-mtl"},
    "gradient norms": {"spec": "grad-norm >> full"},
    "kept": {"spec": "full(every=2) >> upgrad", "heads": "alpha"},
    "kept, heads apart": {"spec": "representation(every=2) >> upgrad"},
    "fidelity": {"spec": "representation(fidelity_every=1) >> cagrad"},
    "draws": {"spec": "bayes-agg(seed={seed})"},
    "two samples": {"spec": "full(cross=True) >> sdm-grad", "halves": True},
    "other examples": {"spec": "last-layer(cross=True) >> sdm-grad"},
}


def late(rank: int, world: int) -> Found:
    """A layer is unfrozen and a head replaced, with other values in each process: those of the first one count."""
    torch.manual_seed(rank)
    svi = BalancedSVI(Regressions(N_DATA), nothing, SGD, "full >> nash-mtl")
    svi.model.trunk.bias.requires_grad_(False)
    svi.step(*part(joined(0), rows_of(rank, world)))
    svi.model.trunk.bias.requires_grad_(True)
    torch.manual_seed(7 + rank)
    svi.model.heads["b"] = nn.Linear(4, 1)
    if world > 1:
        with pytest.raises(ValueError, match=r"lacks.*'model.heads.b.weight'.*svi.refresh\(\) in all of them"):
            svi.step(*part(joined(1), rows_of(rank, world)))
    assert set(svi.refresh()) == {"model.trunk.bias", "model.heads.b.weight", "model.heads.b.bias"}
    for step in range(1, 4):
        svi.step(*part(joined(step), rows_of(rank, world)))
    if world > 1:
        if rank:
            svi.model.heads["c"].register_parameter("more", nn.Parameter(torch.zeros(2)))
        with pytest.raises(ValueError, match="processes train together and have different parameters"):
            svi.refresh()
    return found_by(svi) if not rank else {n: t for n, t in found_by(svi).items() if n != "p.model.heads.c.more"}


CASES: dict[str, Case] = {
    **{name: functools.partial(regressions, **options) for name, options in _SPECS.items()},
    **{
        f"labels in one process, {spec}, {normalize}": functools.partial(
            regressions, spec=spec, normalize=normalize, missing="b"
        )
        for spec in ("igb-v1(base_epoch=1) >> nash-mtl", "last-layer >> imtl-g", "representation >> upgrad")
        for normalize in ("per_datum", "task_mean")
    },
    # Which draw falls to which parameter depends on their order, which is another in one process.
    "sign dropout": lambda rank, world: (
        regressions(rank, 2, spec="full >> grad-drop(seed={seed})") if world > 1 else {}
    ),
    "uneven rows": functools.partial(regressions, spec="last-layer >> nash-mtl", first=8),
    "uneven rows, by task": functools.partial(regressions, spec="full >> nash-mtl", first=9, normalize="task_mean"),
    **{
        f"visits, {g}": functools.partial(visits, spec=f"{g} >> nash-mtl")
        for g in ("full", "last-layer", "representation")
    },
    **{f"latents, {b}": functools.partial(latents, spec="full >> imtl-g", balanced=b) for b in ("likelihood", "elbo")},
    "latents, at the mark": functools.partial(latents, spec="last-layer >> imtl-g", balanced="likelihood"),
    "latents, drawn again": functools.partial(latents, spec="bayes-agg", balanced="likelihood"),
    "compiled": compiled,
    "faults": faults,
    "accumulated": accumulated,
    "own draws": own_draws,
    "scaled": scaled,
    "fitted": fitted,
    "lightning": lightning,
    "told apart": told_apart,
    "wrapped": wrapped,
    "late": late,
    **{f"watched, {spec}": functools.partial(watched, spec=spec) for spec in ("ew", "last-layer >> nash-mtl")},
}


def run(name: str, rank: int = 0, world: int = 1) -> Found:
    with double():
        return CASES[name](rank, world)


def work(rank: int, world: int, folder: str) -> None:
    """Runs all cases in a process of a group and writes what was found."""
    torch.set_num_threads(1)
    meeting = Path(folder, "meeting")
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    # What torchrun would set, for Lightning.
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "GROUP_RANK": 0}
    os.environ.update({name: str(number) for name, number in numbers.items()}, TORCHELASTIC_RUN_ID="test")
    found = {}
    for name in CASES:
        # Under debugging the processes compare their weights in each step, which takes its time.
        level = torch.distributed.DebugLevel.INFO if name == "random" else torch.distributed.DebugLevel.OFF
        torch.distributed.set_debug_level(level)
        found[name] = run(name, rank, world)
    torch.save(found, Path(folder, f"{rank}.pt"))
    torch.distributed.destroy_process_group()
