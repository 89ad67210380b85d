"""Files of a few kilobytes that ask for gigabytes and hours: no command gives them these."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks import bombs, mazes, stretches
from tests.attacks.watching import Seen, Watcher, faults_of
from tests.cli.calling import run
from tests.test_bad_input import assert_clear_error

CONSTANTS = bombs.constants()
ATTACKS = {**CONSTANTS, **mazes.ALL(), **stretches.ALL()}
QUICK_CONSTANTS = [
    f"{name}/summed"
    for name in ("expand", "tile", "constant_of_shape", "pad", "range_of_floats", "add_outer",
                 "einsum_slow", "gather", "one_hot", "doubled_concat")
]  # fmt: skip
QUICK = [
    "tile_channels",
    "pad_edge",
    "depth_to_space",
    "flatten",
    "gather_back",
    "doubling_12",
]
REFUSED = {
    "recursive": "calls itself",
    "mutually_recursive": "calls itself",
    "recursive_in_a_branch": "calls itself",
    "twice_the_same_function": "twice",
    "too_many_arguments": "4 inputs",
    "too_many_results": "2 outputs",
    "cyclic_function": "cycle",
    "function_that_reads_nothing_known": "nowhere",
    "function_that_writes_no_result": "not written",
    "function_that_writes_twice": "twice",
    "function_without_its_opset": "imports no operator set",
    "doubling_40": "--max-nodes",
    "deep_100": "nested too deep",
    "nested_branches_40": "nested deeper",
    "nested_branches_900": "nested deeper",
}


def written(name: str, folder: Path) -> Path:
    made = ATTACKS[name]()
    path = folder / "attack.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    assert path.stat().st_size < 200_000
    return path


def told(name: str, seen: Seen) -> str:
    return f"{name}: {seen.exit_code}, {seen.seconds:.1f} s\n{seen.text[-800:]}"


@pytest.mark.parametrize("name", [*QUICK_CONSTANTS, *QUICK])
def test_a_fold_takes_little(name, tmp_path, watcher: Watcher):
    path, out = written(name, tmp_path), tmp_path / "out.onnx"
    seen = watcher.run("fold", path, "-o", out, "--max-time", "1")
    assert faults_of(seen, most_bytes=700_000_000, most_s=12) == [], told(name, seen)
    assert seen.exit_code == 0, told(name, seen)


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused_at_once(name, tmp_path):
    path, word = written(name, tmp_path), REFUSED[name]
    for argv in (
        ("fold", path, "-o", tmp_path / "out.onnx"),
        ("inspect", path),
        ("verify", path, path),
        ("bench", path, "--max-time", "1"),
    ):
        assert_clear_error(run(*argv), word)


def test_a_constant_that_is_too_large_is_a_reason_of_its_site(tmp_path):
    done = run("inspect", written("expand/direct", tmp_path), "--json")
    assert done.returncode == 0
    assert '"too-large"' in done.stdout
    assert "--max-elements" in done.stdout


def test_more_is_allowed_where_it_is_asked_for(tmp_path):
    path = written("doubling_15", tmp_path)
    assert_clear_error(run("inspect", path, "--max-nodes", "20000"), "--max-nodes")
    assert run("inspect", path, "--max-nodes", "40000").returncode == 0


def test_a_loop_without_end_does_not_hold_the_check(tmp_path, watcher):
    path, out = written("endless", tmp_path), tmp_path / "out.onnx"
    seen = watcher.run("fold", path, "-o", out, "--max-time", "2")
    assert faults_of(seen, most_s=10) == [], told("endless", seen)
    assert seen.exit_code == 0
    assert "could not be judged" in seen.stderr


def test_memory_that_is_not_allowed_is_said(tmp_path):
    done = run("inspect", written("flatten", tmp_path), "--max-memory", "nonsense")
    assert done.returncode == 2
    assert "512MB" in done.stderr


def test_a_command_ends_when_its_time_is_up(tmp_path, watcher):
    path = written("endless", tmp_path)
    argv = ("verify", path, path, "--max-time", "60", "--time-limit", "2")
    seen = watcher.run(*argv)
    assert seen.exit_code == 3, seen.text
    assert "--time-limit" in seen.stderr
    assert seen.seconds < 10


@pytest.mark.thorough
@pytest.mark.parametrize("name", ATTACKS)
def test_no_command_takes_much(name, tmp_path, watcher):
    path, out = written(name, tmp_path), tmp_path / "out.onnx"
    documents = ("--certificate", tmp_path / "c.json", "--report", tmp_path / "r.html")
    for argv in (
        ("inspect", path),
        ("fold", path, "-o", out),
        ("fold", path, "-o", out, *documents),
        ("fold", path, "--dry-run", "--json"),
        ("verify", path, path, "--max-time", "10"),
        ("bench", path, "--max-time", "1"),
    ):  # fmt: skip
        seen = watcher.run(*argv, seconds=90)
        most_s = 60.0 if argv[0] == "bench" else 30.0
        assert faults_of(seen, most_s=most_s) == [], f"{argv[0]} {told(name, seen)}"
