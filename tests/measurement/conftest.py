"""Settings of the measuring tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --max-time an interval is insisted on; let that take seconds, not a minute."""
    monkeypatch.setattr("bnfold.benchmarked.call._SECONDS_PER_BATCH", 1.0)
