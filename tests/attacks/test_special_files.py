"""Pipes, devices, sockets and folders in the place of files: an error at once."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.attacks.watching import Watcher, faults_of
from tests.small import conv_bn

AT_ONCE_S = 8.0


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(conv_bn().SerializeToString())
    return path


@pytest.fixture(params=["fifo", "folder", "socket", "zero", "random", "tty"])
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A path that is no regular file."""
    devices = {"zero": "/dev/zero", "random": "/dev/random", "tty": "/dev/tty"}
    path = Path(devices.get(request.param, tmp_path / "odd"))
    if request.param in devices and not path.exists():
        pytest.skip("no such device here")
    if request.param == "fifo":
        os.mkfifo(path)
    elif request.param == "folder":
        path.mkdir()
    elif request.param == "socket":
        with closing(socket.socket(socket.AF_UNIX)) as there:
            there.bind(str(path))
    yield path
    if request.param in ("fifo", "socket"):
        path.unlink()


def refused(watcher: Watcher, *argv: str | Path) -> None:
    seen = watcher.run(*argv, seconds=AT_ONCE_S)
    assert faults_of(seen, most_s=AT_ONCE_S) == [], seen.text
    assert seen.exit_code == 3, seen.text
    assert seen.stderr.count("error:") == 1


def test_as_a_model(odd, model, tmp_path, watcher):
    refused(watcher, "fold", odd, "-o", tmp_path / "out.onnx")
    refused(watcher, "inspect", odd)
    refused(watcher, "verify", model, odd)
    refused(watcher, "bench", odd, model)


def test_as_a_certificate(odd, model, watcher):
    refused(watcher, "verify", model, model, "--certificate", odd)


@pytest.mark.parametrize("ending", ["npz", "npy", "pb"])
def test_as_inputs(odd, ending, model, tmp_path, watcher):
    if odd.parent == Path("/dev"):
        link = tmp_path / f"link.{ending}"
        link.symlink_to(odd)
        refused(watcher, "verify", model, model, "--run", "--inputs", link)
        return
    named = odd.with_suffix(f".{ending}")
    if odd.is_dir():
        pytest.skip("a folder may hold inputs")
    odd.rename(named)
    refused(watcher, "verify", model, model, "--run", "--inputs", named)
    named.rename(odd)


def test_as_labels(odd, model, tmp_path, watcher):
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 8, 8), np.float32))
    argv = ("verify", model, model, "--run", "--inputs", tmp_path / "x.npy", "--labels", odd)
    refused(watcher, *argv)


def test_a_file_through_a_descriptor_is_a_file(model, tmp_path, watcher):
    """What matters is what a name leads to, not the name."""
    link = tmp_path / "link.onnx"
    link.symlink_to(model)
    assert watcher.run("inspect", link).exit_code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="sparse files, and their sizes")
def test_a_file_larger_than_protobuf_reads_is_not_read(tmp_path, watcher):
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(200 << 30)
    refused(watcher, "inspect", path)
    refused(watcher, "fold", path, "--dry-run")
