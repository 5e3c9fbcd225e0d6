"""Time and memory of a training step of graph networks on QM9: PyTorch Geometric's original beside ours.

The original is the published network (Dai et al. 2023) with `torch_geometric.nn.NNConv`, which makes a matrix of 64 x 64 for
each of the E edges of a batch, three times. `factorised` is the same function of the same parameters (largest difference of
outputs in units of their standard deviation is printed) on dense padded batches of random molecules, `like sizes` on batches
of like size, as our loader makes them; `schnet` is the default trunk. Time: median over turns of forward and backward, each
on the same batches, one thread. Memory: what the process's peak rises by, each in a process of its own.

Molecules have random positions, and sizes as QM9 has them (mean 18, standard deviation 3, at most 29); no data are needed.

Run: python benchmarks/qm9_networks.py [--batch 120] [--turns 3] [--json FILE] [--quick]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bmtl import inputs
from bmtl.datasets.batches import like_sizes
from bmtl.datasets.molecules import Atoms
from bmtl.models.networks.message_passing import edges_of
from bmtl.models.networks.molecules import MoleculeNNConv, schnet_trunk

ELEMENTS = [1, 6, 7, 8, 9]
NAMES = ("original", "factorised", "like sizes", "schnet")
POOL = 16  # batches of molecules, of which one of like size is taken


class Original(nn.Module):
    """The published network on graphs of PyTorch Geometric, with the parameters of a `MoleculeNNConv`."""

    def __init__(self, ours: MoleculeNNConv) -> None:
        from torch_geometric.nn import NNConv
        from torch_geometric.nn.aggr import Set2Set

        super().__init__()
        network = ours.network
        width, edge_network = network.width, network.conv.nn
        self.rounds, self.lin0, self.gru, self.lin1 = network.rounds, network.lin0, network.gru, network.lin1
        self.conv = NNConv(width, width, edge_network, aggr="mean")
        self.conv.lin, self.conv.bias = network.conv.lin, network.conv.bias
        self.set2set = Set2Set(width, processing_steps=3)
        self.set2set.lstm = network.set2set.lstm

    def forward(self, x: dict[str, torch.Tensor]) -> torch.Tensor:
        h = F.relu(self.lin0(x["nodes"]))
        for _ in range(self.rounds):
            h = self.gru(F.relu(self.conv(h, x["index"], x["edges"])), h)
        return F.relu(self.lin1(self.set2set(h, x["owner"])))


def molecules(number: int, seed: int = 0) -> Atoms:
    """Random molecules of QM9's sizes, their atoms on a lattice so that none coincide."""
    random = np.random.default_rng(seed)
    sizes = np.clip(np.round(random.normal(18, 3, number)), 3, 29).astype(int)
    lattice = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), axis=-1).reshape(-1, 3)
    z, x = np.zeros((number, 29), np.int64), np.zeros((number, 29, 3), np.float32)
    for row, n in enumerate(sizes):
        z[row, :n] = random.choice(ELEMENTS, n)
        x[row, :n] = 1.2 * random.permutation(lattice)[:n] + 0.2 * random.random((n, 3))
    return Atoms(torch.from_numpy(z), torch.from_numpy(x))


def flat(x: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Features of a dense batch as those of one graph."""
    mask = x["mask"]
    place = mask.flatten().cumsum(0).view_as(mask) - 1
    b, i, j = edges_of(mask).nonzero(as_tuple=True)
    index = torch.stack([place[b, j], place[b, i]])  # node i receives from node j
    owner = torch.arange(len(mask))[:, None].expand_as(mask)[mask]
    return {"nodes": x["nodes"][mask], "edges": x["edges"][b, i, j], "index": index, "owner": owner}


def prepared(batch: int) -> dict[str, tuple[nn.Module, object]]:
    """Name -> network and its batch of molecules."""
    torch.manual_seed(0)
    ours = MoleculeNNConv(ELEMENTS)
    pool = molecules(POOL * batch)
    at_random = inputs.take(pool, slice(0, batch))
    order = like_sizes(inputs.sizes(pool), batch, torch.Generator().manual_seed(0))
    # The batch of like size whose number of pairs is nearest to the mean of all.
    parts = [inputs.take(pool, rows) for rows in order.split(batch)]
    pairs = [part.numbers.shape[1] ** 2 for part in parts]
    like = parts[int(np.argmin(np.abs(np.array(pairs) - np.mean(pairs))))]
    schnet = schnet_trunk({"kind": "molecules", "elements": ELEMENTS}, widths=(64, 64, 64))
    return {
        "original": (Original(ours), flat(ours.features(at_random))),
        "factorised": (ours, at_random),
        "like sizes": (ours, like),
        "schnet": (schnet, like),
    }


def step(network: nn.Module, x: object) -> float:
    """Seconds of a forward and a backward pass, of the processor."""
    network.zero_grad()
    start = time.process_time()
    network(x).square().sum().backward()
    return time.process_time() - start


def peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def memory(name: str, batch: int) -> int:
    """Bytes by which one step raises this process's peak."""
    network, x = prepared(batch)[name]
    before = peak()
    step(network, x)
    return peak() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=120)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it runs")
    parser.add_argument("--one", choices=NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.batch, options.turns = 4, 1
    torch.set_num_threads(1)
    if options.one:
        print(memory(options.one, options.batch))
        return
    if find_spec("torch_geometric") is None:
        print("This needs PyTorch Geometric 2: pip install 'bmtl[graph]'.")
        return
    # Before this process has done anything: a new process begins with the peak of the one that starts it.
    taken = {}
    for name in NAMES:
        command = [sys.executable, __file__, "--batch", str(options.batch), "--one", name]
        taken[name] = int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    made = prepared(options.batch)
    with torch.no_grad():
        original, ours = (made[name][0](made[name][1]) for name in ("original", "factorised"))
    difference = float((original - ours).abs().max() / original.std())
    seconds = {name: [] for name in NAMES}
    for _ in range(options.turns):
        for name, (network, x) in made.items():
            seconds[name].append(step(network, x))
    found = {name: {"seconds": statistics.median(seconds[name]), "bytes": taken[name]} for name in NAMES}
    print(f"batch {options.batch}; largest difference of the factorised network from the original: {difference:.1e}\n")
    print(f"{'':12}{'s':>10}{'of the original':>18}{'peak, GB':>10}")
    for name, one in found.items():
        ratio = one["seconds"] / found["original"]["seconds"]
        print(f"{name:12}{one['seconds']:10.4f}{ratio:18.4f}{one['bytes'] / 1e9:10.3f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"difference": difference, **found}, indent=1))


if __name__ == "__main__":
    main()
