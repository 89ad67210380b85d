"""Layers of drawn graphs: maps along a channel axis, linear layers, pools, normalisations."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.campaign.sketch import Place, Sketch

ROOM = 40_000
"""Elements of the largest value of an ordinary drawn graph."""


def channel_axis(place: Place) -> int:
    """Return where channels run: axis 1, or the last of values with three axes or fewer."""
    return 1 if place.rank in (2, 4, 5) else place.rank - 1


def norm(sketch: Sketch, place: Place) -> Place:
    """Append BatchNormalization at inference."""
    if place.rank < 2 or 1 in place.open:
        return place
    size = place.shape[1]
    inputs = [
        sketch.const(sketch.gains(size), "gamma"),
        sketch.const(sketch.shifts(size), "beta"),
        sketch.const(sketch.shifts(size), "mean"),
        sketch.const(sketch.variances(size), "var"),
    ]
    epsilon = sketch.pick(1e-5, 1e-5, 1e-3, 1e-2)
    name = sketch.op("BatchNormalization", [place.name, *inputs], epsilon=epsilon)
    return Place(name, place.shape, place.open)


def affine(sketch: Sketch, place: Place, axis: int | None = None) -> Place:
    """Append Mul, Add, Sub, Div or Neg with a constant along one axis, or for all."""
    kind = sketch.pick("Mul", "Mul", "Add", "Add", "Sub", "Div", "Neg")
    if kind == "Neg":
        return Place(sketch.op(kind, [place.name]), place.shape, place.open)
    along = _along(sketch, place, channel_axis(place) if axis is None else axis)
    scales = kind in ("Mul", "Div")
    array = sketch.gains(*along) if scales else sketch.shifts(*along, scale=0.7)
    if kind == "Div":
        array = np.where(array == 0, 1.0, array)
    inputs = [place.name, sketch.const(array, "s" if scales else "t")]
    if kind != "Div" and sketch.chance(0.25):
        inputs.reverse()
    return Place(sketch.op(kind, inputs), place.shape, place.open)


def _along(sketch: Sketch, place: Place, axis: int) -> list[int]:
    """Return the shape of a constant along an axis: bare, or with leading ones."""
    if axis in place.open or axis == 0 or sketch.chance(0.15):
        return sketch.pick([], [1], [1] * place.rank)
    along = [place.shape[axis], *[1] * (place.rank - axis - 1)]
    return [*[1] * axis, *along] if sketch.chance(0.3) else along


def some_map(sketch: Sketch, place: Place) -> Place:
    """Append a site: BatchNormalization, one map, or a chain of them."""
    if sketch.chance(0.4) and place.rank > 1:
        return norm(sketch, place)
    for _ in range(sketch.pick(1, 1, 2, 3)):
        place = affine(sketch, place)
    return place


def act(sketch: Sketch, place: Place) -> Place:
    """Append something that is not affine."""
    kinds = ["Relu", "Relu", "Sigmoid", "Tanh", "Softplus", "Elu", "Abs"]
    if sketch.opset >= 14:
        kinds.append("HardSwish")
    if sketch.opset >= 20:
        kinds.append("Gelu")
    name = sketch.op(sketch.pick(*kinds), [place.name])
    return Place(name, place.shape, place.open)


def bend(sketch: Sketch, place: Place) -> Place:
    """Append a piecewise linear operator, or one with a slope for each channel."""
    kind = sketch.pick("LeakyRelu", "PRelu", "Clip", "Max", "Min", "HardSigmoid")
    x, attributes = place.name, {}
    inputs = [x]
    if kind == "LeakyRelu":
        attributes = {"alpha": float(sketch.pick(0.1, 0.25, 0.01))}
    elif kind == "HardSigmoid":
        attributes = {"alpha": 0.2, "beta": 0.5} if sketch.chance(0.5) else {}
    elif kind == "Clip":
        inputs, attributes = _clip(sketch, x)
    else:
        inputs = [x, _slopes(sketch, place)]
    return Place(sketch.op(kind, inputs, **attributes), place.shape, place.open)


def _clip(sketch: Sketch, name: str) -> tuple[list[str], dict[str, float]]:
    low, high = sketch.pick((0.0, 6.0), (-0.5, 1.5), (0.0, 1.0), (-3.0, 3.0))
    if sketch.opset < 11:
        return [name], {"min": low, "max": high}
    return [name, sketch.const(low, "low"), sketch.const(high, "high")], {}


def _slopes(sketch: Sketch, place: Place) -> str:
    axis = channel_axis(place)
    wide = axis not in place.open
    along = [place.shape[axis] if wide else 1, *[1] * (place.rank - axis - 1)]
    return sketch.const(sketch.rng.uniform(0.05, 0.9, along), "slope")


# ------------------------------------------------------------------ linear layers


def conv(sketch: Sketch, place: Place, **fixed: Any) -> Place:
    """Append a convolution; what is not fixed is drawn."""
    if place.rank < 3 or 1 in place.open:
        return place
    window = drawn_window(sketch, place, fixed)
    if window is None:
        return place
    kernel, attributes, sizes = window
    channels = place.shape[1]
    groups = int(fixed.get("group", _groups(sketch, channels)))
    outputs = int(fixed.get("outputs", groups * sketch.pick(1, 1, 2, 3)))
    if outputs % groups:
        outputs = groups
    fan = max(channels // groups * int(np.prod(kernel)), 1)
    weight = sketch.normal(outputs, channels // groups, *kernel, scale=(2 / fan) ** 0.5)
    inputs = [place.name, sketch.const(weight, "w")]
    if fixed.get("bias", sketch.chance(0.5)):
        inputs.append(sketch.const(sketch.normal(outputs, scale=0.3), "b"))
    if sketch.chance(0.5):
        attributes["kernel_shape"] = kernel
    name = sketch.op("Conv", inputs, group=groups, **attributes)
    return Place(name, (place.shape[0], outputs, *sizes), place.open)


def _groups(sketch: Sketch, channels: int) -> int:
    options = [g for g in (1, 1, 1, 2, 3, channels) if channels % g == 0]
    return int(sketch.pick(*options))


def drawn_window(
    sketch: Sketch, place: Place, fixed: dict[str, Any]
) -> tuple[list[int], dict[str, Any], tuple[int, ...]] | None:
    """Return kernel, attributes and result sizes of a window; None if it does not fit."""
    rank = place.rank - 2
    kernel = list(fixed.get("kernel", [sketch.pick(1, 1, 2, 3, 3, 5) for _ in range(rank)]))
    strides = [int(fixed.get("stride", sketch.pick(1, 1, 1, 2, 3))) for _ in range(rank)]
    dilations = [int(fixed.get("dilation", sketch.pick(1, 1, 1, 2))) for _ in range(rank)]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    attributes: dict[str, Any] = {"strides": strides, "dilations": dilations}
    auto = sketch.pick("SAME_UPPER", "SAME_LOWER") if sketch.chance(0.12) else ""
    if auto and "pads" not in fixed and max(dilations) == 1:
        attributes["auto_pad"] = auto
        pairs = zip(place.shape[2:], strides, strict=True)
        return kernel, attributes, tuple(-(-size // s) for size, s in pairs)
    pads = list(fixed.get("pads", _pads(sketch, kernel)))
    attributes["pads"] = pads
    sizes = tuple(
        (size + pads[n] + pads[n + rank] - reach[n]) // strides[n] + 1
        for n, size in enumerate(place.shape[2:])
    )
    if min(sizes) < 1 or any(n + 2 in place.open and r > 4 for n, r in enumerate(reach)):
        return None
    return kernel, attributes, sizes


def _pads(sketch: Sketch, kernel: list[int]) -> list[int]:
    style = sketch.pick("none", "none", "half", "asymmetric")
    if style == "none":
        return [0] * 2 * len(kernel)
    if style == "half":
        return [k // 2 for k in kernel] * 2
    return [int(sketch.rng.integers(0, k)) for k in (*kernel, *kernel)]


def deconv(sketch: Sketch, place: Place) -> Place:
    """Append a transposed convolution."""
    if place.rank < 3 or place.rank > 4 or 1 in place.open or np.prod(place.shape) > 4000:
        return place
    rank, channels = place.rank - 2, place.shape[1]
    groups = _groups(sketch, channels)
    kernel = [sketch.pick(1, 2, 3, 4)] * rank
    stride = sketch.pick(1, 2, kernel[0])
    pad = sketch.pick(0, 0, 1) if kernel[0] > 2 else 0
    columns = sketch.pick(1, 2, 3)
    weight = sketch.normal(channels, columns, *kernel, scale=0.4)
    inputs = [place.name, sketch.const(weight, "w")]
    if sketch.chance(0.5):
        inputs.append(sketch.const(sketch.normal(columns * groups, scale=0.3), "b"))
    sizes = tuple(stride * (n - 1) + kernel[0] - 2 * pad for n in place.shape[2:])
    if min(sizes) < 1:
        return place
    attributes = {"strides": [stride] * rank, "pads": [pad] * 2 * rank, "group": groups}
    name = sketch.op("ConvTranspose", inputs, **attributes)
    return Place(name, (place.shape[0], columns * groups, *sizes), place.open)


def gemm(sketch: Sketch, place: Place, outputs: int | None = None) -> Place:
    """Append Gemm with drawn alpha, beta, transB and C."""
    if place.rank != 2 or 1 in place.open:
        return place
    width = place.shape[1]
    count = outputs or sketch.pick(1, 3, 4, 5, 7, 8)
    weight = sketch.normal(width, count, scale=(1 / width) ** 0.5)
    turned = sketch.chance(0.5)
    inputs = [place.name, sketch.const(weight.T if turned else weight, "w")]
    if sketch.opset < 11 or sketch.chance(0.7):
        along = sketch.pick([count], [count], [1, count], [1], [])
        inputs.append(sketch.const(sketch.normal(*along, scale=0.3), "b"))
    attributes: dict[str, Any] = {"transB": int(turned)}
    if sketch.chance(0.4):
        attributes |= {"alpha": 0.5, "beta": float(sketch.pick(2.0, 0.5, 0.0))}
    return Place(sketch.op("Gemm", inputs, **attributes), (place.shape[0], count))


def matmul(sketch: Sketch, place: Place, outputs: int | None = None) -> Place:
    """Append MatMul with a constant on the right, or now and then on the left."""
    last = place.rank - 1
    if place.rank < 2 or last in place.open:
        return place
    width = place.shape[-1]
    count = outputs or sketch.pick(1, 3, 4, 5, 8)
    if place.rank > 2 and last - 1 not in place.open and outputs is None:
        if sketch.chance(0.25):
            return _left(sketch, place, count)
        if sketch.opset >= 12 and sketch.chance(0.15):
            return _einsum(sketch, place, count)
    weight = sketch.normal(width, count, scale=(1 / width) ** 0.5)
    name = sketch.op("MatMul", [place.name, sketch.const(weight, "w")])
    return Place(name, (*place.shape[:-1], count), place.open)


def _left(sketch: Sketch, place: Place, count: int) -> Place:
    rows = place.shape[-2]
    weight = sketch.normal(count, rows, scale=(1 / rows) ** 0.5)
    name = sketch.op("MatMul", [sketch.const(weight, "w"), place.name])
    return Place(name, (*place.shape[:-2], count, place.shape[-1]), place.open)


def _einsum(sketch: Sketch, place: Place, count: int) -> Place:
    letters = "abcde"[: place.rank]
    weight = sketch.normal(place.shape[-1], count, scale=(1 / place.shape[-1]) ** 0.5)
    equation = f"{letters},{letters[-1]}z->{letters[:-1]}z"
    name = sketch.op("Einsum", [place.name, sketch.const(weight, "w")], equation=equation)
    return Place(name, (*place.shape[:-1], count), place.open)


def linear(sketch: Sketch, place: Place) -> Place:
    """Append a linear layer that fits."""
    if place.rank == 2:
        return gemm(sketch, place) if sketch.chance(0.6) else matmul(sketch, place)
    if place.rank == 3 and sketch.chance(0.5):
        return matmul(sketch, place)
    done = deconv(sketch, place) if sketch.chance(0.15) else conv(sketch, place)
    return matmul(sketch, place) if done is place else done


# --------------------------------------------------------------- pools and norms


def pool(sketch: Sketch, place: Place) -> Place:
    """Append a pool: windows of 2 to 7, padded or not, rounded up or down."""
    if place.rank < 3:
        return place
    if sketch.chance(0.25):
        kind = sketch.pick("GlobalAveragePool", "GlobalMaxPool")
        shape = (*place.shape[:2], *[1] * (place.rank - 2))
        return Place(sketch.op(kind, [place.name]), shape, place.open & {1})
    kind = sketch.pick("MaxPool", "AveragePool", "AveragePool")
    rank = place.rank - 2
    kernel = [sketch.pick(2, 2, 3, 5, 7)] * rank
    stride = sketch.pick(1, 2, kernel[0])
    pad = sketch.pick(0, 0, kernel[0] // 2)
    attributes: dict[str, Any] = {"strides": [stride] * rank, "kernel_shape": kernel}
    attributes["pads"] = [pad] * 2 * rank
    if kind == "AveragePool" and sketch.chance(0.5):
        attributes["count_include_pad"] = 1
    up = int(sketch.opset >= 10 and sketch.chance(0.3))
    if up:
        attributes["ceil_mode"] = 1
    sizes = tuple(_pooled(size, kernel[0], stride, pad, up) for size in place.shape[2:])
    if min(sizes) < 1 or (place.open - {1} and kernel[0] > 3):
        return place
    name = sketch.op(kind, [place.name], **attributes)
    return Place(name, (*place.shape[:2], *sizes), place.open)


def _pooled(size: int, kernel: int, stride: int, pad: int, up: int) -> int:
    room = size + 2 * pad - kernel
    if room < 0:
        return 0
    count = (room + (stride - 1 if up else 0)) // stride + 1
    return count - 1 if up and (count - 1) * stride >= size + pad else count


def normalise(sketch: Sketch, place: Place) -> Place:
    """Append a normalisation by the data; its affine tail may move."""
    makers = [_instance] if place.rank > 2 else []
    if sketch.opset >= 17:
        makers.append(_layer)
    if sketch.opset >= 21 and place.rank > 2 and place.shape[1] % 2 == 0:
        makers.append(_group)
    if sketch.opset >= 23:
        makers.append(_rms)
    if not makers or place.open:
        return place
    sketch.options["norms"] = sketch.chance(0.5)
    return Place(sketch.pick(*makers)(sketch, place), place.shape)


def _instance(sketch: Sketch, place: Place) -> str:
    size = place.shape[1]
    inputs = [place.name, sketch.const(sketch.gains(size)), sketch.const(sketch.normal(size))]
    return sketch.op("InstanceNormalization", inputs, epsilon=0.1)


def _layer(sketch: Sketch, place: Place) -> str:
    size = place.shape[-1]
    inputs = [place.name, sketch.const(sketch.gains(size)), sketch.const(sketch.normal(size))]
    return sketch.op("LayerNormalization", inputs, epsilon=0.1, axis=-1)


def _rms(sketch: Sketch, place: Place) -> str:
    inputs = [place.name, sketch.const(sketch.gains(place.shape[-1]))]
    return sketch.op("RMSNormalization", inputs, epsilon=0.1, axis=-1)


def _group(sketch: Sketch, place: Place) -> str:
    size = place.shape[1]
    inputs = [place.name, sketch.const(sketch.gains(size)), sketch.const(sketch.normal(size))]
    return sketch.op("GroupNormalization", inputs, epsilon=0.1, num_groups=2)
