"""The check that stands beside every timed layer: it lets rounding pass, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from benchmarks.gpu import correct, layers, rivals  # noqa: E402  # they need torch
from benchmarks.gpu.correct import LIMIT, Step  # noqa: E402  # as above
from benchmarks.gpu.training_plan import KINDS, Layer  # noqa: E402  # as above

_DTYPES = ("bfloat16", "float16", "float32")


def _layer(kind: str = "bn+add+relu", dtype: str = "float32", batch: int = 4) -> Layer:
    return Layer(batch, 6, 5, dtype, channels_last=True, kind=kind)


def _step(layer: Layer) -> Step:
    """A step rounded once, as a perfect kernel would: torch's own in float64."""
    at = layers.made_inputs(layer, "cpu")[0]
    dtype = at.x.dtype
    module = rivals.build("eager", layer, "cpu").double()
    wide = layers.Inputs(
        at.x.detach().double().requires_grad_(),
        None if at.residual is None else at.residual.detach().double().requires_grad_(),
        at.dy.double(),
    )
    step = correct.taken(_Named(module), wide.x, wide.residual, wide.dy)
    found = {}
    for name in Step.__slots__:
        tensor = getattr(step, name)
        large = tensor is not None and tensor.dim() > 1
        found[name] = (
            tensor.to(dtype if large else torch.float32) if tensor is not None else None
        )
    return Step(**found)


class _Named(torch.nn.Module):
    """torch's layer with the names of ours."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def __getattr__(self, name: str):
        if name in ("weight", "bias", "running_mean", "running_var"):
            return getattr(self.module.bn, name)
        return super().__getattr__(name)

    def forward(self, x, residual):
        return self.module(x, residual)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", _DTYPES)
def test_one_rounding_is_about_one_unit(kind, dtype):
    found = correct.errors(_step(_layer(kind, dtype)), _layer(kind).activation)
    assert set(found) >= {"y", "dx", "dweight", "dbias", "running_mean", "running_var"}
    assert ("dresidual" in found) is ("add" in kind)
    assert max(found.values()) <= 1.01
    assert dtype == "float32" or found["y"] > 0.5


@pytest.mark.parametrize("dtype", _DTYPES)
@pytest.mark.parametrize(
    "name", ["y", "dx", "dresidual", "dweight", "dbias", "running_mean", "running_var"]
)
def test_one_value_that_is_one_percent_off_is_an_error(name, dtype):
    step = _step(_layer(dtype=dtype))
    spoiled = getattr(step, name).clone()
    largest = spoiled.abs().flatten().argmax()
    flat = spoiled.flatten()
    flat[largest] *= 1.05
    wrong = replace(step, **{name: flat.reshape(spoiled.shape)})
    found = correct.errors(wrong, "relu")
    assert max(found, key=lambda one: found[one]) == name
    assert found[name] > LIMIT


def test_values_that_nobody_wrote_are_beyond_every_limit():
    step = _step(_layer())
    y = step.y.clone()
    y[-1, -1, -1, -1] = float("nan")
    assert correct.errors(replace(step, y=y), "relu")["y"] == correct.BEYOND


def test_a_relu_that_is_left_out_is_an_error():
    step = _step(_layer("bn+relu"))
    assert correct.errors(step, "relu")["y"] <= 1.01
    assert correct.errors(step, None)["y"] > LIMIT


def test_channels_are_judged_in_parts_without_a_difference(monkeypatch):
    step = _step(_layer(dtype="bfloat16"))
    whole = correct.errors(step, "relu")
    monkeypatch.setattr(correct, "_CHUNK", 4 * 25)
    assert [part.stop - part.start for part in correct._parts(step.x)] == [1] * 6
    assert correct.errors(step, "relu") == pytest.approx(whole)
