"""Time of a step of each method, measured in turns."""

import itertools
import logging
import time
from collections.abc import Sequence

import numpy as np
import torch

from bmtl.datasets import MultiTaskData
from bmtl.experiments.budgets import Budget
from bmtl.experiments.methods import Method
from bmtl.experiments.training import program

logger = logging.getLogger(__name__)


def step_seconds(
    data: MultiTaskData, methods: Sequence[Method], budget: Budget, *, steps: int = 40, processor: bool = False
) -> dict[str, float]:
    """Time of a step of each method, measured side by side: the methods take turns, a step each, in one thread.

    A drift of the machine's speed then hits all alike, where times that separate runs recorded would differ by it. Methods
    with a network per target are left out; an ensemble's step is a step of each of its members.

    A method whose step raises is left out: it has no time.

    Args:
        data: What is trained on.
        methods: What is timed.
        budget: Size of network and batch.
        steps: Timed steps of each; five more come first.
        processor: Give the mean processor time of this process in place of the median of the time that passed: it does not
            depend on what else the machine does, and counts the steps at which a balancer does more than at others.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            timed = {}
            for method in methods:
                if not method.single_task:
                    try:
                        timed[method.name] = program(data, method, 0, budget)[1:]
                    except Exception as error:
                        logger.warning("%s cannot be timed: %s", method.name, error)
            times: dict[str, list[float]] = {name: [] for name in timed}
            batches = {
                name: itertools.chain.from_iterable(itertools.repeat(train)) for name, (_, train) in timed.items()
            }
            for turn in range(steps + 5):
                for name, (svi, train) in list(timed.items()):
                    batch, start = next(batches[name]), time.process_time()
                    try:
                        record = svi.step(*batch)
                    except Exception as error:  # a time is missing, and nothing else
                        logger.warning("A step of %s cannot be timed: %s", name, error)
                        del timed[name], times[name]
                        continue
                    if turn >= 5:
                        times[name].append(time.process_time() - start if processor else record.seconds["step"])
                    if (turn + 1) % len(train) == 0:
                        svi.end_epoch()
    finally:
        torch.set_num_threads(threads)
    members = {method.name: method.ensemble_size for method in methods}
    average = np.mean if processor else np.median
    return {name: float(average(values)) * members[name] for name, values in times.items()}
