"""Valid models, spoiled at random: whatever they are now, every command has an answer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from tests.attacks.mutation import mutated
from tests.attacks.watching import Watcher, faults_of
from tests.battery.cases import ALL

FEW = range(40)
"""Seeds of `make test`."""
FOUND: tuple[int, ...] = ()
"""Seeds that have shown a fault once."""
THOROUGH_S = float(os.environ.get("BNFOLD_FUZZ_SECONDS", "300"))
FIRST = int(os.environ.get("BNFOLD_FUZZ_SEED", "100000"))


def spoiled(seed: int, folder: Path) -> tuple[Path, Path]:
    """A model and what a seed makes of it."""
    case = ALL[int(np.random.default_rng(seed).integers(len(ALL)))]
    model = case.build()
    before, after = folder / "before.onnx", folder / "after.onnx"
    before.write_bytes(model.SerializeToString())
    after.write_bytes(mutated(model, seed))
    return before, after


def check(watcher: Watcher, seed: int, *argv: str | Path) -> None:
    seen = watcher.run(*argv, seconds=90)
    most_s = 60.0 if argv[0] == "bench" else 30.0
    found = faults_of(seen, most_s=most_s)
    assert found == [], f"seed {seed}, {argv[0]}: {found}\n{seen.text[-1500:]}"


def test_the_same_seed_spoils_the_same_way(tmp_path):
    first = spoiled(7, tmp_path)[1].read_bytes()
    assert spoiled(7, tmp_path)[1].read_bytes() == first


@pytest.mark.parametrize("seed", [*FEW, *FOUND])
def test_a_spoiled_model_has_an_answer(seed, tmp_path, watcher):
    _, after = spoiled(seed, tmp_path)
    check(watcher, seed, "fold", after, "-o", tmp_path / "out.onnx", "--no-verify")


@pytest.mark.thorough
def test_many_spoiled_models_have_an_answer(tmp_path, watcher):
    """BNFOLD_FUZZ_SECONDS says for how long, BNFOLD_FUZZ_SEED from where on."""
    until, seed = time.monotonic() + THOROUGH_S, FIRST
    while time.monotonic() < until:
        before, after = spoiled(seed, tmp_path)
        out = tmp_path / "out.onnx"
        check(watcher, seed, "inspect", after)
        check(watcher, seed, "fold", after, "-o", out, "--max-time", "4")
        check(watcher, seed, "verify", before, after, "--max-time", "4")
        check(watcher, seed, "verify", after, before, "--max-time", "4")
        if seed % 5 == 0:
            check(watcher, seed, "bench", after, "--max-time", "1")
        seed += 1
    assert seed > FIRST
