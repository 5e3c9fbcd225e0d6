"""Linear predictors that are fitted before a network is trained: ridge by leave-one-out, logistic by cross-validation."""

import numpy as np

PENALTIES = np.logspace(-6, 4, 21)
_STRENGTHS = np.logspace(-3, 1, 5)  # inverse penalties of a logistic regression
_FEWEST = 6  # rows of a class for a logistic regression


def ridge(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares with the penalty, of 21 from 1e-6 to 1e4, that predicts best where each row is left out in turn.

    Args:
        x: ``(N, D)``.
        y: ``(N,)``.

    Returns:
        Coefficients ``(D + 1,)``, the intercept last, and the errors of rows that were left out ``(N,)``.
    """
    centre, mean = x.mean(axis=0), y.mean()
    u, s, vt = np.linalg.svd(x - centre, full_matrices=False)
    along = u.T @ (y - mean)
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for penalty in PENALTIES:
        kept = s**2 / (s**2 + penalty)
        leverage = np.minimum((u**2) @ kept + 1 / len(y), 1 - 1e-8)
        left_out = (y - mean - u @ (kept * along)) / (1 - leverage)
        loss = float(np.mean(left_out**2))
        if best is None or loss < best[0]:
            best = loss, vt.T @ (s / (s**2 + penalty) * along), left_out
    assert best is not None
    _, slope, errors = best
    return np.append(slope, mean - centre @ slope), errors


def logistic(x: np.ndarray, y: np.ndarray, classes: int) -> np.ndarray:
    """Logits of a multinomial logistic regression, its penalty chosen by log loss over three folds.

    Where a class has fewer than six rows, logits are those of the classes' frequencies.

    Args:
        x: ``(N, D)``.
        y: Classes ``(N,)`` from 0.
        classes: Number of classes C.

    Returns:
        Coefficients ``(C, D + 1)``, the intercept last.
    """
    counts = np.bincount(y, minlength=classes)
    found = np.zeros((classes, x.shape[1] + 1))
    if counts.min() < _FEWEST:
        found[:, -1] = np.log((counts + 0.5) / (counts + 0.5).sum())
        return found
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(x, y))

    def fitted(strength: float, rows: np.ndarray) -> LogisticRegression:
        return LogisticRegression(C=strength, max_iter=200, tol=1e-3).fit(x[rows], y[rows])

    def loss(strength: float) -> float:
        total = 0.0
        for train, held in folds:
            chances = fitted(strength, train).predict_log_proba(x[held])
            total -= float(chances[np.arange(len(held)), y[held]].sum())
        return total

    model = fitted(min(_STRENGTHS, key=loss), np.arange(len(y)))
    both = np.column_stack([model.coef_, model.intercept_])
    found[:] = both if len(both) == classes else np.concatenate([-both / 2, both / 2])
    return found
