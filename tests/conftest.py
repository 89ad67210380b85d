"""Settings that every test shares."""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from bnfold.runtime import children
from tests.forks import Forks

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


_LONG = (
    "test_in_interpreter.py", "test_run_all.py", "test_distributed.py",
    "test_ahead_of_time.py", "test_readme.py", "test_large.py", "test_graph_size.py",
    "test_campaign.py", "test_kills.py",
)  # fmt: skip
"""Where tests take seconds, longest first: begun last, one keeps a worker alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what takes longest first; all else keeps its order."""
    place = {name: number for number, name in enumerate(_LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(_LONG)))


def pytest_collection_finish() -> None:
    """Leave what lives as long as the run, a million objects, to no collection of garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """A server of forks for all tests of a process; it starts when the first asks."""
    found = Forks()
    yield found
    found.close()


@pytest.fixture(scope="session", autouse=hasattr(os, "fork"))
def forked_children(forks: Forks) -> Iterator[None]:
    """Let bnfold's children be forks, wherever nobody asks for `real_children`."""
    with patch.object(children, "subprocess", forks):
        yield


@pytest.fixture
def real_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let bnfold start its children itself."""
    monkeypatch.setattr(children, "subprocess", subprocess)


@pytest.fixture
def rng() -> np.random.Generator:
    """The one source of random numbers."""
    return np.random.default_rng(20261123)
