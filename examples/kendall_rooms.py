"""Kendall, Gal & Cipolla (2018) on rendered rooms: semantics, instances and inverse depth from one image, noise as weight.

Run: python examples/kendall_rooms.py [--out runs/kendall] [--quick] [--frames 400] [--height 96 --width 128] [--epochs 12]
                                      [--seeds 3] [--cache FOLDER]

The rooms are drawings by a ray-caster and no photographs: what is printed says how ways of weighing tasks compare where the
truth is known, and nothing about Cityscapes. As in the paper: cross-entropy with a temperature, absolute errors of inverse
depth in 1/m and of vectors to the centroid in pixels over pixels of objects, and their noises as weights; the sweep over
fixed weights; starts of log sigma^2 from -2 to 5. Not as in the paper: a small U-net in place of DeepLab, Adam, a few
hundred steps, and the exact softmax where they approximate its normaliser. What no real data allow: Gaussian noise of a
known size is added to depth in the last rows, and compared with the one that is learnt.

Writes table.md, sweep.png, figure6.png, pictures.png and results.json under --out. A run that is in results.json with the
same settings is not done again: start the script once more after an interruption, or with more seeds.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from bmtl import BalancedSVI, TaskELBO, draw, fit
from bmtl.datasets import Batches, load
from bmtl.evaluation.markdown_tables import markdown_table
from bmtl.evaluation.plots import image_maps
from bmtl.evaluation.storage import atomic
from bmtl.evaluation.style import save
from bmtl.experiments.reduced import draw_reduced
from bmtl.inference.balancing import balancer
from bmtl.models import TaskModel, likelihood_of
from bmtl.models.networks import unet_trunk

TASKS = ("semantic", "instance", "inverse_depth")
SHORT = {"semantic": "mIoU", "instance": "instance [px]", "inverse_depth": "inverse depth [1/m]"}
SCORE = {"semantic": "mean_iou", "instance": "distance", "inverse_depth": "mae"}
STARTS = (-2.0, 0.0, 2.0, 5.0)  # of log sigma^2
SWEEP = (0.01, 0.03, 0.1, 0.3, 1.0)  # weight of the instance vectors, whose errors are in pixels; the others have 1
NOISE_RATE = 50.0  # log sigma^2 moves so many units where a weight moves one: it travels 10 within a tenth of training
NOISE = 0.1  # standard deviation of the noise added to inverse depth, 1/m


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/kendall"))
    parser.add_argument("--quick", action="store_true", help="shows that everything runs, not how well")
    parser.add_argument("--frames", type=int, default=400, help="training frames; a quarter as many for tests")
    parser.add_argument("--height", type=int, default=96)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", help="folder in which frames are kept")
    options = parser.parse_args()
    if options.quick:
        options.frames, options.height, options.width, options.epochs, options.seeds = 8, 24, 32, 1, 1
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    read = partial(
        load,
        "rooms",
        root=options.cache,
        train=options.frames,
        val=0,
        test=max(2, options.frames // 4),
        height=options.height,
        width=options.width,
        inverse=True,
    )
    data = read().subset(TASKS)
    sweep, starts = (SWEEP[:1], STARTS[-1:]) if options.quick else (SWEEP, STARTS)
    settings = {name: getattr(options, name) for name in ("frames", "height", "width", "epochs")}
    kept = finished(options.out / "results.json", settings)
    done = {}

    def run(name, tasks, seed, of=data, **how):
        key = f"{name}, seed {seed}"
        if key not in kept["runs"]:
            print(key, flush=True)
            found = train(of.subset(tasks), seed, options.epochs, **how)
            images = found.pop("images")
            if len(images) == len(TASKS) and how.get("start") == STARTS[-1] and not seed:
                save(image_maps(images, families(data)), options.out / "pictures.png")
            kept["runs"][key] = found
            with atomic(options.out / "results.json") as temporary:
                temporary.write_text(json.dumps(kept), encoding="utf-8")
        done.setdefault(name, []).append(kept["runs"][key])

    for seed in range(options.seeds):
        for task in TASKS:
            run(f"{task} alone", (task,), seed)
        for weight in sweep:
            run(f"weights 1, {weight:g}, 1", TASKS, seed, weights={"instance": weight})
        run("learnt, without instances", ("semantic", "inverse_depth"), seed, start=STARTS[-1])
        run("learnt, without depth", ("semantic", "instance"), seed, start=STARTS[-1])
        for start in starts:
            run(f"learnt, from {start:g}", TASKS, seed, start=start)
    noisy = read(depth_noise=NOISE).subset(["inverse_depth"])
    for start in dict.fromkeys((starts[0], starts[-1])):
        name = f"added noise {NOISE:g}, from {start:g}"
        run(name, ("inverse_depth",), 0, of=noisy, start=start, likelihood="gaussian")

    table = rows(done)
    text = f"{table}\n\n{noise_lines(done)}\n"
    (options.out / "table.md").write_text(text, encoding="utf-8")
    print(text)
    save(sweep_figure(done, sweep, f"learnt, from {starts[-1]:g}"), options.out / "sweep.png")
    save(starts_figure(done, starts), options.out / "figure6.png")


def finished(path, settings):
    """What an earlier run of the script with these settings has done."""
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["settings"] == settings:
            return kept
    return {"settings": settings, "runs": {}}


def train(data, seed, epochs, *, weights=None, start=None, likelihood=None):
    """Scores on the test frames, and log sigma^2 after each step.

    Args:
        data: With the tasks that are learnt.
        seed: Of initial weights and batches.
        epochs: How many.
        weights: Task -> weight, 1 for the others, for noises that are fixed.
        start: Where log sigma^2 starts, for noises that are learnt.
        likelihood: Of inverse depth, in place of the default.
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
    trunk = unet_trunk(data.inputs.describe(), widths=(16, 24, 32, 64), generator=generator)
    model = TaskModel(trunk, trunk.width, made, len(x), generator=generator)
    spec = "ew" if not weights else f"ew(weights={dict.fromkeys(data.tasks, 1.0) | weights})"
    svi = BalancedSVI(model, model.guide(), partial(torch.optim.Adam, lr=2e-3), balancer(spec), TaskELBO("analytic"))
    path = []
    loader = Recorded(x, y, 8, seed, made, path)
    fit(
        svi,
        loader,
        max_epochs=epochs,
        seed=seed,
        scheduler=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs),
        progress=False,
    )
    _, reduced = draw_reduced(
        data, "test", lambda x, y: draw(model, svi.guide, x, y, num_draws=2, seed=0), num_draws=2, seed=0
    )
    return {
        "scores": {task: of.rows.whole[SCORE[task]] for task, of in reduced.items()},
        "log_variance": {task: [values[task] for values in path] for task in data.tasks} if start is not None else {},
        "images": {task: of.rows.images for task, of in reduced.items()},
    }


class Recorded(Batches):
    """Batches that write down the noises each time that one is asked for."""

    def __init__(self, x, y, size, seed, likelihoods, path):
        super().__init__(x, y, size, seed=seed)
        self.likelihoods, self.path = likelihoods, path

    def __iter__(self):
        for batch in super().__iter__():
            self.path.append({name: noise(of) for name, of in self.likelihoods.items()})
            yield batch


def noise(likelihood):
    """The present log sigma^2."""
    return float(likelihood.of_pixel.unknowns["log_variance"]("").detach())


def families(data):
    return {name: target.family.of_rows for name, target in data.targets.items()}


def rows(done):
    """A row for each way of weighing: mean and standard deviation over the seeds."""
    lines = []
    for name, found in done.items():
        if name.startswith("added"):
            continue
        cells = []
        for task in TASKS:
            values = [of["scores"][task] for of in found if task in of["scores"]]
            cells.append(f"{np.mean(values):.4f} ± {np.std(values, ddof=len(values) > 1):.4f}" if values else "")
        lines.append([name, *cells])
    return markdown_table(["weights", *SHORT.values()], *lines)


def noise_lines(done):
    """What was learnt of a noise of known size, and where starts of log sigma^2 ended."""
    said = []
    for name, found in done.items():
        if name.startswith("added"):
            values = found[0]["log_variance"]["inverse_depth"]
            error = found[0]["scores"]["inverse_depth"]
            said.append(f"{name}: learnt sigma {np.exp(values[-1] / 2):.4f}, mean absolute error {error:.4f}")
        elif name.startswith("learnt, from"):
            ends = {task: np.mean([of["log_variance"][task][-1] for of in found]) for task in TASKS}
            said.append(f"{name}: log sigma^2 ends at " + ", ".join(f"{task} {end:.2f}" for task, end in ends.items()))
    return "\n".join(f"* {line}" for line in said)


def sweep_figure(done, sweep, learnt):
    """Each task's score against the fixed weight of the instance vectors, and the learnt weights' as a line."""
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for panel, task in zip(figure.subplots(1, len(TASKS)), TASKS, strict=True):
        values = [[of["scores"][task] for of in done[f"weights 1, {weight:g}, 1"]] for weight in sweep]
        panel.errorbar(
            sweep, np.mean(values, axis=1), np.std(values, axis=1), marker="o", color="#4C72B0", label="fixed"
        )
        panel.axhline(np.mean([of["scores"][task] for of in done[learnt]]), color="#C44E52", label="learnt noise")
        alone = np.mean([of["scores"][task] for of in done[f"{task} alone"]])
        panel.axhline(alone, color="#8C8C8C", linestyle=":", label="alone")
        panel.set(xscale="log", xlabel="weight of instance vectors", title=SHORT[task])
    panel.legend(fontsize=7)
    return figure


def starts_figure(done, starts):
    """The path of log sigma^2 from each start, a panel a task: Figure 6 of the paper."""
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for panel, task in zip(figure.subplots(1, len(TASKS), sharey=True), TASKS, strict=True):
        for start in starts:
            panel.plot(done[f"learnt, from {start:g}"][0]["log_variance"][task], label=f"from {start:g}")
        panel.set(title=task, xlabel="step")
    panel.legend(fontsize=7)
    figure.supylabel("log sigma²", fontsize=9)
    return figure


if __name__ == "__main__":
    main()
