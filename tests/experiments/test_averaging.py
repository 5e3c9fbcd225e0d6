import functools

import pytest
import torch
from lightning.pytorch import Callback

import bmtl
from bmtl.experiments.averaging import Averaged
from bmtl.experiments.budgets import Budget
from bmtl.experiments.training import _of_schedule
from bmtl.inference import fit
from bmtl.models import TaskModel
from bmtl.models.likelihoods import Gaussian

RANDOM = torch.Generator().manual_seed(0)
X = torch.randn(40, 2, generator=RANDOM)
BATCHES = [(X[i : i + 8], {"y": X[i : i + 8].sum(1)}) for i in range(0, 40, 8)]


class Watch(Callback):
    """The parameters after every step, and in every validation."""

    def __init__(self, svi):
        self.svi, self.steps, self.validated = svi, [], []

    def now(self):
        return torch.cat([p.detach().flatten() for p in self.svi.model.parameters()])

    def on_train_batch_end(self, *_):
        self.steps.append(self.now())

    def on_validation_batch_end(self, *_):
        self.validated.append(self.now())


def trained(steps, epochs=3):
    torch.manual_seed(1)
    model = TaskModel(torch.nn.Linear(2, 3), 3, {"y": Gaussian(noise="fixed")}, 40)
    svi = bmtl.BalancedSVI(model, model.guide(), functools.partial(torch.optim.SGD, lr=0.05), "ew")
    watch = Watch(svi)
    averaged = [] if steps is None else [Averaged(svi, steps)]
    result = fit(svi, BATCHES, BATCHES[:1], max_epochs=epochs, callbacks=[*averaged, watch], progress=False, seed=2)
    return watch, result


def test_epochs_are_compared_by_averages_and_training_goes_on_from_the_parameters():
    plain, _ = trained(None)
    watch, result = trained(4)
    torch.testing.assert_close(torch.stack(watch.steps), torch.stack(plain.steps))
    expected = watch.steps[0]  # the first step's, then a quarter of the way to each of the next
    for step, values in enumerate(watch.steps):
        expected = expected + (values - expected) / 4
        if step % 5 == 4:
            torch.testing.assert_close(watch.validated[step // 5], expected)
    assert result.restored
    assert torch.equal(watch.now(), watch.validated[result.best_epoch - 1])


def test_an_average_over_one_step_is_the_parameters():
    watch, _ = trained(1)
    torch.testing.assert_close(torch.stack(watch.validated), torch.stack(watch.steps[4::5]))


@pytest.mark.parametrize(
    ("budget", "keeps_best", "kinds"),
    [
        (Budget(schedule="constant"), True, []),
        (Budget(schedule="cosine"), True, ["Cosine", "Averaged"]),
        (Budget(schedule="cosine", average=1), True, ["Cosine"]),
        (Budget(schedule="cosine"), False, ["Cosine"]),
    ],
)
def test_the_schedule_of_tables_averages_where_epochs_are_selected(budget, keeps_best, kinds):
    assert [type(one).__name__ for one in _of_schedule(None, budget, keeps_best)] == kinds
