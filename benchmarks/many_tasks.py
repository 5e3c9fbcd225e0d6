"""What a run of many tasks takes beside its training: set-up, draws, results tree and file; and reading the file.

Each task has 20 rows of its own. One epoch of equal weights on one trunk, in one thread; processor seconds, which do not
count other programs. "run / training" is to stay below 3 at 1,000 tasks. Run:

    python benchmarks/many_tasks.py [--tasks 200 1000] [--method ew] [--quick]
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback

from bmtl.datasets.many_tasks import assemble
from bmtl.evaluation import results
from bmtl.experiments import METHODS, Budget, run


class Training(Callback):
    """Processor seconds between the training's start and its end."""

    def on_fit_start(self, trainer, pl_module):
        self.start = time.process_time()

    def on_fit_end(self, trainer, pl_module):
        self.seconds = time.process_time() - self.start


def measure(tasks: int, method: str, rows: int = 20) -> tuple[float, float, float]:
    """Seconds of the training, of the whole run, and of reading its file."""
    random = np.random.default_rng(0)
    task = np.repeat(np.arange(tasks), rows)
    data = assemble("random", random.normal(size=(len(task), 5)), random.normal(size=len(task)), task=task)
    training = Training()
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        run(
            data,
            METHODS[method].on_trunk("mlp"),
            0,
            Budget(epochs=1, draws=20, schedule="constant"),
            folder,
            callbacks=[training],
        )
        whole = time.process_time() - start
        start = time.process_time()
        results.read(Path(folder) / "results.nc")
        return training.seconds, whole, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--method", default="ew", choices=sorted(METHODS))
    parser.add_argument("--quick", action="store_true", help="few tasks: shows that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    measure(3, options.method)  # imports
    print(f"{'tasks':>6} {'training s':>11} {'run s':>7} {'run / training':>15} {'read s':>7}")
    for tasks in [10] if options.quick else options.tasks:
        training, whole, read = measure(tasks, options.method)
        print(f"{tasks:>6} {training:>11.2f} {whole:>7.2f} {whole / training:>15.2f} {read:>7.2f}", flush=True)


if __name__ == "__main__":
    main()
