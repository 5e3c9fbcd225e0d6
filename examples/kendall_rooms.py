"""Kendall, Gal & Cipolla (2018) on rendered rooms: semantics, instances and inverse depth from one image, noise as weight.

Run: python examples/kendall_rooms.py [--out runs/kendall] [--quick] [--frames 240] [--height 48 --width 64] [--epochs 10]
                                      [--seeds 3] [--cache FOLDER] [--noises] [--docs docs]

The rooms are drawings by a ray-caster and no photographs: what is printed says how ways of weighting tasks compare where the
truth is known, and nothing about Cityscapes. As in the paper: cross-entropy with a temperature, absolute errors of inverse
depth in 1/m and of vectors to the centroid in pixels over pixels of objects, and their noises as weights; a sweep over
fixed weights; starts of log sigma^2 from -2 to 5. Not as in the paper: a small U-net in place of DeepLab, Adam, a few
hundred steps, and the exact softmax where they approximate its normaliser. The weights by hand are those of the sweep that
are best on validation frames, by the mean relative change against each task alone; scores are of test frames.

"noise first" means two more epochs before training in which only the noises move; "network fixed" that one trained network
is kept as it is, and its noises are learnt anew from every start. What no real data allow: Gaussian noise of
a known size is added to inverse depth in the last rows, and compared with the one that is learnt.

--noises trains the rows of the starts and of the added noise alone, for longer trainings; writes noises.md and results.json.

Writes table.md, sweep.png, figure6.png, pictures.png and results.json under --out; with --docs, also what the documentation
shows. A run that is in results.json with the same settings is not done again: start the script once more after an
interruption, or with more seeds.
"""

import argparse
import json
import shutil
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from bmtl import BalancedSVI, TaskELBO, draw, fit
from bmtl.datasets import Batches, load
from bmtl.evaluation.comparison import delta_m
from bmtl.evaluation.markdown_tables import markdown_table
from bmtl.evaluation.plots import image_maps
from bmtl.evaluation.storage import atomic
from bmtl.evaluation.style import COLOURS, save, styled
from bmtl.experiments.reduced import draw_reduced
from bmtl.inference.balancing import balancer
from bmtl.models import TaskModel, likelihood_of
from bmtl.models.networks import unet_trunk

TASKS = ("semantic", "instance", "inverse_depth")
SHORT = {"semantic": "mIoU", "instance": "instance [px]", "inverse_depth": "inverse depth [1/m]"}
SCORE = {"semantic": "mean_iou", "instance": "distance", "inverse_depth": "mae"}
PAIRS = {"instance": TASKS[::2], "inverse_depth": TASKS[:2], "semantic": TASKS[1:]}  # what is left without a task
STARTS = (-2.0, 0.0, 2.0, 5.0)  # of log sigma^2
SWEEP = ((0.01, 0.03, 0.1, 0.3, 1.0), (1.0, 10.0))  # weights of instance vectors and of inverse depth; semantics has 1
LEARNT = "learnt, noise first, from 0"  # the row that is compared with weights by hand
CONTROL = "control, noise first, from 0.01"  # how far apart runs are that differ by next to nothing
NOISE_RATE = 100.0  # log sigma^2 moves so many units where a weight moves one: 0.2 in a step
NOISES = (0.2, 0.5)  # standard deviations of noise added to inverse depth, 1/m
AGAIN = 6  # epochs in which the noises of a trained network are learnt anew
KEPT = 5  # every fifth step of the paths of log sigma^2 is kept


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/kendall"))
    parser.add_argument("--quick", action="store_true", help="shows that everything runs, not how well")
    parser.add_argument("--frames", type=int, default=240, help="training frames; a quarter as many for tests")
    parser.add_argument("--height", type=int, default=48)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", help="folder in which frames are kept")
    parser.add_argument("--noises", action="store_true", help="only the rows of the starts and of added noise")
    parser.add_argument(
        "--docs", type=Path, help="folder of the documentation, for results/kendall_rooms.json and pictures"
    )
    options = parser.parse_args()
    if options.quick:
        options.frames, options.height, options.width, options.epochs, options.seeds = 8, 24, 32, 1, 1
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    few = max(2, options.frames // 4)
    sizes = {"train": options.frames, "val": few, "test": few, "height": options.height, "width": options.width}
    read = partial(load, "rooms", root=options.cache, inverse=True, **sizes)
    data = read().subset(TASKS)
    weights, starts = (((0.1,), (1.0,)), (0.0,)) if options.quick else (SWEEP, STARTS)
    settings = {name: getattr(options, name) for name in ("frames", "height", "width", "epochs")}
    kept = finished(options.out / "results.json", settings)

    def run(name, tasks, seed, of=data, **how):
        key = f"{name}; seed {seed}"
        if key in kept["runs"]:
            return
        print(key, flush=True)
        found, images = train(of.subset(tasks), seed, options.epochs, **how)
        if name == LEARNT and not seed:
            save(image_maps(images, families(data), size=1.2), options.out / "pictures.png", dpi=110)
        kept["runs"][key] = found
        with atomic(options.out / "results.json") as temporary:
            temporary.write_text(json.dumps(kept), encoding="utf-8")

    def run_starts(seed):
        for first, start in product((True, False), starts):
            name = f"learnt, {'noise first, ' * first}from {start:g}"
            run(name, TASKS, seed, start=start, noise_first=first, again=starts if name == LEARNT else ())
        run(CONTROL, TASKS, seed, start=0.01, noise_first=True)

    def run_added():
        for added, start in product(NOISES[-1:] if options.quick else NOISES, dict.fromkeys((starts[0], starts[-1]))):
            noisy = read(depth_noise=added).subset(["inverse_depth"])
            how = {
                "start": start,
                "noise_first": True,
                "likelihood": "gaussian",
                "exact": data.subset(["inverse_depth"]),
            }
            run(f"added noise {added:g}, from {start:g}", ("inverse_depth",), 0, of=noisy, **how)

    if options.noises:
        for seed in range(options.seeds):
            run_starts(seed)
        run_added()
        text = noises_page(kept)
        (options.out / "noises.md").write_text(text, encoding="utf-8")
        print(text)
        if options.docs:
            (options.docs / "results").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(options.out / "results.json", options.docs / "results" / "kendall_noises.json")
        return
    for seed in range(options.seeds):
        for task in TASKS:
            run(f"{task} alone", (task,), seed)
        for instance, depth in product(*weights):
            run(fixed(instance, depth), TASKS, seed, weights={"instance": instance, "inverse_depth": depth})
        run_starts(seed)
        for missing, tasks in PAIRS.items():
            run(f"learnt, noise first, without {missing}", tasks, seed, start=0.0, noise_first=True)
    run_added()

    text = page(kept)
    (options.out / "table.md").write_text(text, encoding="utf-8")
    print(text)
    save(sweep_figure(by_name(kept), weights), options.out / "sweep.png", dpi=110)
    save(starts_figure(by_name(kept), starts), options.out / "figure6.png", dpi=110)
    if options.docs:
        (options.docs / "results").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(options.out / "results.json", options.docs / "results" / "kendall_rooms.json")
        for name in ("sweep", "figure6", "pictures"):
            shutil.copyfile(options.out / f"{name}.png", options.docs / f"kendall_{name}.png")


def fixed(instance, depth):
    """The name of a row of fixed weights."""
    return f"weights 1, {instance:g}, {depth:g}"


def finished(path, settings):
    """What an earlier run of the script with these settings has done."""
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["settings"] == settings:
            return kept
    return {"settings": settings, "runs": {}}


def train(data, seed, epochs, *, weights=None, start=None, noise_first=False, again=(), likelihood=None, exact=None):
    """Scores on validation and test frames and log sigma^2 on the way; and test images.

    Args:
        data: With the tasks that are learnt.
        seed: Of initial weights and batches.
        epochs: How many.
        weights: Task -> weight, 1 for the others, for noises that are fixed.
        start: Where log sigma^2 starts, for noises that are learnt.
        noise_first: Whether only the noises move in two epochs before.
        again: Starts of log sigma^2 from which the noises of the trained network are learnt anew, after it was scored.
        likelihood: Of inverse depth, in place of the default.
        exact: The same frames without added noise: the root mean squared error there is returned too.
    """
    x, y = data.tensors("train")
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for task, target in data.targets.items():
        name = likelihood if task == "inverse_depth" else None
        # Labels as they are, in pixels and 1/m: how large the losses are is what the weights must make up for.
        pixels = float((~target.family.missing_pixels(target.values[data.rows["train"]])).sum() / len(x))
        made[task] = likelihood_of(
            target.family, name, noise="fixed" if start is None else "parameter", temperature=pixels
        )
        if start is not None:
            unknown = made[task].of_pixel.unknowns["log_variance"]
            unknown.lr_multiplier = NOISE_RATE
            unknown.start_at(torch.tensor(start))
    trunk = unet_trunk(data.inputs.describe(), widths=(16, 24, 32, 64), generator=generator, channels_last=True)
    model = TaskModel(trunk, trunk.width, made, len(x), generator=generator)
    spec = "ew" if not weights else f"ew(weights={dict.fromkeys(data.tasks, 1.0) | weights})"
    path = []
    batches = Recorded(x, y, 8, seed, made, path)

    def learn(epochs, scheduler=None):
        svi = BalancedSVI(
            model, model.guide(), partial(torch.optim.Adam, lr=2e-3), balancer(spec), TaskELBO("analytic")
        )
        fit(svi, batches, max_epochs=epochs, seed=seed, scheduler=scheduler, progress=False)
        return svi

    def cosine(optimizer, of=epochs):
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, of)

    network = [p for name, p in model.named_parameters() if "log_variance" not in name]
    if noise_first:
        trainable(network, False)
        learn(2)
        trainable(network, True)
    svi = learn(epochs, cosine)

    def predict(part, of=data):
        return draw_reduced(of, part, lambda x, y: draw(model, svi.guide, x, y, num_draws=1, seed=0), 1, seed=0)[1]

    test = predict("test")
    found = {
        "scores": {task: of.rows.whole[SCORE[task]] for task, of in test.items()},
        "validation": {task: of.rows.whole[SCORE[task]] for task, of in predict("val").items()},
    }
    if start is not None:
        ends = {task: noise(of) for task, of in made.items()}
        found["log_variance"] = {task: [round(values[task], 3) for values in path[::KEPT]] for task in made}
        found["end"] = ends
    trainable(network, False)
    for value in again:
        for of in made.values():
            of.of_pixel.unknowns["log_variance"].start_at(torch.tensor(value))
        learn(AGAIN, partial(cosine, of=AGAIN))
        found.setdefault("again", []).append({task: noise(of) for task, of in made.items()})
    if exact is not None:
        found["error"] = predict("train", exact)["inverse_depth"].rows.whole["rmse"]
    return found, {task: of.rows.images for task, of in test.items()}


class Recorded(Batches):
    """Batches that write down the noises each time that one is asked for."""

    def __init__(self, x, y, size, seed, likelihoods, path):
        super().__init__(x, y, size, seed=seed)
        self.likelihoods, self.path = likelihoods, path

    def __iter__(self):
        for batch in super().__iter__():
            self.path.append({name: noise(of) for name, of in self.likelihoods.items()})
            yield batch


def trainable(parameters, whether):
    for parameter in parameters:
        parameter.requires_grad_(whether)


def noise(likelihood):
    """The present log sigma^2."""
    return float(likelihood.of_pixel.unknowns["log_variance"]("").detach())


def families(data):
    return {name: target.family.of_rows for name, target in data.targets.items()}


def by_name(kept):
    """Row -> what its runs found, by seed."""
    found = {}
    for key, run in kept["runs"].items():
        found.setdefault(key.split("; ")[0], []).append(run)
    return found


def change(done, name, part="scores"):
    """Mean relative change in % of the three tasks against each alone, a number a seed; negative is better."""
    alone = [[run[part][task] for run in done[f"{task} alone"]] for task in TASKS]
    own = [[run[part][task] for run in done[name]] for task in TASKS]
    pairs = zip(np.transpose(own), np.transpose(alone), strict=False)
    return [float(delta_m(*pair, higher_is_better=[True, False, False])) for pair in pairs]


def by_hand(done):
    """The row of the sweep that is best on validation."""
    names = [name for name in done if name.startswith("weights")]
    return min(names, key=lambda name: np.mean(change(done, name, "validation")))


def page(kept):
    """What is printed and shown in the documentation."""
    done = by_name(kept)
    return f"{table(done)}\n\n{against_hand(done)}\n\n{ends_table(done)}\n\n{noise_table(done)}\n"


def noises_page(kept):
    """What is printed and shown of the noises alone."""
    done = by_name(kept)
    return f"{ends_table(done)}\n\n{noise_table(done)}\n"


def table(done):
    """A row for each way of weighting: mean and standard deviation over the seeds."""
    lines = []
    for name, found in done.items():
        if name.startswith(("added", "control")):
            continue
        cells = []
        for task in TASKS:
            values = [of["scores"][task] for of in found if task in of["scores"]]
            cells.append(spread(values, 2 if task == "instance" else 4) if values else "")
        every = all(task in found[0]["scores"] for task in TASKS)
        lines.append([name, *cells, spread(change(done, name), 1) if every else ""])
    return markdown_table(["weights", *SHORT.values(), "delta_m %"], *lines)


def spread(values, digits):
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=len(values) > 1):.{digits}f}"


def against_hand(done):
    """Learnt noise against the weights by hand, seed by seed."""
    best = by_hand(done)
    lines = []
    for task in TASKS:
        learnt, hand = ([run["scores"][task] for run in done[name]] for name in (LEARNT, best))
        difference = np.subtract(learnt, hand)
        lines.append([SHORT[task], *(spread(values, 4) for values in (hand, learnt, difference))])
    return f"{best} is best on validation\n\n" + markdown_table(
        ["score", best, LEARNT, "difference, seed by seed"], *lines
    )


def ends_table(done):
    """Where log sigma^2 ended from each start, and how far apart the sigmas are: largest over smallest, less one."""
    lines = []
    for first in ("noise first, ", ""):
        names = [name for name in done if name.startswith(f"learnt, {first}from")]
        for name in names:
            ends = {task: [run["end"][task] for run in done[name]] for task in TASKS}
            lines.append([name, *(spread(values, 3) for values in ends.values())])
        for seed in range(len(done[names[0]])):
            ends = [[done[name][seed]["end"][task] for name in names] for task in TASKS]
            apart = [f"{100 * np.expm1(np.ptp(values) / 2):.1f} %" for values in ends]
            lines.append([f"sigmas apart, {first}seed {seed}", *apart])
    for seed, run in enumerate(done[LEARNT]):
        if "again" in run:
            ends = [[of[task] for of in run["again"]] for task in TASKS]
            apart = [f"{100 * np.expm1(np.ptp(values) / 2):.2f} %" for values in ends]
            lines.append([f"sigmas apart, network fixed, seed {seed}", *apart])
    for seed, runs in enumerate(zip(done[LEARNT], done.get(CONTROL, []), strict=False)):
        apart = [f"{100 * np.expm1(abs(runs[0]['end'][task] - runs[1]['end'][task]) / 2):.1f} %" for task in TASKS]
        lines.append([f"sigmas apart, noise first, from 0 and 0.01, seed {seed}", *apart])
    return markdown_table(["log sigma^2 ends at", *TASKS], *lines)


def noise_table(done):
    """What was learnt of a Gaussian noise of known size: it is joined by the error of the fit."""
    lines = []
    for name, found in done.items():
        if name.startswith("added"):
            added, error = float(name.split()[2].rstrip(",")), found[0]["error"]
            sigma = np.exp(found[0]["end"]["inverse_depth"] / 2)
            numbers = (sigma, 100 * (sigma / added - 1), error, np.hypot(added, error))
            lines.append([name, *(f"{value:.{digits}f}" for value, digits in zip(numbers, (4, 1, 4, 4), strict=True))])
    header = ["inverse depth", "learnt sigma", "above the added, %", "error of the fit", "both together"]
    return markdown_table(header, *lines)


def sweep_figure(done, weights):
    """Each task's score against the fixed weight of the instance vectors; learnt noise is where its weights ended."""
    with styled():
        figure = Figure(figsize=(9, 2.9), layout="constrained")
        for panel, task in zip(figure.subplots(1, len(TASKS)), TASKS, strict=True):
            for depth, colour in zip(weights[1], COLOURS[2:], strict=False):
                values = [[run["scores"][task] for run in done[fixed(w, depth)]] for w in weights[0]]
                label = f"fixed, inverse depth {depth:g}"
                panel.errorbar(weights[0], np.mean(values, 1), np.std(values, 1), marker="o", color=colour, label=label)
            scores = [run["scores"][task] for run in done[LEARNT]]
            ratio = [np.exp(run["end"]["semantic"] - run["end"]["instance"] / 2) for run in done[LEARNT]]
            panel.errorbar(
                np.mean(ratio),
                np.mean(scores),
                np.std(scores),
                marker="*",
                ms=11,
                color=COLOURS[1],
                label="learnt noise",
            )
            alone = np.mean([run["scores"][task] for run in done[f"{task} alone"]])
            panel.axhline(alone, color=COLOURS[0], linestyle=":", label="alone")
            panel.set(xscale="log", xlabel="weight of instance vectors", title=SHORT[task])
        figure.legend(*panel.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def starts_figure(done, starts):
    """The path of log sigma^2 from each start, a column a task: Figure 6 of the paper; above with the noise first."""
    with styled():
        figure = Figure(figsize=(9, 4.4), layout="constrained")
        grid = figure.subplots(2, len(TASKS), sharex=True, sharey=True)
        for panels, first in zip(grid, ("noise first, ", ""), strict=True):
            for panel, task in zip(panels, TASKS, strict=True):
                for start, colour in zip(starts, ("#440154", "#31688E", "#35B779", "#D8B025"), strict=False):
                    path = done[f"learnt, {first}from {start:g}"][0]["log_variance"][task]
                    steps = KEPT * np.arange(len(path))
                    panel.plot(steps, path, color=colour, linewidth=1.1, label=f"from {start:g}")
                panel.set_title(f"{task}{', noise first' if first else ''}")
        for panel in grid[-1]:
            panel.set_xlabel("step")
        figure.legend(*panel.get_legend_handles_labels(), loc="outside upper center", ncols=len(starts))
        figure.supylabel("log sigma²", fontsize=9)
    return figure


if __name__ == "__main__":
    main()
