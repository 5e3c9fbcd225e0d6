"""Peak memory of training variational multi-task learning at the size of its paper's Office-Home runs.

Four tasks, 65 classes, 512 latents, batches of 1,040 rows and 10 samples of (z, w). With a w drawn for each row, as in the
released code, one tensor of samples x rows x classes x latents alone would hold 1,384 MB; drawn in logit space, nothing of
that size is made. Steps run in a process of their own; the figure is the peak of resident memory above the imports. Run:

    python benchmarks/vmtl_memory.py [--inputs 512] [--steps 5] [--sampling logits] [--limit 500] [--json vmtl_memory.json]

With `--limit` (MB) the exit status is 1 above it.
"""

import argparse
import functools
import json
import resource
import subprocess
import sys
from pathlib import Path

TASKS, CLASSES, LATENT, BATCH, SAMPLES, ROWS = 4, 65, 512, 1040, 10, 195


def peak() -> float:
    """Peak resident memory of this process so far, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def measure(inputs: int, steps: int, sampling: str) -> dict[str, float]:
    """MB above the imports at the peak, and the loss at last."""
    import torch

    import bmtl
    from bmtl.inputs import PerTask
    from bmtl.models.likelihoods import Categorical
    from bmtl.models.vmtl import vmtl_preset

    torch.set_num_threads(1)

    def train(tasks: int, inputs: int, classes: int, latent: int, rows: int, batch: int, steps: int) -> float:
        generator = torch.Generator().manual_seed(0)
        names = [f"t{t}" for t in range(tasks)]
        x = PerTask({name: torch.randn(rows, inputs, generator=generator) for name in names})
        y = {name: torch.arange(rows) % classes for name in names}
        model = vmtl_preset(
            "VMTL",
            inputs,
            {name: Categorical(classes, "fixed") for name in names},
            rows,
            encoder="linear",
            latent=latent,
            support=(x, y),
            sampling=sampling,
            generator=generator,
        )
        elbo = bmtl.TaskELBO(
            "analytic", num_particles=SAMPLES, vectorize_particles=True, max_plate_nesting=2, normalize="task_mean"
        )
        svi = bmtl.BalancedSVI(model, model.guide(), functools.partial(torch.optim.Adam, lr=1e-3), elbo=elbo)
        loss = 0.0
        for _ in range(steps):
            picked = {name: torch.randint(rows, (batch // tasks,), generator=generator) for name in names}
            own = PerTask({name: x[name][picked[name]] for name in names})
            record = svi.step(own, {name: y[name][picked[name]] for name in names})
            loss = float(record.losses.mean())
        return loss

    train(2, 3, 2, 3, 4, 4, 2)  # what a first step imports and compiles
    before = peak()
    loss = train(TASKS, inputs, CLASSES, LATENT, ROWS, BATCH, steps)
    return {"peak": peak() - before, "loss": loss}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=512)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--sampling", choices=("logits", "weights"), default="logits")
    parser.add_argument("--limit", type=float, help="in MB")
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.inputs, options.steps, options.sampling)))
        return
    command = [sys.executable, __file__, *sys.argv[1:], "--one"]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    print(
        f"{TASKS} tasks, {CLASSES} classes, {options.inputs} inputs, {LATENT} latents, {BATCH} rows, {SAMPLES} samples, "
        f"sampling={options.sampling!r}: peak {found['peak']:.0f} MB above the imports, loss {found['loss']:.3f}"
    )
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))
    if options.limit is not None and found["peak"] > options.limit:
        sys.exit(f"The peak is above the limit of {options.limit:.0f} MB.")


if __name__ == "__main__":
    main()
