"""How much faster a bank of small evidential networks trains than its networks one by one.

20 splits times 30 settings (learning rate, regulariser) of MT-ENet on rows of the size of the UCI set "energy": 691 rows
of 8 features, 50 units, batches of 32. The bank trains all of them. One by one, a few are trained for a few epochs
(`BalancedSVI`, the steps alone) and the time is scaled up to all networks and epochs, since it is the same for each. Both
take turns in one process with one thread. Seconds are the processor's; the bank's by the clock stand beside them.

Run: python benchmarks/evidential_bank.py [--splits 20] [--settings 30] [--epochs 40] [--alone 3] [--json FILE]
"""

import argparse
import functools
import json
import time
from pathlib import Path

import torch

import bmtl
from bmtl.datasets import Batches
from bmtl.inference import Bank
from bmtl.models import TaskModel, mlp
from bmtl.models.likelihoods import Evidential

ROWS, FEATURES, WIDTH, BATCH = 691, 8, 50, 32
TURNS = 2  # in which the ones and the others are timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--settings", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--alone", type=int, default=3, help="networks trained one by one, for an epoch each turn")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)

    random = torch.Generator().manual_seed(0)
    splits = []
    for _ in range(options.splits):
        x = torch.randn(ROWS, FEATURES, generator=random)
        noise = torch.randn(ROWS, generator=random)
        splits.append((x, {"y": torch.tanh(x[:, 0] + x[:, 1] * x[:, 2]) + 0.1 * noise}))
    lr = (5e-4 + (0.01 - 5e-4) * torch.rand(options.settings, generator=random)).tolist()
    regulariser = (0.01 * torch.rand(options.settings, generator=random)).tolist()
    nets = [(s, k) for s in range(options.splits) for k in range(options.settings)]

    programs = [program(s, regulariser[k]) for s, k in nets]
    bank = Bank(
        programs,
        [splits[s] for s, _ in nets],
        batch_size=BATCH,
        lr=[lr[k] for _, k in nets],
        seeds=[s for s, _ in nets],
    )
    singles = []
    for s, k in nets[: options.alone]:
        net = program(s, regulariser[k])
        optim = functools.partial(torch.optim.Adam, lr=lr[k])
        svi = bmtl.BalancedSVI(net, net.guide(), optim, elbo=bmtl.TaskELBO(normalize="task_mean"))
        singles.append((svi, Batches(*splits[s], BATCH, seed=s)))
        svi.initialise(*splits[s])

    in_bank, clock, alone = 0.0, 0.0, []
    for turn in range(TURNS):
        for svi, batches in singles:
            start = time.process_time()
            for batch in batches:
                svi.step(*batch)
            alone.append(time.process_time() - start)
        share = options.epochs * (turn + 1) // TURNS - options.epochs * turn // TURNS
        start, wall = time.process_time(), time.perf_counter()
        bank.fit(share)
        in_bank += time.process_time() - start
        clock += time.perf_counter() - wall
    scaled = sum(alone) / len(alone) * len(nets) * options.epochs
    found = {
        "networks": len(nets),
        "epochs": options.epochs,
        "bank_s": in_bank,
        "bank_clock_s": clock,
        "one_by_one_s_scaled": scaled,
        "timed_epochs_one_by_one": len(alone),
        "ratio": scaled / in_bank,
        "bank_ms_per_network": 1e3 * in_bank / len(nets),
    }
    print(f"{len(nets)} networks ({options.splits} splits, {options.settings} settings), {options.epochs} epochs:")
    print(
        f"  bank         {in_bank:8.1f} s   {found['bank_ms_per_network']:8.1f} ms a network   ({clock:.0f} s by the clock)"
    )
    print(f"  one by one   {scaled:8.0f} s   {1e3 * scaled / len(nets):8.0f} ms a network", end="")
    print(f"   (scaled up from {len(alone)} epochs of {len(singles)} networks)")
    print(f"  the bank is {found['ratio']:.0f} times faster")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def program(seed: int, regulariser: float) -> TaskModel:
    generator = torch.Generator().manual_seed(seed)
    trunk = mlp(FEATURES, (WIDTH,), generator=generator)
    return TaskModel(trunk, WIDTH, {"y": Evidential(regulariser=regulariser)}, ROWS, generator=generator)


if __name__ == "__main__":
    main()
