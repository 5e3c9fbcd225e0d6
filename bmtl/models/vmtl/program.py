"""Variational multi-task learning: each task's prior is built from the other tasks' posteriors."""

import functools
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from bmtl.models.likelihoods import Likelihood
from bmtl.models.networks.gaussian import marked
from bmtl.models.networks.mlp import mlp
from bmtl.models.rows import data_by_target
from bmtl.models.tree_variable import TreeVariable
from bmtl.models.vmtl.checks import Prior, check
from bmtl.models.vmtl.kl_weights import KLWeights, ReleasedKLWeights
from bmtl.models.vmtl.likelihood import StackedLikelihood
from bmtl.models.vmtl.logits import noisy, product
from bmtl.models.vmtl.mixing import Temperature, Weights
from bmtl.models.vmtl.posteriors import Posteriors, QuickNormal, predicting
from bmtl.models.vmtl.priors import Level, Rule
from bmtl.models.vmtl.rows import Rows
from bmtl.models.vmtl.support import Support
from bmtl.models.vmtl.task_priors import TaskPriors
from bmtl.tasks import check_names, task, task_plate

ANCHOR = "anchor"
"""The source of a prior that is not a task."""


class VMTL(Posteriors):
    """Latent representations z and classifiers w, whose priors are the other tasks' current posteriors.

    For T tasks of one likelihood and row n of task t:

        w_t ~ p(w_t | others)            w_t ``(C, H)``; C outputs, those of the likelihood
        z_tn ~ p(z_tn | x_tn, others)    z_tn ``(H,)``
        y_tn ~ likelihood(w_t z_tn)

    and in the guide ``w_t ~ Normal(M_t, S_t)``, ``z_tn ~ Normal(mu(x_tn), s2(x_tn))``, all diagonal. Program and guide
    share their parameters: ``BalancedSVI(model, model.guide(), ...)``. All tasks are one task plate. Use
    ``TaskELBO("analytic")``; its ``num_particles=L, vectorize_particles=True`` draws L pairs (z, w).

    The prior of w_t combines the posteriors of the other tasks' classifiers; that of z_tn combines the encoder's output at
    what the other tasks answer to x_tn (`Support.attention`). They are constants in a step: task t's divergence moves its
    own posterior and its own weights of the others, and no other task's. So under ``prior="tasks"`` there is no joint model:
    NUTS, simulation-based calibration, Pareto k and an evidence mean nothing there.

    A batch is ``(x, y)``: x one tensor for all tasks, or `PerTask` of ``(B_t, D)`` each, of any lengths; y a mapping task ->
    ``(B_t,)``, with NaN (floats) or -1 (integers) where a label is missing. A row without a label has no divergence.
    Each call of the guide with labels, in training and with gradients, counts as a step of the schedules, in the buffer
    ``step``.

    Args:
        inputs: Number of features D.
        targets: Likelihood of each task: of one kind, one objective, with fixed or learnt noise.
        n_data: Number of data, for all tasks or by task.
        widths: Widths of the encoder's hidden layers (ELU), for "mlp".
        trunk: Makes hidden layers in their place, with an attribute ``width``; called once for each network.
        latent: Width H of z; by default that of the last hidden layer.
        dropout: On the encoder's inputs.
        encoder: "mlp" (hidden layers, then mu and s2), "linear" (one layer with Gaussian weights), or for all tasks a module
            of your own that gives ``(mean, variance)`` of shape ``(B, H)`` each, None for the variance of a point.
        encoder_sharing: "shared", or "task" for one encoder each.
        latent_z: "gaussian", or "point" for ``z = mu(x)``.
        latent_w: "gaussian", or "point" for free parameters.
        classifier: "free", or "amortised": a network for all tasks gives q(w_tc) from the mean features of class c in t.
        amortised_dropout: On the mean features that "amortised" classifiers come from. The paper's table B.2 has 0.7, its
            released code none. Guide and program draw a mask each: the objective is right on average over masks.
        prior: Of what is Gaussian: "tasks" (above), or "normal", ``Normal(0, scale)``; "flat" where nothing is.
        scale_w: Standard deviation of w's "normal" and anchor; ``1 / sqrt(H)`` by default, so that logits are of order 1.
        scale_z: Standard deviation of z's.
        combine: How the others' posteriors make a prior, see `bmtl.models.vmtl.priors.combine`.
        anchor: Share of one more component ``Normal(0, scale)``. With 0 there is no fixed point: posteriors that are each
            other's priors shrink without limit.
        mixture_kl: Of "mixture": "mc" draws the divergence, "tight" bounds it in closed form.
        level: Of "mixture": what one choice of a component covers, see `Mixture`.
        weights: Of the others: "mean", "learned", "gumbel", or with a prior and a posterior "dirichlet",
            "logistic_normal", "concrete".
        tie_weights: The same weights for w and z.
        temperature: Of "gumbel" and "concrete".
        components: "current" (constants in each step), "attached" (the others' posteriors get gradients too), or a fitted
            `VMTL` whose posteriors are the components. In all three cases they are taken without dropout.
        attention: Which rows answer for z's prior: those of the row's "class", or "all"; by default "class" for classes.
        support: ``(x, y)`` of the training rows; needed for z's prior under "tasks" and for "amortised".
        sampling: "logits" draws ``w_t z`` for each row from its own normal law, given z: less noise, and nothing of size
            rows x C x H; "weights" uses the drawn w. Predictions always do. "logits" is for this program's own guide: it
            takes that guide's moments, and another guide, or NUTS, needs "weights".
        kl_weights: Factors of the divergences.
        predict: "draws", or "mean" for predictions at the posterior means.
        generator: Draws initial weights; None uses torch's global generator.

    Raises:
        TypeError: When called, if labels are not those of the likelihood.
        ValueError: For unknown options and contradictions among them; when called, if an encoder gives another width.

    Source:
        Shen, Zhen, Worring & Shao (2021), Variational Multi-Task Learning with Gumbel-Softmax Priors. "log-linear-pool",
        "moment", "tight", the anchor and the weights with a posterior are not in the paper.
    """

    step: Tensor

    def __init__(
        self,
        inputs: int,
        targets: Mapping[str, Likelihood],
        n_data: int | Mapping[str, int],
        *,
        widths: tuple[int, ...] = (512, 512),
        trunk: Callable[[], nn.Module] | None = None,
        latent: int | None = None,
        dropout: float = 0.7,
        encoder: Literal["mlp", "linear"] | nn.Module = "mlp",
        encoder_sharing: Literal["shared", "task"] = "shared",
        latent_z: Literal["point", "gaussian"] = "gaussian",
        latent_w: Literal["point", "gaussian"] = "gaussian",
        classifier: Literal["free", "amortised"] = "free",
        amortised_dropout: float = 0.0,
        prior: Prior = "tasks",
        scale_w: float | None = None,
        scale_z: float = 1.0,
        combine: Rule = "log-linear-pool",
        anchor: float = 0.5,
        mixture_kl: Literal["mc", "tight"] = "mc",
        level: Level = "coordinate",
        weights: Weights = "gumbel",
        tie_weights: bool = False,
        temperature: float | Temperature = 1.0,
        components: "Literal['current', 'attached'] | VMTL" = "current",
        attention: Literal["class", "all"] | None = None,
        support: tuple[Any, Mapping[str, Tensor]] | None = None,
        sampling: Literal["logits", "weights"] = "logits",
        kl_weights: KLWeights | ReleasedKLWeights | None = None,
        predict: Literal["draws", "mean"] = "draws",
        generator: torch.Generator | None = None,
    ) -> None:
        names = check_names(tuple(targets))
        likelihood = StackedLikelihood(targets)
        for name, scale in (("scale_w", scale_w), ("scale_z", scale_z)):
            if scale is not None and not 0 < scale < math.inf:
                raise ValueError(f"{name} is a standard deviation, above 0, and {scale} was given.")
        check(
            classes=likelihood.classes,
            outputs=likelihood.outputs,
            encoder_sharing=encoder_sharing,
            latent_z=latent_z,
            latent_w=latent_w,
            classifier=classifier,
            amortised_dropout=amortised_dropout,
            prior=prior,
            combine=combine,
            mixture_kl=mixture_kl,
            level=level,
            weights=weights,
            attention=attention,
            sampling=sampling,
            predict=predict,
            own_encoder=isinstance(encoder, nn.Module),
        )
        super().__init__(
            names,
            inputs,
            (likelihood.outputs, latent),
            {"w": latent_w == "gaussian", "z": latent_z == "gaussian"},
            scale_w=scale_w,
            scale_z=scale_z,
            encoder=encoder,
            sharing=encoder_sharing,
            trunk=trunk or functools.partial(mlp, inputs, widths, activation=nn.ELU, generator=generator),
            dropout=dropout,
            amortised=classifier == "amortised",
            amortised_dropout=amortised_dropout,
            support=None if support is None else Support(*support, names),
            generator=generator,
        )
        self.n_data = tuple(data_by_target(names, n_data).values())
        self.likelihood = likelihood
        self.sampling, self.predict = sampling, predict
        self.kl_weights = kl_weights or KLWeights()
        self.step = nn.Buffer(torch.tensor(0))
        self.priors: TaskPriors | None = None
        if prior == "tasks":
            self.priors = TaskPriors(
                self.names,
                {name: self.scales[name] for name, latent_is_gaussian in self.gaussian.items() if latent_is_gaussian},
                rule=combine,
                anchor=anchor,
                tight=mixture_kl == "tight",
                level=level,
                weights=weights,
                tie_weights=tie_weights,
                temperature=temperature,
            )
            self._take_components(components)
            self.by_class = likelihood.classes > 0 and attention != "all"
            if self.gaussian["z"]:
                lacking = self._support().without(likelihood.classes) if self.by_class else {}
                if lacking:
                    raise ValueError(
                        f"Tasks lack rows of some classes, and cannot answer for them: {lacking}. Use attention='all', or "
                        "leave the classes out."
                    )

    def _take_components(self, components: "str | VMTL") -> None:
        self.attached = components == "attached"
        # In a tuple, which hides its parameters: they are another model's.
        self._source = () if isinstance(components, str) else (components,)
        if not isinstance(components, str):
            if components.names != self.names or any(
                self.gaussian[name] and not components.gaussian[name] for name in self.gaussian
            ):
                raise ValueError(
                    f"The components' model has the tasks {components.names} and Gaussian latents {components.gaussian}; "
                    f"this one has {self.names} and {self.gaussian}."
                )
        elif components not in ("current", "attached"):
            raise ValueError(f"components is 'current', 'attached' or a VMTL, and {components!r} was given.")

    # ---- Posteriors and priors -----------------------------------------------------------------------------------

    def relatedness(self, draws: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """See `TaskPriors.relatedness`; empty where priors do not come from other tasks."""
        return {} if self.priors is None else self.priors.relatedness(draws)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in the program's order."""
        return self.names

    @property
    def joint_density(self) -> bool:
        """Whether program and guide are of one joint model: not where tasks are each other's priors."""
        return self.priors is None

    @property
    def noise_from_validation(self) -> bool:
        """Whether noises were fixed in training, to be set on validation rows."""
        return any(self.likelihood[name].needs_calibration for name in self.names)

    def set_noise(self, sigma: Mapping[str, float]) -> None:
        """Sets fixed noises by hand, as `TaskModel.set_noise`."""
        for name, value in sigma.items():
            self.likelihood[name].set_noise(value)

    @torch.no_grad()
    def calibrate(self, guide: Any, x: Any, y: Mapping[str, Tensor], *, num_draws: int = 1, seed: int = 0) -> None:
        """Fits noises that were fixed in training to rows that were not trained on, around the posterior means' outputs.

        Args:
            guide: Not used: the posterior means are the program's.
            x: Inputs, as for the program.
            y: Labels by task.
            num_draws: Not used.
            seed: Not used.
        """
        rows, (loc, _) = Rows(x, self.names), self.classifier_without_dropout()
        with predicting(self.encoders):
            means, _ = self.encode(rows, mean_only=True)
        for t, name in enumerate(self.names):
            self.likelihood[name].calibrate(product(means[t], loc[t]), y[name])

    def tree_extras(self, draws: Mapping[str, Any]) -> dict[str, TreeVariable]:
        """The share that each source has in each task's prior, for the posterior of a results tree.

        ``relatedness_w`` and ``relatedness_z``, as far as there are such latents, ``(S, task, source)``: the diagonal is 0,
        rows sum to 1, and the last source is the anchor. Where weights are not drawn, all draws are equal.

        Args:
            draws: Draws by site, ``(S, ...)``.
        """
        if self.priors is None:
            return {}
        count = max((len(values) for values in draws.values()), default=1)
        drawn = {site: torch.as_tensor(draws[site]) for site, _ in self.priors.sites() if site in draws}
        coords = {"task": self.names, "source": (*self.names, ANCHOR)}
        return {
            f"relatedness_{latent}": TreeVariable(
                share.numpy() if drawn else share.expand(count, *share.shape).numpy(), ("task", "source"), coords
            )
            for latent, share in self.relatedness(drawn or None).items()
        }

    def _prior_w(self, weights: dict[str, Tensor], like: Tensor) -> TorchDistribution:
        if self.priors is None:
            return self._normal("w", like, (len(self.names), 1, *like.shape[1:]), 2)
        components = self._components
        posteriors = components.classifier_without_dropout() if self.attached else components.classifier_constants()
        return self.priors.w(weights[self.priors.site["w"]], posteriors)

    def _prior_z(self, weights: dict[str, Tensor], rows: Rows, labels: Tensor, like: Tensor) -> TorchDistribution:
        if self.priors is None:
            return self._normal("z", like, (*labels.shape, like.shape[-1]), 1)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.attached):
            answers = self.priors.answers(rows, labels, self._support(), self.by_class)
            moments = self._components.encode_averages(answers, self._support())
            moments = marked(moments) if self.attached else moments
        loc, variance = (part.unflatten(0, answers.rows.shape[:2]) for part in moments if part is not None)
        return self.priors.z(weights[self.priors.site["z"]], (loc, variance), rows)

    def _labels(self, rows: Rows, y: Mapping[str, Tensor]) -> Tensor:
        labels = rows.labels(y)
        if labels.is_floating_point() and self.likelihood.classes:
            raise TypeError(
                f"Labels are class indices below {self.likelihood.classes}, integers with -1 where one is missing; got "
                f"{labels.dtype} for {list(self.names)}."
            )
        return labels

    @property
    def _components(self) -> Posteriors:
        """Whose posteriors the priors are made of."""
        return self._source[0] if self._source else self

    def _normal(self, name: str, like: Tensor, shape: tuple[int, ...], event_dim: int) -> TorchDistribution:
        return dist.Normal(like.new_zeros(()), like.new_tensor(self.scales[name])).expand(shape).to_event(event_dim)

    def _posterior(self, loc: Tensor, variance: Tensor | None, event_dim: int) -> TorchDistribution:
        if variance is None:
            return dist.Delta(loc, event_dim=event_dim)
        return QuickNormal(loc, variance.sqrt()).to_event(event_dim)

    # ---- Guide and program ---------------------------------------------------------------------------------------

    def guide(self) -> Callable[..., None]:
        """The guide, which has this program's parameters."""
        return self._guide

    def _guide(self, x: Any, y: Mapping[str, Tensor] | None = None) -> None:
        at_means = y is None and self.predict == "mean"
        if y is not None and self.training and torch.is_grad_enabled():
            self.step.add_(1)
        rows = Rows(x, self.names)
        with self._tasks(y is None):
            if self.priors is not None:
                for site, mixing in self.priors.sites():
                    mixing.sample_guide(site, self._steps_before)
            if self.gaussian["w"]:
                loc, variance = self.classifier()
                assert variance is not None
                with poutine.scale(scale=self._kl_weight_w(loc)):
                    pyro.sample("w", self._posterior(loc.unsqueeze(1), None if at_means else variance.unsqueeze(1), 2))
            means, variances = self.encode(rows, at_means) if self.gaussian["z"] else ((), None)
            if y is not None and variances is not None:
                with rows.plate(self._labels(rows, y), self.n_data), poutine.scale(scale=self.kl_weights.z):
                    pyro.sample("z", self._posterior(rows.pad(means), rows.pad(variances, 1.0), 1))
        if y is None:
            for name, mean, variance in zip(self.names, means, variances or [None] * len(means), strict=False):
                with pyro.plate(f"{name}_rows", len(mean)):
                    pyro.sample(f"z_{name}", self._posterior(mean, variance, 1))

    def forward(self, x: Any, y: Mapping[str, Tensor] | None = None) -> None:
        """The program.

        Args:
            x: Any, ``(B, D)`` for all tasks, or each task's own.
            y: Labels ``(B_t,)`` by task, NaN (floats) or -1 (integers) where missing; None predicts ``y_<task>``.
        """
        rows = Rows(x, self.names)
        moments = self.classifier()
        with self._tasks(y is None):
            weights = {}
            if self.priors is not None:
                weights = {site: mixing.weights(site, self._steps_before) for site, mixing in self.priors.sites()}
            w = moments[0]
            if self.gaussian["w"]:
                with poutine.scale(scale=self._kl_weight_w(w)):
                    w = pyro.sample("w", self._prior_w(weights, w)).squeeze(-3)
            if y is not None:
                labels = self._labels(rows, y)
                with rows.plate(labels, self.n_data):
                    if self.gaussian["z"]:
                        with poutine.scale(scale=self.kl_weights.z):
                            z = pyro.sample("z", self._prior_z(weights, rows, labels, w))
                    else:
                        z = rows.pad(self.encode(rows)[0])
                    f = noisy(z, *moments, w.shape[:-2]) if self.sampling == "logits" else product(z, w)
                    self.likelihood.observe("y", f, labels)
        if y is None:
            self._predict(rows, w)

    def _predict(self, rows: Rows, w: Tensor) -> None:
        """Draws ``y_<task>``, task by task. The prior of z is normal here: rows without labels have no answers."""
        points = None if self.gaussian["z"] else self.encode(rows)[0]
        for t, (name, size) in enumerate(zip(self.names, rows.sizes, strict=True)):
            with task(name), pyro.plate(f"{name}_rows", size):
                if points is None:
                    z = pyro.sample(f"z_{name}", self._normal("z", w, (size, w.shape[-1]), 1))
                else:
                    z = points[t]
                # One more dimension where particles have one, left of the rows.
                own = w[..., t, :, :] if w.dim() == 3 else w[..., t : t + 1, :, :]
                self.likelihood.observe(f"y_{name}", product(z, own), None, t)

    def _tasks(self, predicting: bool) -> AbstractContextManager[Any]:
        """The plate of the tasks; none where it would be empty, which would hide its dimension."""
        drawn = self.gaussian["w"] or (self.priors is not None and any(m.drawn for _, m in self.priors.sites()))
        if predicting and not drawn:
            return nullcontext()
        return task_plate(self.names, dim=-2, n_data=self.n_data)

    def _kl_weight_w(self, like: Tensor) -> float | Tensor:
        weight = self.kl_weights.w_at(self._steps_before, self.n_data)
        return weight.to(like) if isinstance(weight, Tensor) else weight

    @property
    def _steps_before(self) -> Tensor:
        return (self.step - 1).clamp_min(0)
