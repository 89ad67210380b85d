"""One server of forks for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.watching import Watcher


@pytest.fixture(scope="session")
def watcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watcher]:
    """Runs commands in forks, and says what they took."""
    found = Watcher(Path(tmp_path_factory.mktemp("watched")))
    yield found
    found.close()
