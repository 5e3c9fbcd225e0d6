"""Steps that replay a captured graph: equal to ordinary steps, and never a silently stale branch."""

import copy
import dataclasses
import functools
import logging
import random
import time
from collections import OrderedDict, deque

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

import bmtl
from bmtl.experiments.methods import Method
from bmtl.inference.compiled import pair
from bmtl.inference.compiled.choosing import Pace, missing_compiler
from bmtl.inference.compiled.program_state import ProgramState, rounding_now
from bmtl.inference.compiled.segments import segments_of
from bmtl.inference.training import fit
from bmtl.models import TaskModel, mlp
from bmtl.models.likelihoods import Gaussian

ADAM = functools.partial(torch.optim.Adam, lr=1e-2)
NAMES = ("a", "b")


def batch(seed: int, rows: int = 12, missing: bool = False, absent: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 4, generator=generator)
    y = {name: torch.randn(rows, generator=generator) for name in NAMES}
    if missing:
        y["a"][::3] = torch.nan
    if absent:
        y["b"][:] = torch.nan
    return x, y


class Program(nn.Module):
    """A trunk with batch norm and dropout, and heads whose weights are latent."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 8))
        self.factor = 1.0

    def forward(self, x: Tensor, y: dict[str, Tensor] | None = None) -> None:
        h = bmtl.shared(self.represent(x))
        for name in NAMES:
            with bmtl.task(name):
                w = pyro.sample(f"w_{name}", dist.Normal(torch.zeros(8), 1.0).to_event(1))
                with pyro.plate(f"{name}_rows", 100, subsample=x):
                    fn = dist.Normal(h @ w, 1.0 / self.factor)
                    bmtl.observe(f"y_{name}", fn, None if y is None else y[name])

    def represent(self, x: Tensor) -> Tensor:
        return self.trunk(x)


class Guide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(2, 8))
        self.rho = nn.Parameter(torch.full((2, 8), -2.0))

    def forward(self, x: Tensor, y: dict[str, Tensor] | None = None) -> None:
        for k, name in enumerate(NAMES):
            pyro.sample(f"w_{name}", dist.Normal(self.loc[k], self.rho[k].exp()).to_event(1))


def svi(compile, balancer="ew", program=Program, elbo=None, **options) -> bmtl.BalancedSVI:
    torch.manual_seed(0)
    return bmtl.BalancedSVI(program(), Guide(), ADAM, balancer, elbo or bmtl.TaskELBO(), compile=compile, **options)


def train(of: bmtl.BalancedSVI, batches, seed: int = 1, before_step=lambda of, n: None) -> bmtl.BalancedSVI:
    torch.manual_seed(seed)
    for n, each in enumerate(batches):
        before_step(of, n)
        of.step(*each)
    return of


def assert_equal(one: bmtl.BalancedSVI, other: bmtl.BalancedSVI, tolerance: float = 0.0) -> None:
    states = [each.program_state()["module"] for each in (one, other)]
    for (name, a), b in zip(states[0].items(), states[1].values(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, equal_nan=True, msg=name)
    for a, b in zip(one.history, other.history, strict=True):
        torch.testing.assert_close(a.losses, b.losses, rtol=tolerance, atol=tolerance, equal_nan=True)
        torch.testing.assert_close(a.weights, b.weights, rtol=tolerance, atol=tolerance, equal_nan=True)


VARIED = [
    *(batch(0), batch(1), batch(2, missing=True), batch(3), batch(4, rows=5)),
    *(batch(5, absent=True), batch(6, missing=True), batch(7, rows=5, absent=True), batch(8), batch(9, rows=5)),
]


def warned(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("bmtl.inference.compiled")]


@pytest.mark.parametrize(
    "balancer", ["uw", "igb-v1 >> full >> nash-mtl", "last-layer >> upgrad", "full(cross=True) >> upgrad"]
)
def test_replayed_steps_equal_ordinary_ones_bit_for_bit(balancer, caplog):
    compiled = train(svi("trace", balancer), VARIED)
    assert_equal(train(svi(False, balancer), VARIED), compiled)
    assert not warned(caplog)


def test_score_terms_and_several_particles_are_replayed(caplog):
    class Switched(Program):
        def represent(self, x: Tensor) -> Tensor:
            return self.trunk(x) * pyro.sample("on", dist.Bernoulli(0.5))

    class SwitchedGuide(Guide):
        def __init__(self) -> None:
            super().__init__()
            self.logit = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor, y: dict[str, Tensor] | None = None) -> None:
            super().forward(x, y)
            pyro.sample("on", dist.Bernoulli(logits=self.logit))

    def made(compile) -> bmtl.BalancedSVI:
        torch.manual_seed(0)
        return bmtl.BalancedSVI(
            Switched(), SwitchedGuide(), ADAM, "ew", bmtl.TaskELBO(num_particles=2), compile=compile
        )

    compiled = train(made("trace"), VARIED[:4])
    assert_equal(train(made(False), VARIED[:4]), compiled)
    assert not warned(caplog)


# ---- What cannot be captured -----------------------------------------------------------------------------------------


class OnValue(Program):
    def represent(self, x: Tensor) -> Tensor:
        h = self.trunk(x)
        return -h if h.sum() > 0 else h


class OnItem(Program):
    def represent(self, x: Tensor) -> Tensor:
        return self.trunk(x) * self.trunk[0].bias.norm().item()


class OnRows(Program):
    def represent(self, x: Tensor) -> Tensor:
        h = self.trunk(x)
        return h - h[x[:, 0] > 0].mean(0)


class Counting(Program):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def represent(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.trunk(x) * (1.0 if self.calls < 6 else 2.0)


class OnRandom(Program):
    """Branches on numbers of Python's generator, seldom."""

    def represent(self, x: Tensor) -> Tensor:
        h = self.trunk(x)
        return -h if random.random() < 1e-9 else h


class OnDerivative(Program):
    def represent(self, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        return self.trunk(x + torch.autograd.grad(self.trunk(x).sum(), x)[0])


@pytest.mark.parametrize(
    ("program", "statement"),
    [
        (OnValue, "return -h if h.sum() > 0 else h"),
        (OnItem, "self.trunk[0].bias.norm().item()"),
        (OnRows, "return h - h[x[:, 0] > 0].mean(0)"),
        (Counting, "Counting.calls changes while the program runs"),
        (OnRandom, "a replay differs from a run as Python (the random numbers drawn)"),
        (OnDerivative, "torch.autograd.grad(self.trunk(x).sum(), x)"),
    ],
)
def test_a_program_that_no_graph_can_repeat_runs_as_python_and_says_where(program, statement, caplog):
    compiled = train(svi("trace", program=program), VARIED)
    assert_equal(train(svi(False, program=program), VARIED), compiled)
    (message,) = warned(caplog)
    assert "run as Python" in message
    assert statement in message


def test_a_branch_after_a_hundred_steps_is_found_and_named(caplog):
    class Late(Program):
        def __init__(self) -> None:
            super().__init__()
            self.clock = np.zeros(5000)  # too many numbers to look at all of them in every step

        def represent(self, x: Tensor) -> Tensor:
            h = self.trunk(x)
            if self.clock[1] >= 100:
                h = h.exp()
            return h

    def tick(of: bmtl.BalancedSVI, n: int) -> None:
        of.model.clock[1] = n

    compiled = svi("trace", program=Late)
    train(compiled, [batch(0)] * 100, before_step=tick)
    assert_equal(train(svi(False, program=Late), [batch(0)] * 100, before_step=tick), compiled)
    assert not warned(caplog)
    train(compiled, [batch(0)] * 64, before_step=lambda of, n: tick(of, 100 + n))
    (message,) = warned(caplog)
    assert "h = h.exp()" in message
    assert "since the last comparison" in message


SCALE = 1.0


def test_numbers_on_attributes_in_closures_and_globals_are_never_stale(caplog):
    class Annealed(Program):
        def represent(self, x: Tensor) -> Tensor:
            return self.trunk(x) * SCALE

    def anneal(of: bmtl.BalancedSVI, n: int) -> None:
        of.model.factor = 1.0 + n // 3
        global SCALE
        SCALE = 1.0 if n < 7 else 2.0

    batches = [batch(n) for n in range(10)]
    compiled = train(svi("trace", program=Annealed), batches, before_step=anneal)
    assert_equal(train(svi(False, program=Annealed), batches, before_step=anneal), compiled)
    assert not warned(caplog)


@dataclasses.dataclass
class Options:
    power: float = 1.0
    queue: deque[float] = dataclasses.field(default_factory=deque)
    numbers: np.random.Generator = dataclasses.field(default_factory=np.random.default_rng)
    of_python: random.Random = dataclasses.field(default_factory=random.Random)
    tensors: list[Tensor] = dataclasses.field(default_factory=lambda: [torch.ones(1)])


@dataclasses.dataclass(slots=True)
class Slots:
    power: float = 1.0


OPTIONS = {"of": [Options()]}
CHANGES = {
    "a dict": lambda of: of.by_name.update(w=2.0),
    "a list in a list": lambda of: of.listed[0].append(2.0),
    "a set": lambda of: of.chosen.add("b"),
    "a new tuple": lambda of: setattr(of, "pair", (1.0, 2.0)),
    "a number of numpy": lambda of: setattr(of, "number", np.float32(2.0)),
    "the class": lambda of: setattr(Holding, "of_class", 2.0),
    "an object": lambda of: setattr(of.own, "power", 2.0),
    "an array": lambda of: of.array.fill(2.0),
    "an array in a dict": lambda of: of.by_name["clock"].fill(2.0),
    "a global's object": lambda of: setattr(OPTIONS["of"][0], "power", 2.0),
    "a queue": lambda of: of.own.queue.append(2.0),
    "a generator of numpy": lambda of: of.own.numbers.random(),
    "a generator of Python": lambda of: of.own.of_python.random(),
    "a tensor in a list": lambda of: of.own.tensors.__setitem__(0, torch.zeros(1)),
    "an object with slots": lambda of: setattr(of.slots, "power", 2.0),
    "a default": lambda of: of.function.__kwdefaults__.update(power=2.0),
}
REPLACED = {
    "another array": lambda of: setattr(of, "array", np.full(1, 2.0)),
    "many numbers": lambda of: of.many.__imul__(2.0),
    "a hook": lambda of: of.trunk[0].register_forward_hook(lambda module, x, h: 2.0 * h),
}


class Holding(Program):
    of_class = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.by_name, self.listed, self.pair, self.chosen = (
            {"w": 1.0, "b": [None], "clock": np.zeros((2, 2), int)},
            [[1.0]],
            (1.0, 1.0),
            {"a"},
        )
        self.number, self.array, self.own, self.rows = np.float32(1.0), np.ones(1), Options(), list(range(5000))
        self.many, self.slots = np.ones(5000), Slots()

        def function(h: Tensor, *, power: float = 1.0) -> Tensor:
            return h * power

        self.function = function

    def represent(self, x: Tensor) -> Tensor:
        return self.trunk(x) * OPTIONS["of"][0].power


@pytest.mark.parametrize("what", [*CHANGES, *REPLACED])
def test_another_value_in_a_container_object_or_class_is_another_state(what):
    OPTIONS["of"], Holding.of_class = [Options()], 1.0
    program = Holding()
    state = ProgramState(program)
    before = state.version()
    program.rows[0] = 7  # data
    assert state.version() == before
    (CHANGES | REPLACED)[what](program)
    if what in CHANGES:  # by the program itself, which is captured
        assert len(state.put_back()) == 1
        assert state.version() == before
        CHANGES[what](program)
    assert state.version() != before


def test_steps_inside_a_handler_are_not_those_outside(caplog):
    found = []
    for compile in ("trace", False):
        of = train(svi(compile), [batch(0)] * 3)
        with pyro.poutine.scale(scale=0.1):
            found.append(train(of, [batch(0)]))
    assert_equal(*found)
    (message,) = warned(caplog)
    assert "ScaleMessenger" in message


def test_forms_that_never_come_back_are_reported(caplog):
    batches = [batch(n, rows=n + 3) for n in range(18)]
    compiled = train(svi("trace"), batches)
    assert_equal(train(svi(False), batches), compiled)
    (message,) = warned(caplog)
    assert "shapes of its own" in message


# ---- Training --------------------------------------------------------------------------------------------------------


def test_clipping_accumulation_schedules_and_resumption_are_those_of_ordinary_steps(tmp_path, caplog):
    batches = [batch(n) for n in range(4)] + [batch(4, rows=5)]
    schedule = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=3, gamma=0.5)
    options = {"clip": 1.0, "accumulate": 2, "scheduler": schedule, "interval": "step", "progress": False}

    def run(*modes) -> bmtl.BalancedSVI:
        resume = None
        for epochs, mode in enumerate(modes, 1):
            of = svi(mode, "last-layer >> upgrad")
            out = tmp_path / "-".join(map(str, modes)) / str(epochs)
            fit(of, batches, batches[:1], max_epochs=epochs, out=out, resume=resume, restore_best=False, **options)
            resume = out / "last.ckpt"
        return of

    eager = run(False, False, False)
    assert_equal(eager, run(False, "trace", False))
    assert_equal(eager, run("trace", "trace", "trace"))
    assert not warned(caplog)


def test_autocast_is_part_of_the_form(monkeypatch, caplog):
    monkeypatch.setattr(pair, "_lowered", lambda graph, **_: lambda given: graph(*given))
    monkeypatch.setattr(pair, "_compiled", OrderedDict())

    class Partly(Program):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())

        def represent(self, x: Tensor) -> Tensor:
            h = self.trunk(x)
            with torch.autocast("cpu", enabled=False):  # in float32, whatever is outside
                return h + h.float() @ self.trunk[2].weight

    def run(mode) -> bmtl.BalancedSVI:
        of = svi(mode, program=Partly)
        for n in range(6):
            torch.manual_seed(n)
            with torch.autocast("cpu", torch.bfloat16, enabled=n >= 2):
                of.step(*batch(n))
                rounding = rounding_now()
            assert rounding == (2 * torch.finfo(torch.bfloat16).eps if n >= 2 else 1e-4)
        assert len(of.compiled._entries) == (2 if mode else 0)
        return of

    eager = run(False)
    assert_equal(eager, run("trace"))
    assert_equal(eager, run("inductor"), tolerance=2 * torch.finfo(torch.bfloat16).eps)
    assert not warned(caplog)


def test_frozen_and_replaced_parameters_are_another_form():
    def change(of: bmtl.BalancedSVI, n: int) -> None:
        if n == 2:
            of.model.trunk[0].requires_grad_(False)
        if n == 4:
            of.model.trunk[4] = copy.deepcopy(of.model.trunk[4])

    batches = [batch(n) for n in range(8)]
    compiled = train(svi("trace"), batches, before_step=change)
    assert_equal(train(svi(False), batches, before_step=change), compiled)


def test_params_of_plain_functions_are_replayed():
    def run(mode) -> Tensor:
        pyro.clear_param_store()

        def model(x: Tensor, y: dict[str, Tensor]) -> None:
            w = pyro.param("w", torch.full((4,), 0.1), constraint=dist.constraints.positive)
            for name in NAMES:
                with bmtl.task(name), pyro.plate(f"{name}_rows", 100, subsample=x):
                    pyro.sample(f"y_{name}", dist.Normal(x @ w, 1.0), obs=y[name])

        of = bmtl.BalancedSVI(model, lambda x, y: None, ADAM, compile=mode)
        return train(of, [batch(n) for n in range(5)]).parameters[0].detach().clone()

    assert torch.equal(run(False), run("trace"))


def test_wrong_words_are_refused():
    with pytest.raises(ValueError, match="compile is 'trace' or 'inductor' or 'auto', and 'fast' was given"):
        svi("fast")


# ---- Ways of running -------------------------------------------------------------------------------------------------


def test_without_a_compiler_inductor_is_an_error_and_auto_traces(monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeError, match="no C\\+\\+ compiler 'no-such-compiler'.*compile='trace'"):
        svi("inductor")
    caplog.set_level(logging.INFO, logger="bmtl")
    automatic = train(svi("auto"), VARIED[:4])
    assert "no C++ compiler 'no-such-compiler'" in caplog.text
    assert_equal(train(svi(False), VARIED[:4]), automatic)
    assert not automatic.compiled.compiles


def test_automatic_compiling_waits_for_enough_steps(caplog):
    caplog.set_level(logging.INFO, logger="bmtl")
    pace = Pace()
    pace.left = 100_000
    for _ in range(40):
        pace.tick()
        time.sleep(0.002)
    assert pace.left == 99_960
    assert pace.repays(100)
    assert "for the 99960 steps that are left" in caplog.text
    pace.left = 500
    assert not pace.repays(100)


def test_fit_and_methods_take_the_way_of_running(tmp_path):
    of = svi(False)
    batches = [batch(n) for n in range(3)]
    fit(of, batches, max_epochs=2, compile="trace", progress=False)
    assert of.compiled.mode == "trace"
    assert of.compiled.pace.left == 3
    assert Method("m").compiled("auto").settings()["compile"] == "auto"
    with pytest.raises(ValueError, match="compile is 'no' or 'trace'"):
        Method("m").compiled("fast")


@pytest.fixture
def _distributions_validate():
    """The first `torch.compile` of a process ends the checks of torch's distributions, for good."""
    before = torch.distributions.Distribution._validate_args
    yield
    torch.distributions.Distribution.set_default_validate_args(before)


@pytest.mark.parametrize("balancer", ["full >> upgrad", "last-layer >> upgrad"])
@pytest.mark.usefixtures("_distributions_validate")
def test_parts_that_torch_has_compiled_work_under_every_geometry(balancer):
    def run(wrap) -> bmtl.BalancedSVI:
        class Wrapped(Program):
            def __init__(self) -> None:
                super().__init__()
                self.trunk = wrap(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8)))

        return train(svi(False, balancer, program=Wrapped), [batch(0), batch(1)])

    compiled = run(lambda trunk: torch.compile(trunk, backend="aot_eager"))
    for a, b in zip(run(lambda trunk: trunk).parameters, compiled.parameters, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("balancer", ["igb-v1", "full >> upgrad", "last-layer >> nash-mtl"])
def test_segments_with_passes_of_their_own_give_the_same_steps(balancer, monkeypatch, caplog):
    # Torch's graphs in place of compiled ones: what inductor is given, without the seconds that it takes.
    monkeypatch.setattr(pair, "_lowered", lambda graph, **_: lambda given: graph(*given))
    monkeypatch.setattr(pair, "_compiled", OrderedDict())

    class Halved(torch.autograd.Function):  # whose derivative is not that of its operations, and which reads a value
        @staticmethod
        def forward(ctx, h: Tensor) -> Tensor:
            return h * (1.0 if h.isfinite().all() else 0.0)

        @staticmethod
        def backward(ctx, slope: Tensor) -> Tensor:
            return slope / 2

    class Smooth(Program):  # without a batch norm, before which a bias has a gradient of rounding errors alone
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 8), nn.Tanh())

        def represent(self, x: Tensor) -> Tensor:
            lower, w = torch.ones(8, 8).tril() > 0, torch.zeros(8, 8)
            w[lower] = self.trunk[3].weight[lower]  # as many entries in every run, whatever there is in x
            return Halved.apply(self.trunk(x) + w.sum(0))

    compiled = train(svi("inductor", balancer, program=Smooth), VARIED[:7])
    assert_equal(train(svi(False, balancer, program=Smooth), VARIED[:7]), compiled, tolerance=1e-5)
    assert not warned(caplog)
    assert pair._compiled


def test_draws_keep_their_order_where_one_waits_for_a_segment(monkeypatch, caplog):
    monkeypatch.setattr(pair, "_lowered", lambda graph, **_: lambda given: graph(*given))
    monkeypatch.setattr(pair, "_compiled", OrderedDict())

    class Late(Program):  # the dropout's input is a segment's, and the latents behind it are drawn from constants
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 8), nn.Dropout(0.3))

        def represent(self, x: Tensor) -> Tensor:
            smooth = (x.sin() + x.cos() * x.tanh() - x.square().exp().log1p()).contiguous()
            h = self.trunk(smooth) + torch.randn(8)
            return h * torch.rand(len(x), 1)

    compiled = train(svi("inductor", program=Late), VARIED[:4])
    assert_equal(train(svi(False, program=Late), VARIED[:4]), compiled, tolerance=1e-5)
    assert not warned(caplog)


def test_a_dropout_of_features_divides_no_segment():
    def run(a: Tensor, b: Tensor) -> tuple[Tensor]:
        x = torch.cat([a, b])
        h = torch.dropout(x, 0.5, True)
        return ((x.sin().cos().tanh().exp().sin().cos() + h.cos().sin().tanh().exp().cos().sin()).sum(),)

    graph = make_fx(run, pre_dispatch=True)(torch.ones(2, 3), torch.ones(2, 3)).graph
    (segment,) = segments_of(graph, [None], by_task=False)
    assert [node.name for node in segment.inputs] == ["cat", "dropout"]


def test_what_lies_before_a_mark_is_in_no_segment_with_what_lies_behind(monkeypatch, caplog):
    monkeypatch.setattr(pair, "_lowered", lambda graph, **_: lambda given: graph(*given))
    monkeypatch.setattr(pair, "_compiled", OrderedDict())

    def run(mode) -> bmtl.BalancedSVI:
        torch.manual_seed(0)
        model = TaskModel(mlp(4, (8, 8, 8, 8)), 8, {name: Gaussian() for name in NAMES}, 100)  # heads are stacked
        return train(bmtl.BalancedSVI(model, model.guide(), ADAM, "last-layer >> upgrad", compile=mode), VARIED[:4])

    assert_equal(run(False), run("inductor"), tolerance=1e-5)
    assert not warned(caplog)


@pytest.mark.skipif(bool(missing_compiler()), reason=f"inductor lacks something: {missing_compiler()}")
def test_compiled_steps_equal_ordinary_ones_to_rounding_and_share_what_is_compiled(caplog):
    def run(mode) -> bmtl.BalancedSVI:
        of = svi(mode, "uw")
        of.model.trunk = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8))
        return train(of, [batch(n, absent=n == 5) for n in range(7)])

    compiled = run("inductor")
    assert_equal(run(False), compiled, tolerance=1e-5)
    assert not warned(caplog)
    before = dict(pair._compiled)
    assert_equal(run("inductor"), compiled)  # another model of the same architecture
    assert pair._compiled == before
    assert compiled.optimizer.param_groups[0]["fused"] is None  # as it was given, and as it is saved


def test_an_absent_tasks_own_parameters_have_no_gradient(monkeypatch):
    monkeypatch.setattr(pair, "_lowered", lambda graph, **_: lambda given: graph(*given))
    monkeypatch.setattr(pair, "_compiled", OrderedDict())

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
            self.heads = nn.ModuleDict({name: nn.Linear(8, 1) for name in NAMES})

        def forward(self, x: Tensor, y: dict[str, Tensor]) -> None:
            h = self.trunk(x)
            for name in NAMES:
                with bmtl.task(name), pyro.plate(f"{name}_rows", 100, subsample=x):
                    bmtl.observe(f"y_{name}", dist.Normal(self.heads[name](h).squeeze(-1), 1.0), y[name])

    def run(mode) -> bmtl.BalancedSVI:
        torch.manual_seed(0)
        of = bmtl.BalancedSVI(Heads(), lambda x, y: None, ADAM, compile=mode)
        return train(of, [batch(n, absent=n > 3) for n in range(8)])

    compiled = run("inductor")
    assert compiled.compiled.replayed
    assert compiled.model.heads["b"].weight.grad is None
    assert_equal(run(False), compiled, tolerance=1e-5)
