"""A run on a target of every family, whose labels are drawn from its predictive: calibrated, with errors of a given size."""

import numpy as np
from scipy import stats

from bmtl.evaluation.results import PredictedRows, ReportedTarget, to_datatree
from bmtl.targets import Binary, Classes, Count, Law, Ordinal, Prediction, Real, TimeToEvent, Vector

TARGETS = {
    "price": ReportedTarget(Real(), "EUR"),
    "pic50": ReportedTarget(Real(censored=True)),
    "kind": ReportedTarget(Classes(("cat", "dog", "cow"))),
    "ill": ReportedTarget(Binary(("no", "yes")), primary="auroc"),
    "grade": ReportedTarget(Ordinal(("low", "mid", "high", "top"))),
    "visits": ReportedTarget(Count(), "visits"),
    "days": ReportedTarget(TimeToEvent(), "days"),
    "force": ReportedTarget(Vector(("x", "y")), "N"),
}
DRAWS = 30


def tree(seed, error, rows=80, parts=("test",), **attributes):
    """Results tree of a run; `seed` makes the labels, `error` the size of the predictions' error."""
    made = {part: _rows(seed + 1000 * place, error, rows) for place, part in enumerate(parts)}
    return to_datatree(made, TARGETS, attributes={"seed": seed, **attributes})


def _rows(seed, error, rows):
    truth, own = np.random.default_rng(seed), np.random.default_rng([seed, int(100 * error)])
    made = {}

    def normal(latent):
        """Law of a mean that is off by `error`, and its draws."""
        mean = latent + error * own.normal(size=rows)
        loc = np.repeat(mean[None], DRAWS, 0)
        scale = np.full((1, rows), error + 0.05)
        law = Law("student-t", {"loc": loc, "scale": scale, "df": np.full((1, 1), np.inf)})
        return mean, law, loc + scale * own.normal(size=(DRAWS, rows))

    y = truth.normal(size=rows)
    mean, law, draws = normal(y)
    sd = law.parameters["scale"][0]
    density = stats.norm.logpdf(y, law.parameters["loc"], sd)
    both = {"aleatoric": sd**2, "epistemic": sd**2 / 4}
    made["price"] = PredictedRows(
        Prediction(draws, mean, law=law, log_likelihood=density, pit=stats.norm.cdf(y, mean, sd), **both), y
    )
    ends = np.stack([y, np.where(truth.uniform(size=rows) < 0.3, np.inf, y)], axis=1)
    made["pic50"] = PredictedRows(Prediction(draws, mean, law=law, log_likelihood=density, **both), ends)

    for name, classes in (("kind", 3), ("ill", 2), ("grade", 4)):
        labels = truth.integers(classes, size=rows)
        near = -np.abs(np.arange(classes) - labels[:, None])  # of grades, the neighbours are likelier
        logits = (near + error * own.normal(size=(rows, classes))) / error
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        drawn = (p.cumsum(axis=1)[:, :-1] < own.uniform(size=(DRAWS, rows, 1))).sum(axis=-1)
        entropy = -(p * np.log(p.clip(1e-300))).sum(axis=1)
        made[name] = PredictedRows(
            Prediction(drawn, probability=p, aleatoric=0.8 * entropy, epistemic=0.2 * entropy), labels
        )

    rate = np.exp(1 + truth.normal(size=rows) / 2)
    n = truth.poisson(rate).astype(float)
    guess = np.repeat((rate * np.exp(error * own.normal(size=rows) / 2))[None], DRAWS, 0)
    made["visits"] = PredictedRows(
        Prediction(
            own.poisson(guess).astype(float),
            guess[0],
            law=Law("poisson", {"rate": guess}),
            log_likelihood=stats.poisson.logpmf(n, guess),
            aleatoric=guess[0],
            epistemic=guess[0] / 10,
        ),
        n,
    )

    scale = np.exp(truth.normal(size=rows))
    event, censored = scale * truth.weibull(2.0, size=rows), scale * truth.weibull(1.0, size=rows)
    seen = event <= censored
    times = np.stack([np.minimum(event, censored), np.where(seen, event, np.inf)], axis=1)
    predicted = np.repeat((scale * np.exp(error * own.normal(size=rows)))[None], DRAWS, 0)
    of = stats.weibull_min(2.0, scale=predicted)
    made["days"] = PredictedRows(
        Prediction(
            predicted * own.weibull(2.0, size=(DRAWS, rows)),
            of.mean()[0],
            law=Law("weibull", {"scale": predicted, "concentration": np.full((1, 1), 2.0)}),
            log_likelihood=np.where(seen, of.logpdf(times[:, 0]), of.logsf(times[:, 0])),
        ),
        times,
    )

    force = truth.normal(size=(rows, 2))
    centre = force + error * own.normal(size=(rows, 2))
    loc = np.repeat(centre[None], DRAWS, 0)
    made["force"] = PredictedRows(
        Prediction(
            loc + error * own.normal(size=loc.shape),
            centre,
            law=Law(
                "multivariate-normal",
                {"loc": loc, "scale_tril": (error + 0.05) * np.eye(2)[None, None]},
            ),
            log_likelihood=stats.norm.logpdf(force, loc, error + 0.05).sum(axis=-1),
        ),
        force,
    )
    return made
