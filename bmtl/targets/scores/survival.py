"""Scores of times to an event."""

from bmtl.targets.metrics.pit import ece_from_pit, noise_floor_mean
from bmtl.targets.metrics.survival import censored_concordance, has_comparable_pairs, integrated_brier, interval_pit
from bmtl.targets.score import Score

CONCORDANCE = Score(
    "concordance",
    "C",
    lambda rows: censored_concordance(rows.labels, rows.predictive().quantile(0.5)),
    ("predictive",),
    higher_is_better=True,
    note="concordance, the share of comparable pairs of rows whose order is predicted",
    defined=lambda rows: has_comparable_pairs(rows.labels),
)
IBS = Score("ibs", "integrated Brier", lambda rows: integrated_brier(rows.labels, rows.predictive()), ("predictive",))
ECE = Score(
    "ece",
    "ECE",
    lambda rows: ece_from_pit(interval_pit(rows.labels, rows.predictive())),
    ("predictive",),
    averaged=True,
    note="of PIT values, uniform within a label's ends",
    floor=noise_floor_mean,
)
