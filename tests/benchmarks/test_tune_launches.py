"""The tuner finds what is fastest, keeps what is as good, and writes a table that is read."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton", reason="triton is not installed: nothing to compile with")

from benchmarks.gpu import run_all, tune_launches  # noqa: E402  # after the skip
from benchmarks.gpu.kernel_bench import Point  # noqa: E402  # after the skip
from bnfold.train.kernels import tiles  # noqa: E402  # after the skip
from bnfold.train.kernels.layout import Rows  # noqa: E402  # after the skip

START = tiles.Launch(elements=2048, row_bytes=128, warps=4, programs=8, steps=4)
FIELDS = ("elements", "warps", "row_bytes", "programs")


def cost(launch):
    """Smallest at 4096 values, 8 warps, 256 bytes and 16 programs."""
    wanted = {"elements": 4096, "warps": 8, "row_bytes": 256, "programs": 16}
    return 1 + sum(abs(getattr(launch, n) / v - 1) for n, v in wanted.items())


def test_the_fastest_launch_is_found():
    best, ms = tune_launches.best_of(START, FIELDS, 2, lambda all_: [cost(c) for c in all_])
    assert best == replace(START, elements=4096, warps=8, row_bytes=256, programs=16)
    assert ms == 1


def test_what_is_no_faster_than_noise_changes_nothing():
    noise = iter(0.001 * n % 0.01 for n in range(1, 9999, 7))

    def times(candidates):
        return [1 + next(noise) for _ in candidates]

    assert tune_launches.best_of(START, FIELDS, 2, times)[0] == START


def test_what_cannot_run_is_never_chosen():
    def times(candidates):
        return [1.0 if c == START else float("inf") for c in candidates]

    assert tune_launches.best_of(START, FIELDS, 2, times)[0] == START


@pytest.mark.parametrize("itemsize", [2, 4])
def test_candidates_are_tiles_that_threads_can_hold(itemsize):
    seen = []

    def times(candidates):
        seen.extend(candidates)
        return [cost(c) for c in candidates]

    tune_launches.best_of(START, FIELDS, itemsize, times)
    for launch in seen:
        assert 4 <= launch.elements / (32 * launch.warps) <= 64
        assert 16 <= launch.row_bytes // itemsize <= launch.elements


def test_what_was_guessed_stays_where_nothing_was_tuned():
    point = Point(256, 64, 112, torch.bfloat16, by_rows=True)
    tuned = [point.entry("sums", replace(START, warps=16))]
    table = tune_launches.merged(tiles.packaged(), 90, tuned, "measured")
    assert table.launch_of("sums", 90, Rows(99, 64), 4).warps == 16
    assert table.sources[90] == "measured"
    read = tiles.Table.from_json(json.loads(table.text()))
    assert read.entries == table.entries
    of_packaged = tiles.packaged().launch_of("gradient", 90, Rows(99, 64), 2)
    assert read.launch_of("gradient", 90, Rows(99, 64), 2) == of_packaged


def test_the_path_can_be_walked_without_a_gpu(tmp_path, capsys):
    assert run_all.main(["--dry-run", "--only", "tune", "--out", str(tmp_path)]) == 0
    document = json.loads(Path(capsys.readouterr().out.splitlines()[0]).read_text("utf-8"))
    part = document["sections"]["tune"]
    assert part["points"] == ["2x16x8x8 float32 rows", "2x16x8x8 float32 planes"]
    assert part["left_out"] == []
    table = tiles.Table.from_json(json.loads((tmp_path / part["file"]).read_text("utf-8")))
    assert "dry run" in table.sources[90]
    assert {entry.size_bytes for entry in table.entries[90]} == {2 * 16 * 64 * 4}
    with gzip.open(next(tmp_path.glob("*.samples.jsonl.gz")), "rt") as file:
        samples = [json.loads(line) for line in file]
    assert [one["key"] for one in samples] == [f"tune {key}" for key in part["points"]]
    measured = {one.get("kernel") for one in samples[0]["document"]["measured"]}
    assert measured >= {"statistics", "normalise", "sums", "gradient"}


@pytest.mark.parametrize("options", [["--only", "tests"], ["--only", "tune", "--dry-run"]])
def test_nothing_is_installed_that_was_not_measured(options, capsys):
    with pytest.raises(SystemExit):
        run_all.main([*options, "--install-launches"])
    assert "--install-launches takes --only tune" in capsys.readouterr().err


def test_tuning_is_done_where_it_is_asked_for_alone():
    assert "tune" not in run_all._chosen(run_all._options(["--dry-run"]))


@pytest.mark.parametrize(
    ("ones", "several", "wins"), [(1.0, 3.0, True), (3.0, 1.0, False), (1.02, 1.0, True)]
)
def test_one_launch_is_taken_where_it_is_as_fast(ones, several, wins):
    point = Point(2, 16, 4, torch.float32, by_rows=True)

    class Fixed:
        capability = 90

        def sets(self, _point):
            return []

        def times(self, *_arguments):
            return lambda candidates: [1.0] * len(candidates)

        def whole_ms(self, *_arguments):
            return several, several, ones, ones

    entries = tune_launches.tune(Fixed(), point, tiles.packaged())
    steps = {e.kernel: e.launch.steps for e in entries if e.kernel.endswith("alone")}
    assert all((count > 0) is wins for count in steps.values())
    assert len(steps) == 2
