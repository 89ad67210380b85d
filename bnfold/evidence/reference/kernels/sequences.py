"""Operators that carry a state along a sequence: LinearAttention and CausalConvWithState.

onnx.reference computes both in float32. Both as opset 27 specifies them.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bnfold.evidence.reference.arrays import Array
from bnfold.evidence.reference.call import Call, Kernel


def _heads(packed: Array, heads: int) -> Array:
    """Return ``[B, T, H·D]`` as ``[T, B, H, D]``: one token after the other."""
    batch, length, width = packed.shape
    return packed.reshape(batch, length, heads, width // heads).transpose(1, 0, 2, 3)


def _linear_attention(call: Call) -> tuple[Array, ...]:
    """S ← e^g·S + k ⊗ β(v − e^g·Sᵀk), o = scale·qᵀS: with what the rule of the node has."""
    query, key, value = call.x[:3]
    before, decay, beta = call.maybe(3), call.maybe(4), call.maybe(5)
    own, shared = call.integer("q_num_heads", 0), call.integer("kv_num_heads", 0)
    rule = call.text("update_rule", "gated_delta")
    if rule not in ("linear", "gated", "delta", "gated_delta"):
        raise call.no_kernel(f"update_rule {rule!r} is unknown")
    q, k, v = _heads(query, own), _heads(key, shared), _heads(value, shared)
    scale = call.number("scale", 0.0) or q.shape[-1] ** -0.5
    shape = (*k.shape[1:], v.shape[-1])
    state = np.zeros(shape) if before is None else np.asarray(before)
    gates = _heads(decay, shared) if "gated" in rule and decay is not None else None
    rates = None
    if "delta" in rule and beta is not None:
        rates = _heads(beta, beta.shape[-1])  # one for each head, or one for all of them
    read = []
    for token in range(len(q)):
        written = v[token]
        if gates is not None:
            state = state * np.exp(gates[token])[..., None]
        if rates is not None:
            written = rates[token] * (written - np.einsum("bhkv,bhk->bhv", state, k[token]))
        state = state + k[token][..., None] * written[..., None, :]
        seen = np.repeat(state, own // shared, axis=1)
        read.append(scale * np.einsum("bhk,bhkv->bhv", q[token], seen))
    batch, length = query.shape[:2]
    results = np.stack(read, axis=1) if read else np.zeros((batch, 0, own, v.shape[-1]))
    return call.outputs(results.reshape(batch, length, -1), state)


def _causal_convolution(call: Call) -> tuple[Array, ...]:
    """A depthwise convolution along the last axis that reads the past alone."""
    x, weight = call.x[:2]
    bias, before = call.maybe(2), call.maybe(3)
    kernel, length = weight.shape[-1], x.shape[-1]
    activation = call.text("activation", "none")
    if activation not in ("none", "silu", "swish"):
        raise call.no_kernel(f"activation {activation!r} is unknown")
    past = np.zeros((*x.shape[:2], kernel - 1)) if before is None else before
    padded = np.concatenate([past, x], axis=2)
    result = np.zeros(x.shape)
    for tap in range(kernel):
        result = result + weight[:, 0, tap, None] * padded[..., tap : tap + length]
    if bias is not None:
        result = result + bias[:, None]
    if activation != "none":
        result = result / (1.0 + np.exp(-result))
    return call.outputs(result, padded[..., padded.shape[-1] - (kernel - 1) :])


KERNELS: Final[dict[str, Kernel]] = {
    "CausalConvWithState": _causal_convolution,
    "LinearAttention": _linear_attention,
}
