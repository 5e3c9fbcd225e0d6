"""Hypothesis: the same examples in every run of the suite; fresh ones under the profile "fuzz" (``make fuzz``)."""

from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, derandomize=True)
settings.register_profile(
    "fuzz", deadline=None, derandomize=False, max_examples=500, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("default")
