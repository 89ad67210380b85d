"""What of training is measured, and in which order: pure, and without torch.

The cases that decide a target come first, so that a run that is cut short has told most.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

LAYERS: Final = ((64, 112), (256, 56), (512, 28), (1024, 14), (2048, 7))
"""Channels and side of the outputs of ResNet-50's stem and of its four stages."""
BATCHES: Final = (256, 64, 16)
KINDS: Final = ("bn+add+relu", "bn+relu", "bn")
AUTOCAST: Final = ("bfloat16 autocast", "float16 autocast")
PARAMETERS: Final = "bfloat16 parameters"
"""Convolutions and the last layer in bfloat16; BatchNorm keeps its vectors in float32."""

_LAYER_S: Final = 4.0
_COMPILED_LAYER_S: Final = 8.0
_NET_S: Final = 45.0
_COMPILED_NET_S: Final = 50.0
_KERNELS_S: Final = 25.0
_LATEST: Final = 6
_MARGIN: Final = 1.1


@dataclass(frozen=True, slots=True)
class Layer:
    """One BatchNorm of a training step, with what follows it."""

    batch: int
    channels: int
    side: int
    dtype: str
    channels_last: bool
    kind: str

    @property
    def key(self) -> str:
        """Its name in the results."""
        layout = "channels_last" if self.channels_last else "contiguous"
        shape = f"{self.batch}x{self.channels}x{self.side}x{self.side}"
        return f"{self.kind} {shape} {self.dtype} {layout}"

    @property
    def passes(self) -> dict[str, int]:
        """The fewest passes over memory; a residual is one more."""
        forward, backward = (4, 6) if "add" in self.kind else (3, 5)
        return {"forward": forward, "backward": backward, "step": forward + backward}

    @property
    def activation(self) -> str | None:
        """The activation that follows."""
        return "relu" if "relu" in self.kind else None

    @property
    def arms(self) -> tuple[str, ...]:
        """Who takes turns: torch's twice, so that a reader sees the noise, and the others.

        Compiling is dear, so it is left to the cases that a target is about.
        """
        compiled = self.activation is not None and self.dtype == "bfloat16"
        small = compiled and self.channels_last and self.batch <= min(BATCHES)
        return (
            "eager",
            "again",
            *(("compiled",) if compiled else ()),
            "ours",
            *(("ours compiled",) if small else ()),
            "apex",
            "inplace_abn",
        )


@dataclass(frozen=True, slots=True)
class Net:
    """A whole training step of a network."""

    name: str
    batch: int
    mode: str

    @property
    def key(self) -> str:
        """Its name in the results."""
        return f"{self.name} batch {self.batch} {self.mode}"

    @property
    def arms(self) -> tuple[str, ...]:
        """Who takes turns."""
        return ("eager", "again", "compiled", "ours", "ours recompute", "ours compiled")


@dataclass(frozen=True, slots=True)
class Kernels:
    """Which kernels torch runs for plain BatchNorms: a look with the profiler."""

    layers: tuple[Layer, ...]

    @property
    def key(self) -> str:
        """Its name in the log."""
        return "kernels of torch's BatchNorm"

    @property
    def arms(self) -> tuple[str, ...]:
        """Only torch's own."""
        return ("eager",)


Task = Layer | Net | Kernels


def plan(*, dry_run: bool) -> list[Task]:
    """List what is measured, the most telling first."""
    tasks = list(_dry() if dry_run else _telling_first())
    plain = [task for task in tasks if isinstance(task, Layer) and task.kind == "bn"]
    return [Kernels(tuple(one for one in plain if _is_looked_at(one))), *tasks]


def _is_looked_at(layer: Layer) -> bool:
    """Where torch is said to run cuDNN, and of what it runs itself the largest."""
    if not layer.channels_last:
        return False
    return layer.dtype == "float16" or layer.batch == max(BATCHES)


def _telling_first() -> Iterator[Task]:
    large, smaller = BATCHES[:1], BATCHES[1:]
    yield from layers(large, "bfloat16", channels_last=True)
    yield from layers(large, "float16", channels_last=True, kinds=("bn",))
    yield Net("resnet50", 256, AUTOCAST[0])
    yield from layers(large, "float16", channels_last=True, kinds=KINDS[:2])
    for batch in smaller:
        yield from layers((batch,), "bfloat16", channels_last=True)
        yield from layers((batch,), "float16", channels_last=True, kinds=("bn",))
        yield Net("resnet50", batch, AUTOCAST[0])
    yield from layers(smaller, "float16", channels_last=True, kinds=KINDS[:2])
    for mode in (PARAMETERS, AUTOCAST[1]):
        yield Net("resnet50", 256, mode)
    yield from layers(BATCHES, "bfloat16", channels_last=False)
    yield from layers(BATCHES, "float32", channels_last=True)
    for dtype in ("float16", "float32"):
        yield from layers(BATCHES, dtype, channels_last=False)


def _dry() -> Iterator[Task]:
    yield Layer(2, 8, 6, "bfloat16", True, "bn+add+relu")  # noqa: FBT003  a field
    yield Layer(2, 8, 6, "float16", True, "bn")  # noqa: FBT003  a field
    yield Layer(2, 8, 6, "float32", False, "bn+relu")  # noqa: FBT003  a field
    yield Net("tiny", 4, AUTOCAST[0])


def layers(
    batches: Sequence[int],
    dtype: str,
    *,
    channels_last: bool,
    kinds: Sequence[str] = KINDS,
) -> Iterator[Layer]:
    """Yield the layers of a type and layout, large batches first."""
    for batch, kind, (channels, side) in itertools.product(batches, kinds, LAYERS):
        yield Layer(batch, channels, side, dtype, channels_last, kind)


def described(task: Task) -> dict[str, Any]:
    """Return a task as plain data; `task_of` reads it."""
    what = {"what": type(task).__name__.lower(), "key": task.key, "arms": list(task.arms)}
    return what | asdict(task)


def task_of(found: Mapping[str, Any]) -> Task:
    """Return the task that plain data describes."""
    fields = {k: v for k, v in found.items() if k not in ("what", "key", "arms")}
    if found["what"] == "kernels":
        return Kernels(tuple(Layer(**one) for one in fields["layers"]))
    return Layer(**fields) if found["what"] == "layer" else Net(**fields)


def guess_s(task: Task) -> float:
    """What a task takes where nothing is known: compiling is most of it."""
    compiled = sum("compiled" in arm for arm in task.arms)
    if isinstance(task, Layer):
        return _LAYER_S + compiled * _COMPILED_LAYER_S
    return _NET_S + compiled * _COMPILED_NET_S if isinstance(task, Net) else _KERNELS_S


def needed_s(task: Task, past: Sequence[tuple[Task, float]]) -> float:
    """What a task should take, by how far guesses of its sort were off so far.

    Args:
        task: The task.
        past: What was measured, with the seconds that it took.
    """
    alike = [(one, s) for one, s in past if type(one) is type(task)][-_LATEST:]
    factor = statistics.median(s / guess_s(one) for one, s in alike) if alike else 1.0
    return guess_s(task) * factor * _MARGIN
