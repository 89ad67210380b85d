"""Names that attack what shows them, and a model that has one wherever a name can stand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

FRAGMENTS = (
    "\x1b]0;owned\x07", "\x1b[2J\x1b[31m", "\x9b31m", "\x07", "\x08\x08\x08\x08", "\r", "\n",
    "\t", "\x0b", "\x0c", "\x00", "\x1f", "\x7f", "\x85", "\x90", "\u2028", "\u2029",
    "\u202e", "\u2066", "\u2069", "\u200e", "\u200f", "\u061c", "\u200b", "\u2060", "\ufeff",
    "\xad", "͏", "ㅤ", "\ufffe", "\U000e0041", "\xa0", "a" + "\u0301" + "\u0316" * 40,
    "\n  next:  run rm -rf", "\nerror: forged", "\n| a | b |", "\n# heading\n", "\n\n- item",
    "\n```\n", "<script>alert(1)</script>", "</title></style></script>",
    '" onload="alert(1)', "' x='", "<img src=x onerror=alert(1)>", "<!--", "-->", "]]>",
    "&lt;b&gt;", "&#x3c;b&#x3e;", "<b>", '" style="fill: red" id="x" href="#y', "url(#z)",
    "#010201", "{{ 7 * 7 }}", "{% raw %}", "|", "||", "`", "```", "*", "**", "_", "__",
    "[a](javascript:alert(1))", "![a](b)", "~~", "$", "$\\frac{1}{0}$", "\\", "\\\\x1b", "#",
    "# ", "1. ", "- ", "---", "> ", "    ", "@everyone", "#12", "https://evil.example/x",
    "www.evil.example", "a@b.example", "GH-1", "[bold red]", "[/]",
    "[link=https://evil.example]x[/link]", ":warning:", "%s%n", "{0}", "日本語", "👩\u200d💻",
    "x^2^",
    "x^2^", "é", "Ω", "/../../x", "C:\\x", " ", "x" * 5000, " y" * 3000,
)  # fmt: skip

names = st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=4).map("".join)
"""Names of a few of them."""

Renaming = Callable[[str], str]


def all_different(hostile: list[str]) -> Renaming:
    """Give each tame name one of these, and a number that keeps them apart."""
    found: dict[str, str] = {}
    turn = itertools.count()

    def renamed(tame: str) -> str:
        if tame not in found:
            number = next(turn)
            found[tame] = f"{hostile[number % len(hostile)]}{number}"
        return found[tame]

    return renamed


def renamings(**sizes: int) -> st.SearchStrategy[Renaming]:
    """Draw what each tame name of a model becomes."""
    return st.lists(names, min_size=1, max_size=12, **sizes).map(all_different)


def renamed(model: onnx.ModelProto, rename: Renaming) -> onnx.ModelProto:
    """Return the model with every text that begins with ``tame`` renamed."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    _rename(made, rename)
    return made


def _rename(message: Any, rename: Renaming) -> None:
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            if isinstance(value, str):
                setattr(message, field.name, _new(value, rename))
            else:
                value[:] = [_new(one, rename) for one in value]
        elif field.type == field.TYPE_MESSAGE:
            for one in value if hasattr(value, "__len__") else (value,):
                _rename(one, rename)


def _new(text: str, rename: Renaming) -> str:
    return rename(text) if text.startswith("tame") else text


def texts_of(message: Any) -> Iterator[str]:
    """Yield every text of a message."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            yield from (value,) if isinstance(value, str) else value
        elif field.type == field.TYPE_MESSAGE:
            for one in value if hasattr(value, "__len__") else (value,):
                yield from texts_of(one)


def tame_model(*, unknown: bool = False) -> onnx.ModelProto:
    """A model that folds a map, keeps one with reasons, and has a name in every place.

    Args:
        unknown: Whether it has an operator of a foreign domain too, which no runtime knows.
    """
    rng = np.random.default_rng(0)
    weights = {
        "tame_w": rng.normal(size=(4, 3, 3, 3)),
        **{f"tame_{one}{turn}": rng.uniform(0.5, 2, 4) for turn in "12" for one in "sbmv"},
        "tame_ln": rng.uniform(0.5, 2, 8),
        "tame_lb": rng.normal(size=8),
    }
    own = {"domain": "tame_domain"}
    nodes = [
        _node("Conv", "tame_x tame_w", "tame_c", pads=[1] * 4),
        _node("BatchNormalization", "tame_c tame_s1 tame_b1 tame_m1 tame_v1", "tame_n"),
        _node("tame_function", "tame_n", "tame_f", **own),
        _node("BatchNormalization", "tame_f tame_s2 tame_b2 tame_m2 tame_v2", "tame_stays"),
        _node("LayerNormalization", "tame_stays tame_ln tame_lb", "tame_y", axis=-1),
    ]
    if unknown:
        nodes.append(_node("tame_operator", "tame_y", "tame_z", tame_attribute=3, **own))
    graph = helper.make_graph(
        nodes,
        "tame_graph",
        [helper.make_tensor_value_info("tame_x", TensorProto.FLOAT, ["tame_batch", 3, 8, 8])],
        [helper.make_tensor_value_info("tame_y", TensorProto.FLOAT, ["tame_batch", 4, 8, 8])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items()],
        doc_string="tame_graph_doc",
    )
    function = helper.make_function(
        "tame_domain",
        "tame_function",
        ["tame_in"],
        ["tame_out"],
        [helper.make_node("Softmax", ["tame_in"], ["tame_out"], name="tame_soft", axis=1)],
        [helper.make_opsetid("", 17)],
    )
    function.doc_string = "tame_function_doc"
    model = helper.make_model(
        graph,
        functions=[function],
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("tame_domain", 1)],
        ir_version=8,
        producer_name="tame_producer",
        producer_version="tame_version",
        domain="tame_model_domain",
        doc_string="tame_model_doc",
    )
    helper.set_model_props(model, {"tame_key": "tame_value"})
    return model


def _node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    name = f"tame_{kind}_{output}"
    return helper.make_node(
        kind, inputs.split(), [output], name=name, doc_string="tame_doc", **attributes
    )
