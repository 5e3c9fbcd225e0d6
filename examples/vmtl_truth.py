"""What variational multi-task learning finds where the truth is known.

Run: python examples/vmtl_truth.py [--out runs/vmtl_truth] [--datasets 200] [--seeds 10] [--quick]

1. Three linear regressions with a normal prior and known noise have a normal posterior in closed form: its means, standard
   deviations and correlations against SVI with a full-rank guide, SVI with VMTL's own guide, and NUTS, all on one program.
2. Simulation-based calibration of both guides: the program draws weights and labels, and the weights are ranked among the
   draws of a guide that was fitted to the labels. A right guide has uniform ranks. VMTL's own guide is diagonal, which is
   wrong where inputs are correlated; the test must find it.
3. Six tasks in two clusters of weights: what share of its prior each task takes from its own cluster, and what it takes
   where there are no clusters.
4. The same clusters in the task correlations of a multi-task Gaussian process (extra ``gp``).

A prior made of other tasks' posteriors defines no joint model: there is no density for NUTS, and no prior to draw truths
from. So parts 1 and 2 have ``prior="normal"``, and part 3 makes its weights by hand.

It takes ten to twenty minutes of a core. ``--quick`` takes less than one, with too few steps and draws for a result.
"""

import argparse
import functools
import itertools
import math
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import arviz_stats
import numpy as np
import pandas as pd
import pyro
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from pyro import poutine
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide import AutoMultivariateNormal, init_to_mean
from scipy import stats
from torch import nn

import bmtl
from bmtl.evaluation import results
from bmtl.evaluation.markdown_tables import markdown_table
from bmtl.evaluation.plots import relatedness_matrix
from bmtl.evaluation.simulation import in_words, rank_calibration
from bmtl.evaluation.style import COLOURS, save, styled
from bmtl.inference.simulation import simulated_ranks
from bmtl.inputs import PerTask
from bmtl.models.likelihoods import Categorical, Gaussian
from bmtl.models.vmtl import VMTL, PointEncoder

ROWS = {"a": 12, "b": 8, "c": 6}  # of the regressions of parts 1 and 2
FEATURES, NOISE, CORRELATION = 3, 0.5, 0.8
PARTICLES = 128
FITS = ("Full-rank guide", "VMTL's own guide")

CLUSTERS = {"a1": 0, "a2": 0, "a3": 0, "b1": 1, "b2": 1, "b3": 1}
WITHIN, CLUSTER_NOISE = 0.1, 0.3  # a cluster's centre has entries of standard deviation 1
KINDS = {  # kind of the targets, features, rows of a task
    "regression, 20 rows, 10 features": ("regression", 10, 20),
    "regression, 12 rows, 20 features": ("regression", 20, 12),
    "3 classes, 40 rows, 10 features": (3, 10, 40),
}


class Effort(NamedTuple):
    """Steps of SVI in each part, and chains, warm-up and draws of NUTS."""

    exactness: int
    nuts: tuple[int, int, int]
    calibration: int
    relations: int


FULL, QUICK = Effort(1500, (2, 500, 2000), 300, 300), Effort(30, (2, 20, 30), 10, 20)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/vmtl_truth"))
    parser.add_argument("--datasets", type=int, default=200, help="of part 2, from 20")
    parser.add_argument("--seeds", type=int, default=10, help="of part 3, from 1")
    parser.add_argument("--quick", action="store_true", help="20 data sets, one seed, fewer steps and draws")
    options = parser.parse_args()
    if options.datasets < 20:
        parser.error(f"--datasets is a number of data sets, from 20, and {options.datasets} was given.")
    if options.seeds < 1:
        parser.error(f"--seeds is a number of seeds, from 1, and {options.seeds} was given.")
    options.effort = QUICK if options.quick else FULL
    if options.quick:
        options.datasets, options.seeds = 20, 1
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    pages = []
    for page in (exactness(options), calibration(options), relations(options)):
        for text in page:
            print(f"{text}\n", flush=True)
            pages.append(text)
    (options.out / "truth.md").write_text("\n\n".join(pages) + "\n")
    print(f"Wrote truth.md, ranks.png and relatedness.png to {options.out}.")


def program(x, kind, noise, **options):
    """`VMTL` on its inputs as they are, so that each task is a linear model; the noise of a regression is known."""
    features = next(iter(x.values())).shape[1]
    return VMTL(
        features,
        {task: known_noise(noise) if kind == "regression" else Categorical(kind, "fixed") for task in x},
        {task: len(rows) for task, rows in x.items()},
        encoder=PointEncoder(nn.Identity()),
        latent=features,
        latent_z="point",
        scale_w=1.0,
        generator=torch.Generator().manual_seed(0),
        **options,
    )


def known_noise(noise):
    likelihood = Gaussian()
    likelihood.unknowns["log_variance"].start_at(torch.tensor(2 * math.log(noise)))
    return likelihood.requires_grad_(False)


def simulated(model, x, seed, latents=None):
    """Latents and labels that the program draws; given latents are kept."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        trace = poutine.trace(poutine.condition(model, data=latents or {})).get_trace(x)
    return trace.nodes["w"]["value"], {task: trace.nodes[f"y_{task}"]["value"] for task in x}


# ---- 1. The conjugate posterior --------------------------------------------------------------------------------------


def regressions():
    """Inputs by task, columns correlated, and the program: the weights of each task are ``Normal(0, 1)``.

    Under ``sampling="weights"`` the likelihood is that of the drawn weights, whoever draws them. Under "logits" the program
    draws noise for its own guide, and would tell another guide, or NUTS, nothing.
    """
    generator = torch.Generator().manual_seed(0)
    x = PerTask(
        {
            task: CORRELATION**0.5 * torch.randn(rows, 1, generator=generator)
            + (1 - CORRELATION) ** 0.5 * torch.randn(rows, FEATURES, generator=generator)
            for task, rows in ROWS.items()
        }
    )
    return x, program(x, "regression", NOISE, prior="normal", sampling="weights").requires_grad_(False)


def exact(x, y):
    """Mean ``(D,)`` and covariance ``(D, D)`` of all tasks' weights in a row."""
    means, covariances = [], []
    for task, rows in x.items():
        design, labels = rows.double().numpy(), y[task].double().numpy()
        covariances.append(np.linalg.inv(np.eye(FEATURES) + design.T @ design / NOISE**2))
        means.append(covariances[-1] @ design.T @ labels / NOISE**2)
    covariance = np.zeros((len(x) * FEATURES,) * 2)
    for t, block in enumerate(covariances):
        own = slice(t * FEATURES, (t + 1) * FEATURES)
        covariance[own, own] = block
    return np.concatenate(means), covariance


def full_rank(model, x, y, steps):
    """Pyro's full-rank guide of all weights together, fitted by SVI: Adam, its rate on half a cosine down to nothing."""
    guide = AutoMultivariateNormal(model, init_loc_fn=init_to_mean, init_scale=0.3)
    optim = functools.partial(torch.optim.Adam, lr=0.1, betas=(0.9, 0.95))
    return trained(model, guide, optim, x, y, steps, JOINT)


def own(model, x, y, steps):
    """VMTL's own guide, fitted by SVI."""
    return trained(model, model.guide(), functools.partial(torch.optim.Adam, lr=0.1), x, y, steps, DIAGONAL)


# One estimator each: it warns once of a guide that draws all tasks' latents at one site.
JOINT, DIAGONAL = (
    bmtl.TaskELBO(kind, num_particles=PARTICLES, vectorize_particles=True, max_plate_nesting=2)
    for kind in ("mc", "analytic")
)


def trained(model, guide, optim, x, y, steps, elbo):
    svi = bmtl.BalancedSVI(model, guide, optim, elbo=elbo)
    svi.initialise(x, y)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(svi.optimizer, steps, eta_min=1e-4)
    for _ in range(steps):
        svi.step(x, y)
        schedule.step()
    return guide


def learnable():
    """The program with free parameters in its own guide."""
    model = regressions()[1]
    model.classifiers.requires_grad_(True)
    return model


def nuts(model, x, y, chains, warmup, draws):
    """Draws of the weights ``(chain, draw, D)``."""
    found = []
    for chain in range(chains):
        with torch.random.fork_rng():
            pyro.set_rng_seed(chain)
            mcmc = MCMC(NUTS(model, full_mass=True), draws, warmup, disable_progbar=True)
            mcmc.run(x, y)
        found.append(mcmc.get_samples()["w"].reshape(draws, -1).double().numpy())
    return np.stack(found)


def exactness(options):
    x, model = regressions()
    _, y = simulated(model, x, seed=1)
    mean, covariance = exact(x, y)
    steps = options.effort.exactness
    torch.manual_seed(0)
    joint = full_rank(model, x, y, steps).get_posterior()
    learnt = learnable()
    own(learnt, x, y, steps)
    loc, variance = (part.detach().double().flatten().numpy() for part in learnt.classifier())
    draws = nuts(model, x, y, *options.effort.nuts)
    flat = draws.reshape(-1, draws.shape[-1])
    drawn = flat.mean(0), np.cov(flat.T)
    joint = joint.loc.detach().double().numpy(), joint.covariance_matrix.detach().double().numpy()
    table = pd.DataFrame(
        [
            {"posterior": name, **against(*found, mean, covariance)}
            for name, found in {
                "SVI, full-rank guide": joint,
                "SVI, VMTL's own guide": (loc, np.diag(variance)),
                "NUTS": drawn,
            }.items()
        ]
    )
    yield f"1. The posterior of nine weights of three regressions against the exact one:\n\n{markdown(table)}"
    diagonal = np.sqrt(variance * np.diag(np.linalg.inv(covariance)))
    yield (
        f"The best diagonal normal has the exact means and the standard deviations of each weight given the others: those "
        f"of VMTL's own guide are {diagonal.min():.3f} to {diagonal.max():.3f} times these."
    )
    errors = {kind: arviz_stats.mcse(draws, method=kind) for kind in ("mean", "sd")}
    numbers = {"mean": lambda m, c: m, "sd": lambda m, c: np.sqrt(np.diag(c))}
    lines = []
    for name, other in (("the exact posterior", (mean, covariance)), ("SVI with the full-rank guide", joint)):
        furthest = {kind: np.abs(of(*drawn) - of(*other)) / errors[kind] for kind, of in numbers.items()}
        means, sds = (furthest[kind].max() for kind in ("mean", "sd"))
        lines.append(f"from {name}, at most {means:.1f} (means) and {sds:.1f} (standard deviations)")
    yield (
        f"How far NUTS is, in its Monte Carlo standard errors (effective draws: {arviz_stats.ess(draws).min():,.0f} or "
        f"more): {'; '.join(lines)}. The largest of {2 * len(mean)} standard normals is above "
        f"{stats.norm.isf(0.025 / (2 * len(mean))):.1f} in one case of twenty."
    )


def against(mean, covariance, true_mean, true_covariance):
    sd, true_sd = (np.sqrt(np.diag(c)) for c in (covariance, true_covariance))
    correlation, true_correlation = covariance / np.outer(sd, sd), true_covariance / np.outer(true_sd, true_sd)
    ratio = sd / true_sd
    return {
        "largest error of a mean, in sd": f"{np.abs((mean - true_mean) / true_sd).max():.3f}",
        "sd over exact": f"{ratio.min():.3f} to {ratio.max():.3f}",
        "largest error of a correlation": f"{np.abs(correlation - true_correlation).max():.3f}",
    }


# ---- 2. Calibration --------------------------------------------------------------------------------------------------


def calibration(options):
    x, model = regressions()
    steps = options.effort.calibration

    def joint(seed, x, y):
        return full_rank(model, x, y, steps)

    def diagonal(seed, x, y):
        return own(learnable(), x, y, steps)

    found = {}
    for name, fit in zip(FITS, (joint, diagonal), strict=True):
        found[name] = simulated_ranks(model, fit, x, datasets=options.datasets, num_draws=99, seed=1)
        tested = rank_calibration(found[name].ranks, found[name].num_draws, found[name].errors)
        least = {test: float(tested[f"p_{test}"].min()) for test in ("uniform", "symmetric", "spread")}
        widths = tested["width"].values
        yield (
            f"2. {name}. {in_words(tested)}\n"
            f"Least p, corrected for all {3 * len(widths)} tests: "
            f"{', '.join(f'{p:.2g} ({test})' for test, p in least.items())}. Standard deviations are {widths.min():.2f} to "
            f"{widths.max():.2f} times those of the errors."
        )
    save(histograms(found), options.out / "ranks.png")


def histograms(found, bins=10):
    """Ranks of each weight under both guides, and what 99 % of the counts of uniform ranks lie in."""
    entries = list(found[FITS[0]].ranks)
    with styled():
        figure = Figure(figsize=(7, 5.4), layout="constrained")
        panels = figure.subplots(len(ROWS), FEATURES, sharex=True, sharey=True)
        for (t, h), panel in np.ndenumerate(panels):
            entry = entries[t * FEATURES + h]
            for name, colour in zip(FITS, COLOURS, strict=False):
                counts = np.bincount(found[name].ranks[entry], minlength=100).reshape(bins, -1).sum(1)
                panel.stairs(counts, np.linspace(0, 100, bins + 1), color=colour, linewidth=1.5)
            low, high = stats.binom.interval(0.99, counts.sum(), 1 / bins)
            panel.axhspan(low, high, color="#BBBBBB", alpha=0.5, linewidth=0, zorder=0)
            panel.set_title(f"Task {list(ROWS)[t]}, weight {h + 1}", loc="left", fontsize=9)
        figure.supxlabel("Rank of the truth among 99 draws", fontsize=9)
        figure.supylabel("Data sets", fontsize=9)
        handles = [Line2D([], [], color=colour, label=name) for name, colour in zip(FITS, COLOURS, strict=False)]
        handles.append(Patch(color="#BBBBBB", alpha=0.5, linewidth=0, label="99 % of uniform counts"))
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


# ---- 3. Clusters -----------------------------------------------------------------------------------------------------


def clustered(kind, features, rows, seed, clusters=True):
    """Inputs and labels of six tasks; without clusters their weights are independent, and otherwise alike."""
    generator = torch.Generator().manual_seed(seed)
    x = PerTask({task: torch.randn(rows, features, generator=generator) for task in CLUSTERS})
    model = program(x, kind, CLUSTER_NOISE, prior="normal")
    centres = torch.randn(len(CLUSTERS), 1, model.likelihood.outputs, features, generator=generator)
    if clusters:
        centres = centres[list(CLUSTERS.values())]
    w = centres + WITHIN * torch.randn(centres.shape, generator=generator)
    return x, simulated(model, x, seed, {"w": w})[1]


def learnt(x, y, kind, steps, components):
    """A VMTL with Dirichlet weights; its components are "current", or the posteriors of a model "fitted" before."""
    options = {}
    if components == "fitted":
        alone = program(x, kind, CLUSTER_NOISE, prior="normal")
        improve(alone, x, y, steps)
        options["components"] = alone.eval()
    model = program(x, kind, CLUSTER_NOISE, weights="dirichlet", **options)
    improve(model, x, y, steps)
    return model


def improve(model, x, y, steps):
    """SVI at three times the rate for the mixing weights' parameters."""
    torch.manual_seed(0)
    mixing = {id(p) for p in (model.priors.parameters() if model.priors is not None else ())}

    def optim(parameters):
        groups = [[p for p in parameters if (id(p) in mixing) == fast] for fast in (False, True)]
        rates = zip(groups, (0.04, 0.12), strict=True)
        return torch.optim.Adam([{"params": group, "lr": rate} for group, rate in rates if group])

    svi = bmtl.BalancedSVI(model, model.guide(), optim, elbo=bmtl.TaskELBO("analytic"))
    for _ in range(steps):
        svi.step(x, y)


def shares(model):
    """Mean share of each source in each task's prior, without the anchor: rows sum to 1, ``(T, T)``."""
    return (model.relatedness()["w"][:, : len(CLUSTERS)] / (1 - model.priors.anchor)).numpy()


def within(found, cluster):
    """What each task takes from those of its cluster ``(T,)``; `cluster` says which each is in."""
    cluster = np.asarray(cluster)
    return (found * (cluster[:, None] == cluster)).sum(1)


def best_partition(found):
    """The split of six tasks into two threes whose tasks take most from their own: one of ten."""
    splits = [[int(task not in (0, *pair)) for task in range(6)] for pair in itertools.combinations(range(1, 6), 2)]
    return max(splits, key=lambda split: within(found, split).sum())


def relations(options):
    steps = options.effort.relations
    truth = list(CLUSTERS.values())
    rows = []
    for (name, (kind, *sizes)), components in itertools.product(KINDS.items(), ("fitted", "current")):
        found = {
            clusters: np.stack(
                [
                    shares(learnt(*clustered(kind, *sizes, seed, clusters), kind, steps, components))
                    for seed in range(options.seeds)
                ]
            )
            for clusters in (True, False)
        }
        own_share = {clusters: np.stack([within(each, truth) for each in of]) for clusters, of in found.items()}
        best = sum(best_partition(each) == truth for each in found[True])
        rows.append(
            {
                "tasks": name,
                "components": components,
                "own cluster": f"{own_share[True].mean():.2f}",
                "least": f"{own_share[True].min():.2f}",
                "tasks above 1/2": f"{(own_share[True] > 0.5).sum()} of {own_share[True].size}",
                "true clusters best of ten": f"{best} of {options.seeds}",
                "no clusters: same tasks": f"{own_share[False].mean():.2f}",
                "no clusters: nearest task": f"{found[False].max(-1).mean():.2f}",
            }
        )
    chance = (sum(truth) - 1) / (len(truth) - 1)
    yield (
        f"3. Mean share of its prior, without the anchor, that a task takes from its own cluster (chance: {chance:.2f}), "
        f"{options.seeds} seed(s):\n\n{markdown(pd.DataFrame(rows))}"
    )
    yield coregionalised(options)
    kind, *sizes = KINDS["3 classes, 40 rows, 10 features"]
    x, y = clustered(kind, *sizes, seed=0)
    model = learnt(x, y, kind, steps, "fitted")
    few = PerTask({task: part[:1] for task, part in x.items()})
    drawn = bmtl.draw(model, model.guide(), few, num_draws=400, sites=["alpha_w"])
    share = model.tree_extras(drawn.posterior)["relatedness_w"]
    tree = results.to_datatree(
        {},
        {},
        posterior={**drawn.posterior, "relatedness_w": share.values},
        dims={"relatedness_w": share.dims},
        coords=share.coords,
        attributes={"method": "Six tasks in two clusters"},
    )
    save(relatedness_matrix(tree), options.out / "relatedness.png")


def coregionalised(options):
    """The task correlations of a multi-task Gaussian process on the first of the regressions."""
    if find_spec("gpytorch") is None:
        return "4. Left out: the Gaussian process needs GPyTorch, the extra gp."
    features, size = 10, 20
    truth = np.asarray(list(CLUSTERS.values()))
    same = truth[:, None] == truth
    rows, seeds = [], min(options.seeds, 5)
    for clusters in (True, False):
        data = [clustered("regression", features, size, seed, clusters) for seed in range(seeds)]
        found = np.stack([correlations(*each, options.effort.relations) for each in data])
        others = np.abs(found)[:, ~np.eye(len(truth), dtype=bool)].reshape(len(found), len(truth), -1)
        best = sum(best_partition(np.abs(each) - np.eye(len(truth))) == truth.tolist() for each in found)
        rows.append(
            {
                "tasks": "two clusters" if clusters else "no clusters",
                "same cluster": f"{found[:, same & ~np.eye(len(truth), dtype=bool)].mean():.2f}",
                "another": f"{found[:, ~same].mean():.2f}",
                "nearest task": f"{others.max(-1).mean():.2f}",
                "true clusters best of ten": f"{best} of {len(found)}",
            }
        )
    return (
        f"4. Task correlations of a Gaussian process (ICM), regressions of {size} rows and {features} features, {seeds} "
        f"seed(s): means over pairs of tasks, and over tasks of their largest magnitude:\n\n{markdown(pd.DataFrame(rows))}"
    )


def correlations(x, y, steps):
    """``B_ij / sqrt(B_ii B_jj)`` of the coregionalisation matrix, ``(T, T)``."""
    from bmtl.models.gaussian_process import MultitaskGP  # needs the extra gp

    rows, features = next(iter(x.values())).shape
    y = {task: (labels - labels.mean()) / labels.std() for task, labels in y.items()}
    model = MultitaskGP(
        features,
        {task: Gaussian() for task in x},
        rows,
        inducing=rows * len(x),
        lengthscale=3 * features**0.5,  # the truth is linear
        generator=torch.Generator().manual_seed(0),
    )
    adam = functools.partial(torch.optim.Adam, lr=0.02)
    svi = bmtl.BalancedSVI(model, model.guide(), adam, elbo=bmtl.TaskELBO("analytic"))
    for _ in range(steps):
        svi.step(x, y)
    covariance = model.task_covariance().detach().numpy()
    scale = np.sqrt(covariance.diagonal())
    return covariance / scale / scale[:, None]


def markdown(frame):
    return markdown_table(list(frame.columns), *frame.astype(str).to_numpy().tolist())


if __name__ == "__main__":
    main()
