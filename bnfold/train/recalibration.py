"""Running statistics of the data itself, in place of what the last few batches left behind.

A running mean follows weights that have moved on since; a fold takes it for the truth. Here
every BatchNorm gets the mean and the variance of all values that went into it, over all
batches together (Wu and He, 2018; Wu and Johnson, "Rethinking Batch in BatchNorm", 2021, who
call it PreciseBN, average the batches' own).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final

import torch
from torch import Tensor, distributed, nn

from bnfold.errors import UsageError

_BATCH_NORM: Final = nn.modules.batchnorm._BatchNorm  # noqa: SLF001  # torch's base has no public name
_CHUNK: Final = 2**24  # values that are widened to float64 at once: 128 MiB


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to one BatchNorm.

    Attributes:
        values: How many values per channel went into it, on all ranks.
        mean_shift: The largest change of a mean, in standard deviations of the data.
        var_ratio: The variance of the data, divided by what was there: least and largest.
    """

    values: int
    mean_shift: float
    var_ratio: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Recalibrated:
    """What `recalibrate` did.

    Attributes:
        batches: How many batches were used, on this rank.
        layers: The layers that were changed, by name.
        unseen: Names of layers that saw no data, and were left as they were.
    """

    batches: int
    layers: dict[str, Change]
    unseen: tuple[str, ...]

    def __str__(self) -> str:
        """Show the layers in the order of the model."""
        lines = [
            f"{name}: mean moved by {one.mean_shift:.3g} deviations at most, variance"
            f" {one.var_ratio[0]:.3g} to {one.var_ratio[1]:.3g} times what it was"
            for name, one in self.layers.items()
        ]
        lines += [f"{name}: saw no data, left as it was" for name in self.unseen]
        return "\n".join(lines)


class Moments:
    """Count, mean and sum of squared deviations of all values so far, in float64."""

    def __init__(self, channels: int, device: torch.device) -> None:
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.mean = torch.zeros(channels, dtype=torch.float64, device=device)
        self.m2 = torch.zeros_like(self.mean)

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """Add the values of a batch [N, C, …], a few images at a time."""
        if x.numel() == 0:
            return
        axes = [axis for axis in range(x.dim()) if axis != 1]
        images = max(1, _CHUNK // max(1, x[0].numel()))
        for part in torch.split(x.detach(), images):
            wide = part.double()
            var, mean = torch.var_mean(wide, axes, correction=0)
            count = wide.numel() // wide.shape[1]
            self.merge(count * torch.ones_like(self.count), mean, var * count)

    def merge(self, count: Tensor, mean: Tensor, m2: Tensor) -> None:
        """Add what has been summed up elsewhere, by Chan's formula."""
        total = self.count + count
        share = torch.where(total > 0, count / total.clamp_min(1), 0.0)
        apart = mean - self.mean
        self.mean = self.mean + apart * share
        self.m2 = self.m2 + m2 + apart.square() * (self.count * share)
        self.count = total

    def pool(self, group: Any) -> None:
        """Add the values of all other ranks; in the same order on every rank."""
        mine = torch.cat([self.count[None], self.mean, self.m2])
        everyone = [torch.empty_like(mine) for _ in range(distributed.get_world_size(group))]
        distributed.all_gather(everyone, mine, group=group)
        self.__init__(len(self.mean), mine.device)  # type: ignore[misc]  # from nothing
        for one in everyone:
            mean, m2 = one[1:].chunk(2)
            self.merge(one[0], mean, m2)


def recalibrate(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    max_batches: int | None = None,
    forward: Callable[[nn.Module, Any], object] | None = None,
    process_group: Any = None,
) -> Recalibrated:
    """Set every running mean and variance to those of the data, and return what changed.

    Each BatchNorm normalises by the batch meanwhile, as in training, so a layer sees what it
    will see when those before it have been set; all other modules are in evaluation. Values
    are pooled in float64: batches of different sizes count by their values. Where
    torch.distributed runs, all ranks get the statistics of all data; each may have as many
    batches as it likes. Weights, flags and modes are left as they were; if a batch fails,
    so are the statistics.

    Args:
        model: Layers with running statistics are recalibrated, except frozen ones.
        batches: What the model is called with: a tensor, or a tuple whose first member is
            one (images, labels), or a mapping of keyword arguments. Moved to where the model
            is. A few thousand images are enough for most networks.
        max_batches: Take so many at most.
        forward: Calls the model with a batch, in place of the above.
        process_group: The ranks that share data; None is everybody.

    Raises:
        UsageError: If the model has nothing to recalibrate, or there are no batches.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if has_running_statistics(module)
    }
    if not layers:
        raise UsageError(
            "there is nothing to recalibrate",
            where=type(model).__name__,
            why="no BatchNorm in it keeps running statistics that may change",
            remedy="use track_running_stats=True and frozen=False",
        )
    call = forward or call_with
    seen = {name: Moments(m.num_features, device_of(m)) for name, m in layers.items()}
    count = 0
    with watching(model, layers, seen), torch.no_grad():
        for batch in islice(batches, max_batches):
            call(model, batch)
            count += 1
    shared = distributed.is_available() and distributed.is_initialized()
    if shared:
        for moments in seen.values():
            moments.pool(process_group)
    if not any(bool(moments.count > 0) for moments in seen.values()):
        raise UsageError(
            "there is no data to recalibrate with",
            where=type(model).__name__,
            why=f"{count} batches were given, and no value reached a BatchNorm",
            remedy="pass batches of the data that the model is for; a generator that has been"
            " read already is empty",
        )
    changes = {name: apply(layers[name], seen[name], count) for name in layers}
    return Recalibrated(
        count,
        {name: change for name, change in changes.items() if change is not None},
        tuple(name for name, change in changes.items() if change is None),
    )


def has_running_statistics(module: nn.Module) -> bool:
    """It is a BatchNorm with running statistics that may change."""
    return (
        isinstance(module, _BATCH_NORM)
        and module.running_mean is not None
        and module.running_var is not None
        and not getattr(module, "frozen", False)
    )


def device_of(module: nn.Module) -> torch.device:
    """Return where a BatchNorm keeps its statistics."""
    device: torch.device = module.running_mean.device  # type: ignore[union-attr, assignment]  # a tensor
    return device


def call_with(model: nn.Module, batch: Any) -> None:
    """Call the model with a batch, moved to where its first parameter or buffer is."""
    place = next((t.device for t in (*model.parameters(), *model.buffers())), None)

    def moved(value: Any) -> Any:
        return value.to(place, non_blocking=True) if torch.is_tensor(value) else value

    if isinstance(batch, dict):
        model(**{name: moved(value) for name, value in batch.items()})
    else:
        model(moved(batch[0] if isinstance(batch, (tuple, list)) else batch))


@contextmanager
def watching(
    model: nn.Module, layers: dict[str, nn.Module], seen: dict[str, Moments]
) -> Iterator[None]:
    """Let layers normalise by the batch, note what goes in, and change nothing for good."""
    modes = {module: module.training for module in model.modules()}
    buffers = [(b, b.clone()) for layer in layers.values() for b in layer.buffers()]
    handles = [
        layer.register_forward_pre_hook(partial(note, seen[name]), with_kwargs=True)
        for name, layer in layers.items()
    ]
    model.eval()
    for layer in layers.values():
        layer.training = True
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def note(moments: Moments, _layer: nn.Module, args: tuple[Any, ...], kwargs: Any) -> None:
    """Hook: add what goes into a layer."""
    moments.add(args[0] if args else kwargs["input"])


@torch.no_grad()
def apply(layer: Any, moments: Moments, batches: int) -> Change | None:
    """Set the statistics of a layer, if it has seen data; return what changed."""
    values = int(moments.count)
    if values == 0:
        return None
    var = moments.m2 / max(1, values - 1)  # as torch has it: running_var is unbiased
    deviation = var.sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    before_mean, before_var = layer.running_mean.double(), layer.running_var.double()
    shift = ((moments.mean - before_mean).abs() / deviation).max()
    ratio = var / before_var.clamp_min(torch.finfo(torch.float32).tiny)
    layer.running_mean.copy_(moments.mean)
    layer.running_var.copy_(var)
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked.fill_(batches)
    return Change(values, float(shift), (float(ratio.min()), float(ratio.max())))
