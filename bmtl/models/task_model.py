"""A shared trunk, a representation, heads and likelihoods as one Pyro program."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, get_args

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from bmtl.models.guides import Guide, GuideKind, Latent
from bmtl.models.heads import Heads, LinearHeads
from bmtl.models.likelihoods import Likelihood
from bmtl.models.likelihoods.stacked import Stacked, stacks
from bmtl.models.linear_part import LinearPart
from bmtl.models.representations import Deterministic, Representation
from bmtl.models.rows import Rows, check_labelled, data_by_target, groups
from bmtl.models.tree_variable import TreeVariable
from bmtl.tasks import check_names, task, task_plate

_NEAR_ZERO = 0.1
"""Share of the usual initial weights that heads start at where they learn what a linear part leaves."""


class TaskModel(nn.Module):
    """Targets of any kind on one trunk: ``y_t ~ likelihood_t(head_t(representation(trunk(x))))``.

        likelihoods = {"price": Gaussian(), "visits": Poisson(), "grade": Ordinal(5)}
        model = TaskModel(mlp(8, (64,)), 64, likelihoods, n_data)
        svi = BalancedSVI(model, model.guide(), optim, balancer)

    Each objective of each likelihood is a task: the target's name where it has one, ``<target>/<objective>`` where it has
    several. What belongs to a target (its head, its noise) is inside its (first) task; what belongs to several is shared.

    Attributes:
        stacked: The statement that a target is part of with others, by target; empty where each is its own.

    Args:
        trunk: Maps inputs of B rows to ``(B, width)``.
        width: Width of the trunk's output; another one is named when a batch is seen.
        likelihoods: By target; see `bmtl.models.likelihoods`.
        n_data: Number of data, for all targets or by target: the size of each plate.
        head: Makes the heads, as ``head(width, likelihoods, generator=...)``: a class of `bmtl.models.heads`, or
            ``functools.partial`` of one with its options.
        representation: Makes the representation, as ``representation(trunk, width, generator=...)``: a class of
            `bmtl.models.representations`, or ``functools.partial`` of one with its options.
        stack: Whether targets with likelihoods of one kind and as many data are one statement in a task plate, on common
            inputs: the same losses and gradients, up to rounding, with fewer statements. Parameters are each target's own in
            both forms, and draws have the same names.
        labels: Training labels by target, ``(N, ...)``, from which each likelihood takes its start (`Likelihood.start`):
            needed for labels on no standard scale, such as counts. None starts at that of standardised labels.
        linear_part: What is added to the heads' outputs; heads then start near 0.
        generator: Draws the initial weights; None uses torch's global generator.

    Raises:
        TypeError: If a likelihood is none.
        ValueError: If there is no target, a name is not one, or `n_data` lacks a target or is below 1; from heads and
            representation, if they cannot be made.
    """

    def __init__(
        self,
        trunk: nn.Module,
        width: int,
        likelihoods: Mapping[str, Likelihood],
        n_data: int | Mapping[str, int],
        *,
        head: Callable[..., Heads] = LinearHeads,
        representation: Callable[..., Representation] = Deterministic,
        stack: bool = True,
        labels: Mapping[str, Tensor] | None = None,
        linear_part: LinearPart | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.names = check_names(tuple(likelihoods))
        for name, likelihood in likelihoods.items():
            if not isinstance(likelihood, Likelihood):
                raise TypeError(
                    f"The likelihood of {name!r} is an object of bmtl.models.likelihoods, such as Gaussian(), and "
                    f"{likelihood!r} was given."
                )
        self.n_data = data_by_target(self.names, n_data)
        self.representation = representation(trunk, width, generator=generator)
        self.heads = head(self.representation.width, likelihoods, generator=generator)
        # Module names must not hold a dot, target names may: by position.
        self._likelihoods = nn.ModuleList(likelihoods.values())
        if labels is not None:
            for name, likelihood in self.likelihoods.items():
                likelihood.start(likelihood.gather(name, labels))
        several = stacks(likelihoods, self.n_data) if stack else []
        self.stacked: dict[str, Stacked] = {name: of for of in several for name in of.names}
        # What is learnt of weights' or labels' spread in training must be of the program that predicts.
        learns_spread = any(of.unknowns and not of.needs_calibration for of in likelihoods.values())
        has_latents = self.representation.has_latents or self.heads.joint_latents()
        if not (learns_spread or has_latents or any(self.heads.latents(name) for name in self.names)):
            self.representation.may_be_apart = True
        self.linear_part = linear_part
        if linear_part is not None:
            self.heads.start_near_zero(_NEAR_ZERO)

    @property
    def likelihoods(self) -> dict[str, Likelihood]:
        """The likelihoods by target."""
        return dict(zip(self.names, self._likelihoods._modules.values(), strict=True))  # type: ignore[arg-type]

    @property
    def joint_density(self) -> bool:
        """Whether program and guide are of one joint model, so that Pareto k, NUTS and an evidence have a meaning.

        Not where a likelihood is tempered, as that of images is.
        """
        return not any(likelihood.tempered for likelihood in self.likelihoods.values())

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in the program's order."""
        return tuple(
            task_name(name, objective, of) for name, of in self.likelihoods.items() for objective in of.objectives
        )

    # ---- Guide and program ---------------------------------------------------------------------------------------

    def guide(self, kind: GuideKind | None = None, scale: float = 0.005) -> nn.Module:
        """A guide for this program's latents.

        Args:
            kind: "normal" (independent normals), "correlated" (where heads have it) or "point" (point masses); by default
                the heads' first one.
            scale: Starting standard deviation of the normals.

        Raises:
            ValueError: If the heads do not have this kind of guide.
        """
        kind = self.heads.kinds[0] if kind is None else kind
        if kind not in self.heads.kinds or kind not in get_args(GuideKind):
            raise ValueError(f"kind is one of {', '.join(map(repr, self.heads.kinds))}, and {kind!r} was given.")
        joint = {site: latent.posterior(kind, scale) for site, latent in self.heads.joint_latents().items()}
        own: dict[str, dict[str, Latent]] = {}
        for name, likelihood in self.likelihoods.items():
            stacked = self.stacked.get(name)
            if stacked is None:
                own[name] = {**self.heads.latents(name), **likelihood.latents(name)}
            elif name == stacked.names[0]:  # where the program samples those of all
                heads = self.heads.stacked_latents(stacked.names, stacked.label)
                own[name] = {stacked.site(of): latent for of, latent in heads.items()} | stacked.latents()
            else:
                own[name] = {}
        each = {name: Guide.of(latents, kind, scale) for name, latents in own.items()}
        if self.representation.has_latents:
            return TaskGuide(self, Guide(joint), each)
        return Guide.joined([Guide(joint), *each.values()])

    def forward(self, x: Any, y: Mapping[str, Tensor] | None = None) -> None:
        """The program.

        Args:
            x: Inputs of B rows for all targets, or each target's own as `bmtl.inputs.PerTask`.
            y: Labels by target, B rows first; None predicts ``y_<target>``.

        Raises:
            TypeError: If labels are not of the likelihood's kind.
            ValueError: If the batch lacks a target's inputs or labels, or their shape is not the likelihood's; if the trunk
                returns another width than was given.
        """
        for of in self._walk(x, y):
            if isinstance(of, _StackedOutput):
                with of.tasks, of.plate:
                    of.stacked.observe(of.f, of.values, of.labels)
                continue
            with of.plate:
                for objective in of.likelihood.objectives:
                    with task(task_name(of.name, objective, of.likelihood)):
                        of.likelihood.observe(of.name, of.f, of.values, of.labels, objective)

    def rows(self, x: Any, y: Mapping[str, Tensor] | None = None) -> Iterator[Rows]:
        """The rows of a batch, in groups with common inputs.

        Raises:
            ValueError: If the batch lacks a target's inputs or labels.
        """
        if y is None:
            return groups(x, self.n_data)
        likelihoods = self.likelihoods
        check_labelled(y, [target for name, of in likelihoods.items() for target in of.targets(name)])
        return groups(x, self.n_data, lambda name: likelihoods[name].labelled(likelihoods[name].gather(name, y)))

    def _walk(self, x: Any, y: Mapping[str, Tensor] | None) -> Iterator["_Output | _StackedOutput"]:
        """The program up to the labels: what each statement needs, in order."""
        likelihoods, joint = self.likelihoods, self.heads.joint()
        sampled: dict[str, tuple[task_plate, Any, dict[str, Tensor]]] = {}  # where the first of its targets is met
        for rows in self.rows(x, y):
            h = self.representation(rows)
            for name in rows.targets:
                likelihood, stacked = likelihoods[name], self.stacked.get(name)
                labels = None if y is None else likelihood.gather(name, y)
                if stacked is None:
                    with task(task_name(name, likelihood.objectives[0], likelihood)):
                        f = self.heads(name, h, joint)
                        if self.linear_part is not None:
                            f = self.linear_part(name, rows.x, f)
                        values = likelihood.sample(name)
                    yield _Output(name, likelihood, f, values, labels, rows.plates[name])
                    continue
                if stacked.label not in sampled:
                    tasks = task_plate(stacked.names, dim=-2, label=stacked.label)
                    with tasks:
                        heads = self.heads.stacked(stacked.names, h, joint, stacked.site)
                        sampled[stacked.label] = tasks, heads, stacked.sample()
                tasks, heads, values = sampled[stacked.label]
                if rows.own:  # its own inputs: its own statement
                    heads = self.heads.row(heads, stacked.names.index(name))
                    f, values = stacked.one(name, self._outputs_of((name,), rows, h, joint, heads), values)
                    yield _Output(name, likelihood, f, values, labels, rows.plates[name])
                elif name == stacked.names[0]:
                    f = self._outputs_of(stacked.names, rows, h, joint, heads)
                    every = None if y is None else stacked.gather(y)
                    found = _StackedOutput(stacked, f, values, every, tasks, rows.plates[name])
                    if y is not None and every is None:  # labels of several types or shapes
                        yield from found.apart(likelihoods, y)
                    else:
                        yield found

    def _walk_apart(self, x: Any, y: Mapping[str, Tensor] | None) -> Iterator["_Output"]:
        """The same with a statement for each target."""
        for of in self._walk(x, y):
            yield from of.apart(self.likelihoods, y)

    def _outputs_of(self, targets: tuple[str, ...], rows: Rows, h: Tensor, joint: Any, heads: Any) -> Tensor:
        """The outputs ``(..., K, B, outputs)`` of targets of one statement."""
        f = self.heads.stacked_outputs(targets, h, joint, heads)
        return f if self.linear_part is None else self.linear_part.stacked(targets, rows.x, f)

    def parameters_of(self, task_: str) -> list[nn.Parameter]:
        """The parameters that are one task's alone and lie in a statement of several tasks.

        A batch without a label of the task gives them gradients of 0, which an optimizer with moments would follow.
        """
        if task_ not in self.stacked:
            return []
        return [*self.heads.parameters_of(task_), *self.likelihoods[task_].unknowns.parameters()]

    # ---- What it says about itself -------------------------------------------------------------------------------

    @property
    def noise_from_validation(self) -> bool:
        """Whether something that predictions need was fixed in training, to be set or calibrated on validation rows."""
        return any(likelihood.needs_calibration for likelihood in self.likelihoods.values())

    @torch.no_grad()
    def calibrate(
        self, guide: Callable[..., Any], x: Any, y: Mapping[str, Tensor], *, num_draws: int = 1, seed: int = 0
    ) -> None:
        """Fits what was fixed in training (noises, dispersions, shapes) to rows that were not trained on.

        Around the mean output over draws of the guide, in evaluation mode; see `Likelihood.calibrate`. Targets without a
        label there stay unchanged.

        Args:
            guide: The fitted guide.
            x: Inputs, as for the program.
            y: Labels by target.
            num_draws: Draws of the guide; 1 suffices where it has no latents.
            seed: Seed of the draws; torch's global generator is left unchanged.
        """
        for name, f in self._mean_outputs(guide, x, num_draws, seed).items():
            likelihood = self.likelihoods[name]
            likelihood.calibrate(f, likelihood.gather(name, y))

    @torch.no_grad()
    def shrink(
        self, guide: Callable[..., Any], x: Any, y: Mapping[str, Tensor], *, num_draws: int = 1, seed: int = 0
    ) -> None:
        """Fits how much of the network each target's prediction keeps beside its linear part, before `calibrate`.

        Of targets with a linear part by least squares whose noise is calibrated: `LinearPart.shrink`. Arguments are those
        of `calibrate`.
        """
        if self.linear_part is None or not isinstance(x, Tensor):
            return
        self.linear_part.shares.fill_(1.0)
        for name, f in self._mean_outputs(guide, x, num_draws, seed).items():
            likelihood = self.likelihoods[name]
            if likelihood.least_squares and f.shape[-1] == 1:
                self.linear_part.shrink(name, x, f[:, 0], (y[name] - likelihood.location) / likelihood.unit)

    @property
    def shares(self) -> dict[str, float]:
        """By target, the share in `linear + share * network`; empty without linear parts."""
        part = self.linear_part
        return {} if part is None else dict(zip(part.names, part.shares.tolist(), strict=True))

    def _mean_outputs(self, guide: Callable[..., Any], x: Any, num_draws: int, seed: int) -> dict[str, Tensor]:
        """`_outputs` in evaluation mode, as means over draws of the guide."""
        modes = [(part, part.training) for part in self.modules()]
        self.eval()
        sums: dict[str, Tensor] = {}
        try:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                for _ in range(num_draws):
                    for name, f in self._outputs(guide, x).items():
                        sums[name] = sums[name] + f if name in sums else f
        finally:
            for part, mode in modes:
                part.training = mode
        return {name: total / num_draws for name, total in sums.items()}

    def _outputs(self, guide: Callable[..., Any], x: Any) -> dict[str, Tensor]:
        """What the heads of targets that need calibration give at a draw of the guide."""
        found: dict[str, Tensor] = {}

        def program() -> None:
            for of in self._walk(x, None):
                found.update({name: f for name, f in of.outputs() if self.likelihoods[name].needs_calibration})

        drawn = poutine.trace(guide).get_trace(x)
        poutine.trace(poutine.replay(program, trace=drawn)).get_trace()
        return found

    def set_noise(self, sigma: Mapping[str, float]) -> None:
        """Sets fixed noises by hand, for predictions of a program that was trained at unit scale.

        Args:
            sigma: By target, a standard deviation in the unit of the labels that the program sees.

        Raises:
            ValueError: If a target is unknown or has no noise that is set by hand, or a sigma is not positive.
        """
        likelihoods = self.likelihoods
        for name, value in sigma.items():
            if name not in likelihoods:
                raise ValueError(
                    f"sigma maps targets among {list(likelihoods)} to positive numbers; {name!r} was given."
                )
            likelihoods[name].set_noise(value)

    def tree_extras(self, draws: Mapping[str, Any]) -> dict[str, TreeVariable]:
        """Variables of the posterior of a results tree that need names for their dimensions.

        Args:
            draws: Draws by site, ``(S, ...)``.
        """
        return TreeVariable.correlations(draws, self.names)


def task_name(target: str, objective: str, likelihood: Likelihood) -> str:
    """Name of the task of an objective: the target's where the likelihood has no other."""
    return target if len(likelihood.objectives) == 1 else f"{target}/{objective}"


class _Output(NamedTuple):
    """One target's part of a batch.

    Attributes:
        name: The target.
        likelihood: Its likelihood.
        f: What its head gives.
        values: Of its likelihood's unknowns.
        labels: Its labels, None for prediction.
        plate: Of its rows.
    """

    name: str
    likelihood: Likelihood
    f: Any
    values: Mapping[str, Tensor]
    labels: Tensor | None
    plate: pyro.plate

    def outputs(self) -> list[tuple[str, Any]]:
        """What the head of each target gives."""
        return [(self.name, self.f)]

    def apart(self, likelihoods: Mapping[str, Likelihood], y: Mapping[str, Tensor] | None) -> Iterator["_Output"]:
        """What each target's own statement needs."""
        yield self


class _StackedOutput(NamedTuple):
    """The part of a batch of targets that are one statement; values and labels have a dimension of targets."""

    stacked: Stacked
    f: Tensor
    values: Mapping[str, Tensor]
    labels: Tensor | None
    tasks: task_plate
    plate: pyro.plate

    def outputs(self) -> list[tuple[str, Any]]:
        return [(name, self.stacked.one(name, self.f, self.values)[0]) for name in self.stacked.names]

    def apart(self, likelihoods: Mapping[str, Likelihood], y: Mapping[str, Tensor] | None) -> Iterator[_Output]:
        """What each target's own statement needs."""
        for name in self.stacked.names:
            f, values = self.stacked.one(name, self.f, self.values)
            yield _Output(name, likelihoods[name], f, values, None if y is None else y[name], self.plate)


class TaskGuide(nn.Module):
    """The guide of a program whose representation has latents, in the model's order.

    Args:
        model: The program, whose parameters stay its own.
        joint: Of the heads' joint latents.
        own: Of each target's latents.
    """

    def __init__(self, model: TaskModel, joint: Guide, own: Mapping[str, Guide]) -> None:
        super().__init__()
        self.representation = model.representation
        self.joint = joint
        # Module names must not hold a dot, target names may: by position.
        self.names, self.own = tuple(own), nn.ModuleList(own.values())
        self._rows = model.rows

    def __getitem__(self, site: str) -> nn.Module:
        guides: list[Guide] = [self.joint, *self.own]
        return next(guide[site] for guide in guides if site in guide.latents)

    def forward(self, x: Any, y: Mapping[str, Tensor] | None = None) -> None:
        self.joint()
        self.representation.guide_first()
        if not self.representation.has_row_latents:
            for guide in self.own:
                guide()
            return
        for rows in self._rows(x, y):
            self.representation.guide(rows)
            for name in rows.targets:
                self.own[self.names.index(name)]()
