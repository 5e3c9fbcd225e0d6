"""What a balanced step needs in memory: K tasks on a trunk of P parameters.

Each configuration trains for a few steps in a process of its own, and its peak resident memory is taken above what the
imports and the first small step of torch take. `full` holds the K x P gradients once where a weighting works on them or
where layers have fewer inputs than rows; the others hold nothing of that size.
The column "P" is the peak in units of P numbers of float32: 1 for the parameters, 1 for their gradients. Run:

    python benchmarks/memory.py [--tasks 40] [--parameters 10e6] [--steps 3] [--json memory.json] [--quick]
"""

import argparse
import functools
import json
import math
import resource
import subprocess
import sys

SPECS = (
    "ew",
    "representation >> upgrad",
    "last-layer >> upgrad",
    "bayes-agg",
    "full >> upgrad",
    "igb-v1 >> full >> nash-mtl",
    "grad-norm >> full >> upgrad",
    "full >> grad-drop",
    "full(cross=True) >> sdm-grad",
    "full >> db-mtl",
    "full >> moco",
)


def peak() -> float:
    """Peak resident memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(spec: str, tasks: int, parameters: float, steps: int) -> float:
    """Bytes that a run takes at its peak; in a process of its own."""
    import pyro
    import torch
    from torch import Tensor, nn

    import bmtl

    torch.set_num_threads(1)

    class Net(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.trunk = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
            self.heads = nn.ModuleList([nn.Linear(width, 1) for _ in range(tasks)])

        def forward(self, x: Tensor, y: Tensor) -> None:
            h = bmtl.shared(self.trunk(x))
            rows = pyro.plate("rows", len(x), dim=-1)
            for k, head in enumerate(self.heads):
                with bmtl.task(f"t{k}"), rows:
                    pyro.factor(f"y{k}", -0.5 * (head(h).squeeze(-1) - y[:, k]).square())

    def guide(x: Tensor, y: Tensor) -> None:
        """No latent: the parameters are point masses."""

    def train(width: int) -> None:
        sgd = functools.partial(torch.optim.SGD, lr=1e-4)
        svi = bmtl.BalancedSVI(Net(width), guide, sgd, spec, bmtl.TaskELBO(normalize="task_mean"))
        x, y = torch.randn(32, width), torch.randn(32, tasks)
        for _ in range(steps):
            svi.step(x, y)

    train(8)
    before = peak()
    train(round(math.sqrt(parameters / 2)))
    return peak() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--parameters", type=float, default=10e6)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--specs", nargs="+", default=SPECS)
    parser.add_argument("--json", help="file for the peaks in bytes")
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it runs")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.tasks, options.parameters, options.steps, options.specs = 3, 1e4, 1, SPECS[:1]
    if options.one:
        print(measure(options.one, options.tasks, options.parameters, options.steps))
        return
    size = 4 * options.parameters
    print(f"K = {options.tasks} tasks, P = {options.parameters:.3g} shared parameters in float32 ({size / 1e6:.0f} MB)")
    print(f"one K x P matrix is {options.tasks * size / 1e9:.2f} GB\n")
    print(f"{'':30}{'GB':>8}{'P':>8}{'K x P':>8}")
    found: dict[str, float] = {}
    for spec in options.specs:
        own = ["--tasks", options.tasks, "--parameters", options.parameters, "--steps", options.steps, "--one", spec]
        command = [sys.executable, __file__, *map(str, own)]
        found[spec] = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        taken = found[spec] / size
        print(f"{spec:30}{found[spec] / 1e9:8.2f}{taken:8.1f}{taken / options.tasks:8.2f}", flush=True)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
