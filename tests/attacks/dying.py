"""Writers that are killed: ``python -m tests.attacks.dying HOW FOLDER KIND=COUNT …``.

The folds are loaded once; every writer is a fork, so hundreds of deaths take seconds. What is
found afterwards is judged here too, and told as JSON.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from bnfold.files.scratch import remove_all
from bnfold.folding.api import fold_unchecked
from bnfold.model import light
from bnfold.model.io import load
from bnfold.model.layout import ExternalData, Layout
from bnfold.model.save import save_over_source
from tests.small import conv_bn

EVENTS = frozenset(
    ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.chmod", "os.chown",
     "os.truncate", "os.fsync", "fcntl.flock")
)  # fmt: skip
"""What changes files: Python tells of each before it does it, so that is a moment to die at.

Opening a file counts if it is to be written.
"""

KINDS = (
    "single-new", "single-existing", "external-new", "external-existing", "in-place-single",
    "in-place-external", "several-existing", "in-place-several", "single-stream",
    "in-place-single-stream",
)  # fmt: skip

Weights = dict[str, np.ndarray]


class Writer:
    """One way to write a model: the folder before, and what is done in it."""

    def __init__(self, kind: str, base: Path, channels: int) -> None:
        self.kind = kind
        self.channels = channels
        self.template, self.folder = base / "template", base / "folder"
        self.template.mkdir(parents=True)
        self.inputs = base / "inputs"
        self.inputs.mkdir()
        self.is_external = "single" not in kind
        self.is_in_place = kind.startswith("in-place")
        self.is_several = "several" in kind
        if kind.endswith("stream"):  # as models are read and written that are large
            light.LEAST_FILE_BYTES = light.LEAST_SHARE = 0
            light.LEAST_BYTES = 1
        else:
            light.LEAST_FILE_BYTES = 1 << 40
        self.target = self.folder / "out.onnx"
        self._save(1, self.inputs / "new.onnx")
        if self.is_in_place:
            self._save(1, self.template / "out.onnx")
        elif kind.endswith(("existing", "stream")):
            self._save(2, self.template / "out.onnx")
        self.old = weights(self.template / "out.onnx")
        self.reset()
        self.write()
        self.new = weights(self.target)
        self.after = names(self.folder)

    def _save(self, seed: int, path: Path) -> None:
        model = conv_bn(seed)
        padding = np.random.default_rng(seed).normal(size=self.channels).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(padding, "padding"))
        model.graph.node[2].input[0] = "p"
        model.graph.node.insert(2, onnx.helper.make_node("Add", ["b", "padding"], ["p"]))
        model.graph.initializer[-1].dims[:] = [self.channels // 64, 1, 8, 8]
        onnx.save(
            model,
            path,
            save_as_external_data=self.is_external,
            location=f"{path.name}.data",
            size_threshold=0,
        )
        if self.is_several:  # its data files get names that are its own
            save_over_source(load(path), Layout(ExternalData.PER_TENSOR, 0))

    def write(self) -> None:
        """The work."""
        if self.is_in_place:
            fold_unchecked(self.target).save_in_place()
        else:
            fold_unchecked(self.inputs / "new.onnx").save(self.target)

    def reset(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.template, self.folder)

    def start(self, before: Callable[[], None]) -> int:
        """Write in a folder as it was at first, in a process that may die."""
        self.reset()
        child = os.fork()
        if child:
            return child
        try:
            before()
            self.write()
            os._exit(0)
        except BaseException as error:  # noqa: BLE001  told to the parent
            sys.stderr.write(f"{error!r}\n")
            os._exit(9)

    def faults(self) -> list[str]:
        """What is wrong after a death, and after the run that follows it."""
        found = []
        try:
            now = weights(self.target)
        except Exception as error:  # noqa: BLE001  any is a fault
            return [f"cannot be read: {error}"]
        if not (same(now, self.old) or same(now, self.new)):
            found.append("neither the old model nor the new one")
        self.write()
        if not same(weights(self.target), self.new):
            found.append("the next run does not write the new model")
        if names(self.folder) != self.after:
            found.append(f"left: {names(self.folder)}, expected {self.after}")
        return found


def weights(path: Path) -> Weights | None:
    """The numbers of a model, as two readers see them; None where there is none."""
    if not path.exists():
        return None
    found = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(path).graph.initializer
    }
    for name, value in load(path).graph.initializers.items():
        assert np.array_equal(value.const_value.numpy(), found[name]), "readers differ"
    return found


def same(one: Weights | None, other: Weights | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.keys() == other.keys() and all(np.array_equal(one[n], other[n]) for n in one)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def ended(child: int) -> bool:
    """Wait for a writer; whether it came to its end rather than being killed."""
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or not os.WEXITSTATUS(status), "the writer failed"
    return not os.WIFSIGNALED(status)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    raise KeyboardInterrupt


class Stopping:
    """What stops this process in front of a step: what Python is about to change files by."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._left = -1
        # Nothing here cuts the power, so nothing needs the disk; it is a moment all the same.
        os.fsync = lambda _: sys.audit("os.fsync")
        sys.addaudithook(self._count)  # for ever: there is no taking it back

    def at(self, step: int) -> None:
        self._left = step

    def is_over(self) -> bool:
        """Whether the step came; none comes any more."""
        came, self._left = self._left < 0, -1
        return came

    def _count(self, event: str, arguments: tuple[object, ...]) -> None:
        writes = event == "open" and int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR)
        if self._left >= 0 and (event in EVENTS or writes):
            self._left -= 1
            if self._left < 0:
                self._stop()


def every_step(writer: Writer, stopping: Stopping, _: int) -> tuple[int, list[str]]:
    """Kill a writer in front of every step, one after the other."""
    found: list[str] = []
    step, before = 0, None
    while not ended(writer.start(partial(stopping.at, step))):
        there = snapshot(writer.folder)
        if there != before:
            found += [f"step {step}: {fault}" for fault in writer.faults()]
        step, before = step + 1, there
    return step, found


def every_interrupt(writer: Writer, stopping: Stopping, _: int) -> tuple[int, list[str]]:
    """Interrupt a writer in front of every step: it leaves nothing that a next run removes."""
    found: list[str] = []
    step = 0
    while True:
        writer.reset()
        stopping.at(step)
        with contextlib.suppress(KeyboardInterrupt):
            writer.write()
        if not stopping.is_over():
            return step, found
        remove_all()  # what the end of the process does
        there, now = names(writer.folder), weights(writer.target)
        expected = writer.after if same(now, writer.new) else names(writer.template)
        if there != expected:
            found.append(f"step {step}: left {there}, expected {expected}")
        if not (same(now, writer.old) or same(now, writer.new)):
            found.append(f"step {step}: neither the old model nor the new one")
        step += 1


def snapshot(folder: Path) -> dict[str, object]:
    """What is there, but for the random part of names."""
    return {
        re.sub("bnfold-[0-9a-f]{12}", "bnfold-*", str(path.relative_to(folder))): (
            (path.stat().st_size, path.stat().st_nlink, path.stat().st_mode)
            if path.is_file()
            else None
        )
        for path in folder.rglob("*")
    }


def random_moments(writer: Writer, _: None, count: int) -> tuple[int, list[str]]:
    """Kill writers from outside, at moments over the time that one takes."""
    rng = random.Random(count)
    found: list[str] = []
    begun = time.perf_counter()
    for _ in range(3):
        ended(writer.start(lambda: None))
    longest_s = (time.perf_counter() - begun) / 3
    died = 0
    for _ in range(count):
        child = writer.start(lambda: None)
        time.sleep(rng.uniform(0, longest_s))
        os.kill(child, signal.SIGKILL)
        died += not ended(child)
        found += writer.faults()
    return died, found


HOWS = {
    "steps": (every_step, kill, 64),
    "interrupts": (every_interrupt, interrupt, 64),
    "random": (random_moments, None, 1 << 19),
}
"""How writers are stopped, by what, and how large their models are."""


def main(how: str, base: str, *kinds: str) -> None:
    work, stop, size = HOWS[how]
    stopping = None if stop is None else Stopping(stop)
    gc.freeze()  # forks share what nobody counts
    told = {}
    for kind, count in (word.split("=") for word in kinds):
        writer = Writer(kind, Path(base) / kind, size)
        deaths, faults = work(writer, stopping, int(count))
        told[kind] = {"deaths": deaths, "faults": faults}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
