"""The campaign in short: no right fold is refused, no wrong or forged one passes."""

from __future__ import annotations

import pytest

from benchmarks.campaign.counts import Counts
from benchmarks.campaign.work import done
from tests.campaign.seeds import SEEDS, task_of

LEAST_NAMED = 0.99


@pytest.fixture(scope="module", params=sorted(SEEDS))
def counts(request):
    found = Counts()
    for seed in SEEDS[request.param]:
        found.add(done(task_of(request.param, seed)))
    return found
