"""What is tested here are the processes."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _processes(request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("real_children")
