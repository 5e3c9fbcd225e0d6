"""Results trees from arrays by field and target, which is how a test says what differs from another tree."""

import numpy as np
import xarray as xr

from bmtl.evaluation import results
from bmtl.evaluation.results import PredictedRows, ReportedTarget
from bmtl.targets import Classes, Law, Prediction, Real, Scaler, numbered

ABOUT = ("method", "balancer", "seed", "configuration", "data_name", "data_fingerprint")


def predicted(observed, *, draws_of=2, row_numbers=None, predictive=None, distribution=None, **fields):
    """Target -> `PredictedRows` from fields by target: draws, log_likelihood, mean, pit, probability, ..."""
    made = {}
    for name, labels in observed.items():
        law = (distribution or {}).get(name)
        rows = len(labels)
        given = {field: (values or {}).get(name) for field, values in fields.items()}
        made[name] = PredictedRows(
            Prediction(
                np.asarray((predictive or {}).get(name, np.empty((0, rows)))),
                law=None
                if law is None
                else Law(law.get("law", "student-t"), {k: v for k, v in law.items() if k != "law"}),
                **given,
            ),
            labels=labels,
            rows=(row_numbers or {}).get(name),
        )
    return made


def described(names, *, families=None, classes=None, units=None, target_location=None, target_scale=None, primary=None):
    """Target -> `ReportedTarget`; a real one unless another family is given."""
    made = {}
    for name in names:
        scale = (target_scale or {}).get(name, 1.0)
        location = (target_location or {}).get(name, 0.0)
        family = (families or {}).get(name) or (
            Classes(tuple((classes or {})[name])) if name in (classes or {}) else Real()
        )
        scaler = Scaler(np.asarray(location, dtype=float), np.asarray(scale, dtype=float))
        made[name] = ReportedTarget(family, (units or {}).get(name, "1"), scaler, (primary or {}).get(name, ""))
    return made


def tree(
    *,
    observed=None,
    predictive=None,
    log_likelihood=None,
    predictive_mean=None,
    pit=None,
    distribution=None,
    probability=None,
    aleatoric=None,
    epistemic=None,
    row_numbers=None,
    families=None,
    classes=None,
    units=None,
    target_location=None,
    target_scale=None,
    primary=None,
    part="test",
    below=None,
    predictions=None,
    attributes=None,
    **options,
) -> xr.DataTree:
    """`to_datatree` of one part; a target with probabilities is of numbered classes unless its family is given.

    `below` holds the same of further parts; `predictions` target -> `PredictedRows`.
    """
    observed = observed or {}
    numbers = {name: numbered(np.shape(p)[-1]) for name, p in (probability or {}).items()}
    targets = described(
        observed,
        families=families,
        classes={**numbers, **(classes or {})},
        units=units,
        target_location=target_location,
        target_scale=target_scale,
        primary=primary,
    )
    fields = {
        "predictive": predictive,
        "log_likelihood": log_likelihood,
        "mean": predictive_mean,
        "pit": pit,
        "distribution": distribution,
        "probability": probability,
        "aleatoric": aleatoric,
        "epistemic": epistemic,
        "row_numbers": row_numbers,
    }
    parts = {part: predicted(observed, **fields)} if observed else {}
    parts |= below or {}
    if predictions:
        parts["predictions"] = predictions
    about = {name: options.pop(name) for name in ABOUT if options.get(name) is not None}
    options = {name: value for name, value in options.items() if name not in ABOUT}
    return results.to_datatree(parts, targets, **options, attributes={**about, **(attributes or {})})
