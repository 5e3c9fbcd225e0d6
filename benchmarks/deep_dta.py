"""What exact short cuts make of a training step of DeepDTA's network: values, gradients and time beside the plain network.

Forward and backward of 256 random training pairs of Davis, without heads, all variants in turns in one process with one
thread; times are medians, and ratios those of this run. With --quick, or where the data are absent, made-up pairs of shorter
sequences take their place.

Run: python benchmarks/deep_dta.py [--root ../shared/data] [--turns 5] [--quick]
"""

import argparse
import time

import numpy as np
import torch

from bmtl.datasets import load
from bmtl.datasets.drug_target import AMINO_ACIDS, DrugTargetPairs
from bmtl.models.networks.deep_dta import deep_dta_trunk

VARIANTS = {
    "plain": {"distinct": False, "buckets": 1, "folded": False},
    "distinct": {"buckets": 1, "folded": False},
    "+ four buckets": {"folded": False},
    "+ folded": {},
    "+ folded, eight buckets": {"buckets": 8},
    "+ folded, bfloat16": {"half": True},
}
ROWS, WIDTHS = 256, (1024, 1024, 512)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder that holds dta/davis.npz; by default what BMTL_DATA says")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="made-up pairs, one turn: shows that everything runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, widths, turns = (16, (32, 16), 1) if options.quick else (ROWS, WIDTHS, options.turns)
    kind, of = made_up() if options.quick else davis(options.root)
    chosen = np.sort(np.random.default_rng(0).choice(of, rows, replace=False))
    batch = kind.tensors(chosen)
    print(
        f"{rows} pairs: {len(np.unique(kind.drug[chosen]))} drugs, {len(np.unique(kind.protein[chosen]))} proteins; "
        f"{turns} turns.\n"
    )
    networks = {
        name: deep_dta_trunk(
            kind.describe(), widths=widths, generator=torch.Generator().manual_seed(0), dropout=0.0, **variant
        )
        for name, variant in VARIANTS.items()
    }
    values, gradients = {}, {}
    for name, network in networks.items():
        values[name] = network(batch)
        values[name].square().mean().backward()
        gradients[name] = [parameter.grad.clone() for parameter in network.parameters()]
    seconds = {name: [] for name in networks}
    for _ in range(turns):
        for name, network in networks.items():
            start = time.perf_counter()
            network(batch).square().mean().backward()
            seconds[name].append(time.perf_counter() - start)
    print(f"{'variant':<24} {'values':>9} {'gradients':>10} {'seconds':>8} {'ratio':>6}")
    plain = np.median(seconds["plain"])
    for name in networks:
        median = np.median(seconds[name])
        print(
            f"{name:<24} {(values[name] - values['plain']).abs().max():>9.1e} "
            f"{largest(gradients[name], gradients['plain']):>10.1e} {median:>8.3f} {median / plain:>6.2f}"
        )
    print("\nvalues: largest difference from plain. gradients: largest relative one of a parameter's, by its norm.")


def largest(found: list[torch.Tensor], plain: list[torch.Tensor]) -> float:
    return max(float((one - other).norm() / other.norm()) for one, other in zip(found, plain, strict=True))


def davis(root: str | None) -> tuple[DrugTargetPairs, np.ndarray]:
    data = load("davis", root=root)
    return data.inputs, data.rows["train"]


def made_up() -> tuple[DrugTargetPairs, np.ndarray]:
    """Chains of carbon and random sequences."""
    rng = np.random.default_rng(0)
    drugs = {f"d{i}": "C" * (i + 5) for i in range(8)}
    proteins = {f"p{i}": "".join(rng.choice(list(AMINO_ACIDS), 40 + 20 * i)) for i in range(12)}
    drug, protein = np.divmod(np.arange(96), 12)
    rows = np.arange(96)
    return DrugTargetPairs.fit(drugs, proteins, drug, protein, rows, limits=(24, 200)), rows


if __name__ == "__main__":
    main()
