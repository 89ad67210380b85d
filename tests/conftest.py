"""Settings that every test shares."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

_SLOW_DRAWS = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile(
    "dev", max_examples=50, deadline=None, suppress_health_check=_SLOW_DRAWS
)
settings.register_profile(
    "ci",
    max_examples=60,  # the same each time; make fuzz and HYPOTHESIS_PROFILE=long draw others
    deadline=None,
    derandomize=True,
    suppress_health_check=_SLOW_DRAWS,
)
settings.register_profile(
    "long", max_examples=5000, deadline=None, suppress_health_check=_SLOW_DRAWS
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


_LONG = ("test_in_interpreter.py", "test_ahead_of_time.py", "test_distributed.py")
"""Tests of minutes: whoever begins with them is not left alone with them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what takes longest first; all else keeps its order."""
    items.sort(key=lambda item: item.path.name not in _LONG)


@pytest.fixture
def rng() -> np.random.Generator:
    """The one source of random numbers."""
    return np.random.default_rng(20261123)
