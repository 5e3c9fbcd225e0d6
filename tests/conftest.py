"""Hypothesis: the same examples in every run of the suite; fresh ones under the profile "fuzz" (``make fuzz``).

And a fixture for comparisons.
"""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, derandomize=True)
settings.register_profile(
    "fuzz", deadline=None, derandomize=False, max_examples=500, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("default")


@pytest.fixture
def short_ending(monkeypatch):
    """For comparisons whose pictures and step times do not matter: both take longer than a short training."""
    from bmtl.experiments import comparisons, outputs  # which import torch, and not all that is tested does

    timed = comparisons.step_seconds
    monkeypatch.setattr(outputs, "write_pictures", lambda trees, methods, out: None)
    monkeypatch.setattr(comparisons, "step_seconds", lambda *given, steps: timed(*given, steps=2))
