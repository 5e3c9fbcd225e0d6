"""Scores of counts that real numbers do not have."""

from bmtl.targets.metrics.counts import count_pit, poisson_deviance
from bmtl.targets.metrics.pit import ece_from_pit, noise_floor_mean
from bmtl.targets.score import Score

ECE = Score(
    "ece",
    "ECE",
    lambda rows: ece_from_pit(count_pit(rows.labels, rows.predictive())),
    ("predictive",),
    averaged=True,
    note="of randomised PIT values",
    floor=noise_floor_mean,
)
DEVIANCE = Score("deviance", "deviance", lambda rows: poisson_deviance(rows.labels, rows.mean()), ("mean",))
