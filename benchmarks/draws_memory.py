"""What draws of a large test set need in memory: `draw`, then `results_tree`, then `write`.

A regression with a Bayesian head is drawn S times for N labelled rows, in a process of its own. Peaks of resident memory
are taken after each part, above what the imports and a small run of the same take; the small run has the shapes of nothing
that is counted. The column "B" is the peak in bytes per draw, row and target. Run:

    python benchmarks/draws_memory.py [--rows 100000] [--draws 100] [--targets 1] [--batch 0] [--json draws_memory.json]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

PARTS = ("draw", "results_tree", "write")


def peak() -> float:
    """Peak resident memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(rows: int, draws: int, targets: int, batch: int | None) -> dict[str, float]:
    """Bytes above the start at the peak up to the end of each part, and the size of the file."""
    import numpy as np
    import torch

    import bmtl
    from bmtl.datasets import MultiTaskData
    from bmtl.evaluation.results import write
    from bmtl.models import BayesianHeads, TaskModel, mlp
    from bmtl.models.likelihoods import Gaussian

    torch.set_num_threads(1)
    names = [f"t{k}" for k in range(targets)]

    def run(count: int, times: int, folder: Path) -> list[float]:
        random = np.random.default_rng(0)
        data = MultiTaskData.from_arrays(
            "random",
            random.normal(size=(count + 20, 4)).astype(np.float32),
            {name: 3 + 2 * random.normal(size=count + 20) for name in names},
            {"train": range(10), "val": range(10, 20), "test": range(20, count + 20)},
        )
        likelihoods = {name: Gaussian("latent") for name in names}
        model = TaskModel(mlp(4, (8,)), 8, likelihoods, count, head=BayesianHeads)
        x, y = data.tensors("test")
        levels = [peak()]
        drawn = bmtl.draw(model, model.guide(), x, y, num_draws=times, batch_size=batch)
        levels.append(peak())
        tree = bmtl.results_tree(data, drawn)
        levels.append(peak())
        path = write(tree, folder / "results.nc")
        levels.append(peak())
        return [*(level - levels[0] for level in levels[1:]), path.stat().st_size]

    with tempfile.TemporaryDirectory() as folder:
        run(50, 3, Path(folder))
        return dict(zip((*PARTS, "file"), run(rows, draws, Path(folder)), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--targets", type=int, default=1)
    parser.add_argument("--batch", type=int, default=0, help="rows at a time; 0 for all")
    parser.add_argument("--json", help="file for the peaks in bytes")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.rows, options.draws, options.targets, options.batch or None)))
        return
    command = [sys.executable, __file__, *sys.argv[1:], "--one"]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    cells = options.draws * options.rows * options.targets
    print(f"S = {options.draws} draws of N = {options.rows:,} rows of {options.targets} target(s)\n")
    print(f"{'peak after':16}{'MB':>8}{'B':>8}")
    for name, taken in found.items():
        print(f"{name:16}{taken / 1e6:8.0f}{taken / cells:8.1f}")
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
