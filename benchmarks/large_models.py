"""What large models cost: time as ratios to copying their files, and peak memory.

    python -m benchmarks.large_models [--sizes 2.5,6,3x1,1.8i] [--folder DIR]
                                      [--json results.json] [--rounds 3] [--container 1]

Every model has its weights in a data file beside it, or inside (``1.8i``: 2 GB at most). In
the same run, in this order, for each model: ``cp`` of its files and a sync of the copies;
``bnfold fold --no-verify``; the same with ``--certificate``; ``verify --certificate``;
``inspect``. Every step that writes ends when its files are on disk. Memory is that of the
process and its children, sampled: anonymous pages (``RssAnon``), and all that is resident.
With ``--container N`` each step runs once more in a memory cgroup (v1 or v2, needs root) of
N GB, where pages of files count too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.fold_cost import environment

_ALIGNMENT = 4096
_SIDE = 9000
_CHANNELS = 512
_SAMPLE_S = 0.01
_AS_INSTALLED = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
"""Modules of an installed package are compiled; to compile them each time takes 0.3 s."""
_BLOCK = 1 << 22
_GROUPS = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))


class _Model:
    """Writes a model and its data file, one tensor at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nodes: list[onnx.NodeProto] = []
        self._tensors: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(0)
        self._noise = self._rng.normal(0, 1, _BLOCK).astype(np.float32)
        self._file = path.with_name(f"{path.name}.data").open("wb")

    def weight(self, name: str, shape: Sequence[int], scale: float) -> str:
        """Add a tensor of noise in float32; the same noise again with other factors."""
        count = int(np.prod(shape))
        start = -(-self._file.tell() // _ALIGNMENT) * _ALIGNMENT
        self._file.seek(start)
        for done in range(0, count, _BLOCK):
            by = np.float32(scale * self._rng.uniform(0.9, 1.1))
            (self._noise[: count - done] * by).tofile(self._file)
        return self._stored(name, shape, start)

    def vector(self, name: str, count: int) -> str:
        """Add positive factors in float32."""
        start = self._file.tell()
        self._rng.uniform(0.5, 1.5, count).astype(np.float32).tofile(self._file)
        return self._stored(name, [count], start)

    def _stored(self, name: str, shape: Sequence[int], start: int) -> str:
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        self._file.flush()
        for key, value in (
            ("location", Path(self._file.name).name),
            ("offset", str(start)),
            ("length", str(self._file.tell() - start)),
        ):
            tensor.external_data.add(key=key, value=value)
        self._tensors.append(tensor)
        return name

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def done(self, shapes: dict[str, Sequence[int | str]], outputs: Sequence[str]) -> Path:
        """Write the ``.onnx`` file; return it."""
        self._file.close()
        inputs = [helper.make_tensor_value_info(n, 1, shape) for n, shape in shapes.items()]
        results = [helper.make_tensor_value_info(name, 1, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "large", inputs, results, self._tensors)
        opsets = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), self.path)
        return self.path


def mixed(path: Path, size_bytes: float, side: int = _SIDE) -> Path:
    """Write a model of Conv + BatchNormalization, MatMul + Mul, and weights that stay.

    Args:
        path: Where; its data goes beside it.
        size_bytes: So many bytes of weights, about: every third large one does not change.
        side: Rows and columns of its matrices.
    """
    model = _Model(path)
    x = "x"
    for layer in range(4):
        weight = model.weight(f"c{layer}.w", [_CHANNELS, _CHANNELS, 3, 3], 0.015)
        x = model.node("Conv", x, weight, pads=[1] * 4)
        parts = [model.vector(f"c{layer}.{name}", _CHANNELS) for name in "sbmv"]
        x = model.node("Relu", model.node("BatchNormalization", x, *parts))
    y = "y"
    for layer in range(max(1, round(size_bytes / (4 * side * side)))):
        y = model.node("MatMul", y, model.weight(f"m{layer}.w", [side, side], side**-0.5))
        if layer % 3 != 2:
            y = model.node("Mul", y, model.vector(f"m{layer}.s", side))
        y = model.node("Relu", y)
    return model.done({"x": ["n", _CHANNELS, 8, 8], "y": ["m", side]}, [x, y])


def inlined(external: Path, path: Path) -> Path:
    """Write a model of data files with its weights in the ``.onnx`` file itself.

    Tensor by tensor, as protobuf lays them out: it could not write two gigabytes.

    Args:
        external: A model as `mixed` writes it.
        path: Where the other goes.
    """
    proto = onnx.load(external, load_external_data=False)
    tensors = list(proto.graph.initializer)
    del proto.graph.initializer[:]
    rest = proto.graph.SerializeToString()
    proto.ClearField("graph")
    fronts, places = [], []
    for tensor in tensors:
        place = {entry.key: entry.value for entry in tensor.external_data}
        places.append((external.parent / place["location"], int(place["offset"])))
        length = int(place["length"])
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        front = tensor.SerializeToString() + b"\x4a" + _varint(length)
        front = b"\x2a" + _varint(len(front) + length) + front
        fronts.append((front, length))
    size = len(rest) + sum(len(front) + length for front, length in fronts)
    with path.open("wb") as file:
        file.write(proto.SerializeToString() + b"\x3a" + _varint(size) + rest)
        for (front, length), (data, offset) in zip(fronts, places, strict=True):
            file.write(front)
            with data.open("rb") as source:
                source.seek(offset)
                for done in range(0, length, _BLOCK):
                    file.write(source.read(min(length - done, _BLOCK)))
    return path


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*found, value))


def _only_matrices(path: Path, count: int, side: int) -> Path:
    model, y = _Model(path), "y"
    for layer in range(count):
        y = model.node("MatMul", y, model.weight(f"m{layer}.w", [side, side], side**-0.5))
        y = model.node("Relu", model.node("Mul", y, model.vector(f"m{layer}.s", side)))
    return model.done({"y": ["m", side]}, [y])


@dataclass(slots=True)
class Cost:
    """What one step took.

    Attributes:
        seconds: Wall time, until its files are on disk.
        processor_s: Time of the processor; of a flush only what goes on beside the command.
        load: How many processes wanted one of the cores, in the mean of the last minute.
        anonymous_mb: Peak of the memory of its own.
        resident_mb: Peak of all pages that are resident, those of files too.
        ratio: Its time by that of the copy.
        exit_code: Of the command; -9 where the kernel ended it for want of memory.
    """

    seconds: float
    anonymous_mb: float = 0.0
    resident_mb: float = 0.0
    ratio: float = 0.0
    exit_code: int = 0
    processor_s: float = 0.0
    load: float = 0.0


@dataclass(slots=True)
class Row:
    """All that was measured of one model."""

    name: str
    size_mb: float
    largest_mb: float
    steps: dict[str, list[Cost]] = field(default_factory=dict)


def measured(command: Sequence[str], written: Path | None, group: Path | None = None) -> Cost:
    """Run a command; its files are synced by whoever times it, as those of ``cp``."""
    start, processor_s = time.perf_counter(), _processor_s()
    said = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=said, env=_AS_INSTALLED
    )
    if group is not None:
        (group / "cgroup.procs").write_text(str(process.pid))
    anonymous = resident = 0
    while process.poll() is None:
        one, other = _memory_kb(process.pid)
        anonymous, resident = max(anonymous, one), max(resident, other)
        time.sleep(_SAMPLE_S)
    if written is not None:
        _sync(written)
    elapsed_s = time.perf_counter() - start
    if process.returncode:
        said.seek(0)
        sys.stderr.write(f"{command}: {process.returncode}\n{said.read().decode()}\n")
    return Cost(
        elapsed_s,
        anonymous / 1e3,
        resident / 1e3,
        exit_code=process.returncode,
        processor_s=_processor_s() - processor_s,
        load=os.getloadavg()[0],
    )


def _processor_s() -> float:
    """Return what children that have ended took of the processor."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


def _sync(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _memory_kb(process: int) -> tuple[int, int]:
    """Return anonymous and resident memory of a process and all below it."""
    anonymous = resident = 0
    pending = [process]
    while pending:
        one = pending.pop()
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{one}/status").read_text().splitlines():
                key, _, value = line.partition(":")
                if key == "RssAnon":
                    anonymous += int(value.split()[0])
                elif key == "VmRSS":
                    resident += int(value.split()[0])
            for task in Path(f"/proc/{one}/task").iterdir():
                pending += map(int, (task / "children").read_text().split())
    return anonymous, resident


@contextlib.contextmanager
def container(gigabytes: float) -> Iterator[Path]:
    """Make a memory cgroup of so many GB."""
    base = next(path for path in _GROUPS if (path / "cgroup.procs").exists())
    group = base / f"bnfold-{os.getpid()}"
    group.mkdir()
    names = ("memory.limit_in_bytes", "memory.max")
    limit = next(group / name for name in names if (group / name).exists())
    limit.write_text(str(int(gigabytes * (1 << 30))))
    try:
        yield group
    finally:
        time.sleep(0.2)
        group.rmdir()


def measure(
    name: str, model: Path, largest_mb: float, gigabytes: float, steps: str, rounds: int
) -> Row:
    """Measure all steps on one model, turn about; each ratio is to the copy of its round."""
    folder = model.parent
    size_mb = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    row = Row(name, size_mb, largest_mb)
    out = folder.with_name("out")
    bnfold = [sys.executable, "-m", "bnfold"]
    fold = [*bnfold, "fold", str(model), "-o", str(out / "o.onnx"), "--no-verify"]
    certificate = ["--certificate", str(out / "c.json"), "--max-time", "3600"]
    verify = [*bnfold, "verify", str(model), str(out / "o.onnx")]
    commands: dict[str, tuple[list[str], bool]] = {
        "cp": (["cp", "-r", f"{folder}/.", str(out)], True),
        "fold": (fold, True),
        "fold --certificate": ([*fold, *certificate], True),
        "verify --certificate": ([*verify, *certificate], False),
        "inspect": ([*bnfold, "inspect", str(model)], False),
    }
    chosen = {
        key: one for key, one in commands.items() if not steps or key in steps.split(",")
    }
    for _ in range(rounds):
        for step, (command, writes) in chosen.items():
            row.steps.setdefault(step, []).append(_step(command, out, writes=writes))
            print(f"{name} {step}: {row.steps[step][-1]}", flush=True)
            if gigabytes and step != "cp":
                with container(gigabytes) as group:
                    cost = _step(command, out, writes=writes, group=group)
                row.steps.setdefault(f"{step}, {gigabytes:g} GB", []).append(cost)
                print(f"{name} {step} in {gigabytes:g} GB: {cost}", flush=True)
    shutil.rmtree(out, ignore_errors=True)
    for costs in row.steps.values():
        for cost, copy in zip(costs, row.steps.get("cp", costs), strict=True):
            cost.ratio = cost.seconds / copy.seconds
    return row


def _step(command: list[str], out: Path, *, writes: bool, group: Path | None = None) -> Cost:
    if writes:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        os.sync()
    return measured(command, out if writes else None, group)


def build(size: str, path: Path) -> float:
    """Write the model that a word stands for; return its largest tensor in MB."""
    if size.endswith("i"):
        with tempfile.TemporaryDirectory(dir=path.parent.parent) as folder:
            external = Path(folder) / "m.onnx"
            largest_mb = build(size[:-1], external)
            inlined(external, path)
        return largest_mb
    count, _, each = size.partition("x")
    if each:
        _only_matrices(path, int(count), round((float(each) * 1e9 / 4) ** 0.5))
        return float(each) * 1e3
    gigabytes = float(size)
    side = _SIDE if gigabytes >= 2 else 4000
    mixed(path, gigabytes * 1e9, side)
    return 4 * side * side / 1e6


def _told(costs: Sequence[Cost]) -> str:
    """Medians of times and ratios, peaks of memory."""
    failed = {cost.exit_code for cost in costs} - {0}
    ratios = [cost.ratio for cost in costs]
    return (
        f"{statistics.median(cost.seconds for cost in costs):7.1f} s"
        f" {statistics.median(cost.processor_s for cost in costs):6.1f} s of the processor"
        f" {statistics.median(ratios):6.2f}× ({min(ratios):.2f} to {max(ratios):.2f})"
        f" {max(cost.anonymous_mb for cost in costs):7.0f} MB anonymous"
        f" {max(cost.resident_mb for cost in costs):7.0f} MB resident"
        f"{f'  exit codes {failed}' if failed else ''}"
    )


def main() -> None:
    """Measure every size and print ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes", default="2.5,6,3x1", help="GB, or COUNTxGB of one tensor; i: inside"
    )
    parser.add_argument("--folder", type=Path, help="on a disk with room for three copies")
    parser.add_argument("--container", type=float, default=0.0, metavar="GB")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", default="", help="only these, by name")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for size in arguments.sizes.split(","):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as base:
            folder = Path(base) / "in"
            folder.mkdir()
            largest_mb = build(size, folder / "m.onnx")
            os.sync()
            rows.append(
                measure(
                    size,
                    folder / "m.onnx",
                    largest_mb,
                    arguments.container,
                    arguments.steps,
                    arguments.rounds,
                )
            )
        for step, costs in rows[-1].steps.items():
            print(f"{size:>5} GB  {step:32} {_told(costs)}", flush=True)
    if arguments.json:
        document = {"environment": environment(), "models": [asdict(row) for row in rows]}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
