"""Estimators by scikit-learn's conventions: `MultiTaskRegressor`, `MultiTaskClassifier`, and `MultiTaskEstimator` for both.

from bmtl.estimators import MultiTaskRegressor

model = MultiTaskRegressor(random_state=0).fit(X, Y)      # Y (N,) or (N, T), NaN where a label is missing
model.predict(X_new)                                      # (M,) or (M, T)
model.predict_dist(X_new).interval(0.9)                   # two arrays of the same shape
"""

from bmtl.estimators.distributions import Distributions
from bmtl.estimators.estimators import MultiTaskClassifier, MultiTaskEstimator, MultiTaskRegressor

__all__ = ["Distributions", "MultiTaskClassifier", "MultiTaskEstimator", "MultiTaskRegressor"]
