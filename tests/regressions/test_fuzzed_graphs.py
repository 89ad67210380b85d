"""Faults that graphs drawn from the schemas of ONNX have found (`make fuzz`), made small."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import bnfold
from bnfold.errors import ModelError
from bnfold.model.io import opened
from bnfold.model.shapes import ShapeTable
from bnfold.model.validity import fault_of
from tests.laws.promise import operators


def parsed(text: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model, full_check=True)
    return model


def folded(model: onnx.ModelProto, **options: bool) -> onnx.ModelProto:
    """Fold twice: the second fold finds nothing."""
    found = bnfold.fold(model, verify=False, **options).to_proto()
    again = bnfold.fold(found, verify=False, **options)
    assert [(step.rule, step.site) for step in again.report.steps] == []
    assert again.to_proto().SerializeToString() == found.SerializeToString()
    return found


# ------------------------------------------------------------- what the checker lets pass


def test_a_graph_without_outputs_is_refused():
    """All of it is dead: the fold dropped it, and refused what it had made itself."""
    model = parsed("""
        <ir_version: 10, opset_import: ["": 21]>
        g (float[2, 3] x) => () <float s = {2}> { y = Mul (x, s) }
    """)
    with pytest.raises(ModelError, match="no graph to fold"):
        bnfold.fold(model, verify=False)


def test_an_instance_norm_with_a_scale_of_another_rank_stays():
    model = parsed("""
        <ir_version: 8, opset_import: ["": 12]>
        g (float[2, 3, 7] x) => (float[?, ?, ?] y)
        <float[3, 1, 2] s = {1, 2, 3, 4, 5, 6}, float[3] b = {1, 2, 3}>
        {
            n = InstanceNormalization (x, s, b)
            y = Relu (n)
        }
    """)
    assert operators(folded(model, norms=True)) == operators(model)


def test_a_normalization_of_a_scalar_is_described():
    model = parsed("""
        <ir_version: 8, opset_import: ["": 13]>
        g (float x) => (float y) { y = LpNormalization (x) }
    """)
    (told,) = bnfold.fold(model, verify=False).report.normalisations
    assert told.axes == ()
    assert operators(folded(model)) == operators(model)


def test_a_split_with_more_outputs_than_it_says_is_refused():
    """onnx's shape inference ended the process."""
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 20]>
        g (float[4] x) => (float[?] a, float[?] b)
        { a, b = Split <axis: int = 0, num_outputs: int = 1> (x) }
    """)
    onnx.checker.check_model(model)
    with pytest.raises(ModelError, match="makes no sense"):
        bnfold.fold(model, verify=False)


@pytest.mark.parametrize("turned", [-1, 2])
def test_any_number_but_zero_transposes_an_operand_of_gemm(turned):
    """-1 was an index out of range, and 2 took the size of the other axis."""
    model = parsed(f"""
        <ir_version: 8, opset_import: ["": 13]>
        g (float[N, 3] x, float[5, M] w) => (float[?, ?] y)
        <float[5] s = {{1, 2, 3, 4, 5}}, float[3, 5] v = {{
            1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}}>
        {{
            a = Gemm <transB: int = {turned}> (x, w)
            y = Mul (a, s)
        }}
    """)
    assert operators(folded(model)) == operators(model)


# ----------------------------------------------------------------------- constant Ifs


@pytest.mark.parametrize("reader", ["Relu (z)", "Relu (x)"])
def test_an_if_in_a_branch_that_is_not_taken_has_its_condition_there(reader):
    """Both were to be put in their places, but the inner one had left its graph by then."""
    model = parsed(f"""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[2, 3] x) => (float[?, ?] y)
        <bool yes = {{1}}, float[3] s = {{1, 2, 3}}>
        {{
            z = If (yes) <
                then_branch = one () => (float[?, ?] a) {{ a = Mul (x, s) }},
                else_branch = two () => (float[?, ?] b) <bool no = {{0}}> {{
                    b = If (no) <
                        then_branch = three () => (float[?, ?] c) {{ c = Exp (x) }},
                        else_branch = four () => (float[?, ?] d) {{ d = Abs (x) }}
                    >
                }}
            >
            y = {reader}
        }}
    """)
    assert not set(operators(folded(model))) & {"If", "Exp", "Abs"}


# --------------------------------------------------------------------------- dead code


def test_dead_code_of_the_graph_does_not_hide_that_of_a_function():
    """As many nodes went with the function as without it, and one more in a second fold."""
    folded(
        parsed("""
        <ir_version: 10, opset_import: ["": 17, "local": 1]>
        g (float[2, 3] x) => (float[2, 3] y, float[2, 3] z)
        <float s = {2}>
        {
            a = Neg (x)
            dead = Mul (x, s)
            y = local.F (a)
            z = Relu (a)
        }
        <domain: "local", opset_import: ["": 17, "local": 1]>
        F (p) => (q)
        {
            c = Constant <value = float {3}> ()
            unread = Mul (p, c)
            q = Exp (p)
        }
    """)
    )


def test_a_function_is_written_out_where_dead_code_stands_beside_it():
    """Dead calls and maps counted as gained, so the map in front of the function stayed."""
    model = parsed("""
        <ir_version: 10, opset_import: ["": 17, "local": 1]>
        g (float[2, 3] x) => (float[2, 3] y, float[2, 3] z)
        <float s = {2}, float[3] t = {1, 2, 3}>
        {
            a = Mul (x, s)
            one = Mul (a, t)
            two = Transpose (one)
            y = Exp (a)
            b = Mul (x, t)
            z = local.F (b)
            dead = local.F (x)
        }
        <domain: "local", opset_import: ["": 17, "local": 1]>
        F (p) => (q)
        {
            c = Constant <value = float {3}> ()
            m = Mul (p, c)
            q = Exp (m)
        }
    """)
    found = folded(model)
    assert operators(found)["Mul"] == 2
    x = np.ones((2, 3), np.float32)
    runs = [ReferenceEvaluator(one).run(None, {"x": x}) for one in (model, found)]
    for wanted, got in zip(*runs, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_a_fold_can_make_a_function_worth_writing_out():
    """What the first fold took away stood beside it: only a second one wrote it out."""
    text = """
        <ir_version: 10, opset_import: ["": 17, "local": 1]>
        g (float[2, 3] x) => (float[2, 3] y, float[2, 3] z)
        <float[3] s = {1, 2, 3}>
        {
            a = local.F (x)
            b = local.G (a)
            dead = local.G (a)
            y = Add (b, s)
            z = Mul (b, s)
        }
        <domain: "local", opset_import: ["": 17, "local": 1]>
        F (p) => (q)
        {
            c = Constant <value = float {3}> ()
            unread = Abs (p)
            m = Sub (p, c)
            q = Add (m, c)
        }
        <domain: "local", opset_import: ["": 17, "local": 1]>
        G (p) => (q)
        {
            c = Constant <value = float {3}> ()
            m = Sub (c, p)
            unread = Mul (m, c)
            q = Add (m, c)
        }
    """
    folded(parsed(text))


# ------------------------------------------------------------------- numbers and words


def test_a_numerator_does_not_vanish():
    """0.5 · 2⁻²⁴ is no number of float16: rounded to zero, all results were zero."""
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 21]>
        g (float16[2, 3] x) => (float16[?, ?] y) { d = Div (c, x)  y = Mul (d, s) }
    """)
    held = {"c": np.full((3,), 0.5, np.float16), "s": np.float16(2.0**-24)}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(one), name) for name, one in held.items()
    )
    assert operators(folded(model)) == operators(model)


def test_a_constant_that_a_loop_collects_takes_no_map_where_it_is_one():
    """The map behind the loop arrived at the constant operand of another reader."""
    model = parsed("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[2, 2] x) => (float[?] y, float[?, ?] z)
        <int64 n = {1}, bool yes = {1}, float s = {0.5}>
        {
            z, all = Loop (n, yes, x) <body = b (int64 i, bool on, float[2, 2] state)
                => (bool going, float[?, ?] next, float each) {
                c = Constant <value = float {-2}> ()
                next = Mul (x, c)
                going = Identity (on)
                each = Identity (c)
            }>
            y = Mul (all, s)
        }
    """)
    folded(model)


def test_a_clip_with_a_bound_of_no_elements():
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[2, 2] x) => (float[?, ?] y)
        <float[0] low = {}, float high = {6}> { a = Relu (x)  y = Clip (a, low, high) }
    """)
    assert operators(folded(model)) == operators(model)


def test_many_words_in_a_constant():
    """Their element type has no width."""
    words = ", ".join(["word"] * 400)
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 13]>
        g (float[2] x) => (float[?] y, string[?, ?] z) { z = Squeeze (w)  y = Relu (x) }
    """)
    tensor = helper.make_tensor("w", 8, [4, 100], words.encode().split(b", "))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    assert operators(folded(model)) == operators(model)


# ------------------------------------------------------------------- additions that round

MAGIC = {1: 12582912.0, 10: 1536.0, 11: 6755399441055744.0, 16: 192.0}
"""1.5 · 2ᵖ⁻¹ of p bits: added and taken away, it rounds to whole numbers."""
WORDS = {1: "float", 10: "float16", 11: "double", 16: "bfloat16"}
ROUNDING = (
    "a = Add (x, c)  b = Sub (a, c)  y = Relu (b)",
    "a = Sub (x, c)  b = Add (c, a)  y = Relu (b)",
    "a = Add (x, c)  t = Transpose <perm: ints = [1, 0]> (a)  b = Sub (t, c)  y = Relu (b)",
    "a = Add (x, c)  b = Clip (a, c)  d = Sub (b, c)  y = Relu (d)",
    "a = Sum (x, c)  b = Sub (a, c)  y = Relu (b)",
    "a = Gemm (x, w, c)  b = Sub (a, c)  y = Relu (b)",
    "q = Mul (x, s)  a = Add (q, c)  b = Sub (a, c)  d = Div (b, s)  y = Relu (d)",
    "q = Mul (x, s)  n = Neg (q)  a = Add (n, c)  b = Sub (c, a)  y = Relu (b)",
    "q = Mul (x, s)  a = Add (q, c)  b = Sub (a, c)  y = MatMul (b, w)",
    "q = Add (x, s)  a = Add (q, c)  b = Sub (a, c)  y = MatMul (b, w)",
)


@pytest.mark.parametrize("kind", MAGIC)
@pytest.mark.parametrize("body", ROUNDING)
def test_what_rounds_by_a_vast_addend_is_rounded_as_before(body, kind):
    """Both additions went, and the scale in front: a quantiser that has no operator for it."""
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 17]>
        g ({WORDS[kind]}[3, 3] x) => ({WORDS[kind]}[?, ?] y) {{ {body} }}
    """)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    held = {"c": MAGIC[kind], "s": 3.0, "w": np.arange(1.0, 10.0).reshape(3, 3)}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value).astype(dtype), name)
        for name, value in held.items()
        if name in body
    )
    x = np.array([[0.3, 1.4, 2.6], [-0.7, 3.2, 9.9], [0.1, 5.7, -2.2]]).astype(dtype)
    results = [ReferenceEvaluator(one).run(None, {"x": x}) for one in (model, folded(model))]
    np.testing.assert_array_equal(*(result[0].astype(float) for result in results))


@pytest.mark.parametrize("mean", [123.0, 1000.0, 60000.0])
def test_means_of_data_are_no_rounding(mean):
    model = parsed(f"""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[2, 3] x) => (float[?, ?] y)
        <float m = {{{mean}}}, float n = {{{mean + 1}}}>
        {{ a = Sub (x, m)  b = Add (a, n)  y = Relu (b) }}
    """)
    assert operators(folded(model)) == {"Add": 1, "Relu": 1}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_a_scale_that_is_taken_back_leaves_nothing_to_a_second_fold(seed, kind):
    """s · (1 / s) is 1 + 2e-16 in float64: a factor that was stored as 1."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(kind)
    held = {
        "c": rng.normal(size=2).astype(dtype),
        "s": rng.uniform(0.5, 2, (2, 1, 1)).astype(dtype),
    }
    element = helper.np_dtype_to_tensor_dtype(dtype)
    nodes = [
        helper.make_node("Add", ["x", "c"], ["a"], "add"),
        helper.make_node("Mul", ["s", "a"], ["b"], "mul"),
        helper.make_node("Div", ["b", "s"], ["y"], "div"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", element, [2, 2, 2])],
        [helper.make_tensor_value_info("y", element, [2, 2, 2])],
        [numpy_helper.from_array(array, name) for name, array in held.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    assert operators(folded(model)) == {"Add": 1}


def test_nodes_brought_out_of_a_branch_have_names_of_their_own():
    """ONNX Runtime refuses two nodes of one name in a graph; in two graphs it takes them."""

    def branch(kind: str) -> onnx.GraphProto:
        result = helper.make_tensor_value_info(f"{kind}_", onnx.TensorProto.FLOAT, [2])
        nodes = [helper.make_node(kind, ["y"], [f"{kind}_"], "same")]
        return helper.make_graph(nodes, kind, [], [result])

    ifs = [
        helper.make_node(
            "If", ["yes"], [f"z{place}"], f"if{place}",
            then_branch=branch(kind), else_branch=branch("Neg"),
        )
        for place, kind in enumerate(["Relu", "Sigmoid", "Tanh"])
    ]  # fmt: skip
    nodes = [helper.make_node("Exp", ["x"], ["y"], "same"), *ifs]
    faces = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])]
    results = [
        helper.make_tensor_value_info(f"z{place}", onnx.TensorProto.FLOAT, [2])
        for place in range(3)
    ]
    held = [numpy_helper.from_array(np.bool_(1), "yes")]
    graph = helper.make_graph(nodes, "g", faces, results, held)
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    names = [node.name for node in folded(model).graph.node]
    assert sorted(names) == ["same", "same_1", "same_2", "same_3"]


# ------------------------------------------------ where onnx's inference ends the process


TOO_SMALL = """
    <ir_version: 8, opset_import: ["": 13]>
    g (float[1, 2, 3, 3] x, bool wide) => (float[?, ?, ?, ?] y)
    <int64[1] start = {0}, int64[1] stop = {1}, int64[1] axis = {3},
     float[2, 1, 1] s = {2, 3}>
    {
        t = Mul (x, s)
        y = If (wide) <
            then_branch = then () => (float[?, ?, ?, ?] a)
            {
                c = Conv (t, w)
                a = Slice (c, start, stop, axis)
            },
            else_branch = other () => (float[?, ?, ?, ?] b) { b = Identity (t) }>
    }
"""
"""The window of the branch is larger than what it slides over: its result has sizes of -1."""
FLIPPED = """
    <ir_version: 8, opset_import: ["": 13]>
    g (float[-1, 3, 8, 8] x) => (float[-1, 2, 8, 8] y)
    <float[2, 3, 1, 1] w = {1, 2, 3, 4, 5, 6}, float[3, 1, 1] s = {2, 3, 4},
     int64[1] start = {-1}, int64[1] stop = {-9223372036854775807}, int64[1] axis = {AXIS},
     int64[1] step = {-1}>
    {
        f = Slice (x, start, stop, axis, step)
        t = Mul (f, s)
        y = Conv (t, w)
    }
"""


def declared(text: str) -> onnx.ModelProto:
    """Parse it, and write sizes of -1, as some exporters do for open ones (no parser does)."""
    model = onnx.parser.parse_model(text.replace("-1, ", "N, "))
    for info in (*model.graph.input, *model.graph.output):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param == "N":
                dim.dim_value = -1
    return model


def test_a_window_larger_than_what_it_slides_over_does_not_end_the_process():
    model = onnx.parser.parse_model(TOO_SMALL)
    weights = numpy_helper.from_array(np.ones((2, 2, 5, 5), np.float32), "w")
    model.graph.initializer.append(weights)
    onnx.checker.check_model(model)
    assert "If" in operators(folded(model))


@pytest.mark.parametrize("axis", [0, 1])
def test_a_slice_along_a_size_declared_negative_does_not_end_the_process(axis):
    """Along the channels nothing is negative, and the sizes behind it are known."""
    model = declared(FLIPPED.replace("AXIS", str(axis)))
    onnx.checker.check_model(model)
    assert sorted(operators(folded(model))) == ["Conv", "Slice"]
    read = opened(model)
    flipped = next(node for node in read.graph if node.op_type == "Slice").outputs[0]
    assert ShapeTable(read).dims(flipped)[1:] == (3, 8, 8)


def test_what_is_wrong_with_a_model_is_said_where_it_has_a_slice():
    """Strict inference is done in a child process too, whose words come back."""
    model = parsed("""
        <ir_version: 8, opset_import: ["": 13]>
        g (float[2, 4] x) => (float[?, ?] y)
        <int64[1] a = {0}, int64[1] b = {1}, int64[1] axis = {1}> { y = Slice (x, a, b, axis) }
    """)
    assert fault_of(model) == ""
    model.graph.node[0].input[3] = "b"
    model.graph.initializer[1].int64_data[0] = 7
    assert "axis value: 7" in fault_of(model)


def test_a_normalisation_of_a_constant_has_no_tail_that_moves():
    """Its result is a constant too: with what was written for it, the node itself went."""
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("InstanceNormalization", ["e", "s", "s"], ["n"], "norm"),
        helper.make_node("Mul", ["n", "e"], ["z"], "tail"),
    ]
    held = {"e": np.zeros((8, 4, 0, 8)), "s": np.array([1.07, 0.18, 0.11, 1.29])}
    kinds = {"x": [2, 3], "y": [2, 3], "z": [8, 4, 0, 8]}
    infos = {k: helper.make_tensor_value_info(k, 1, shape) for k, shape in kinds.items()}
    tensors = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in held.items()]
    graph = helper.make_graph(nodes, "g", [infos["x"]], [infos["y"], infos["z"]], tensors)
    opsets = [helper.make_opsetid("", 22)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=11)
    onnx.checker.check_model(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as users have it: a mean of nothing is a warning
        assert "Relu" in operators(folded(model, norms=True))


@pytest.mark.parametrize(
    "dead",
    [
        "p = MatMul (x, w) d = Add (p, c)",
        "p = MatMul (x, w) d = MatMul (p, v)",
        "p = Mul (x, k) d = Mul (p, m)",
        "p = MatMul (x, w) q = Add (p, c) d = Relu (q)",
    ],
)
def test_nothing_is_merged_into_what_nothing_reads(dead):
    """The Add went into the product in front, which nothing read and which left (51/336)."""
    model = parsed(f"""
        <ir_version: 8, opset_import: ["": 13]>
        g (float[2, 2] x) => (float[?, ?] y)
        <float[2, 2] w = {{1, 2, 3, 5}}, float[2, 2] c = {{1, 2, 3, 4}},
         float[2, 2] k = {{1, 2, 3, 4}}, float[2, 2] m = {{3, 1, 3, 2}},
         float[2, 2] v = {{3, 1, 3, 2}}>
        {{ {dead} y = Relu (x) }}
    """)
    assert operators(folded(model))["Relu"] >= 1


@pytest.mark.parametrize("is_test", [0, 1])
def test_a_batch_norm_of_a_constant_that_trains_is_not_computed_by_stored_statistics(is_test):
    """Before operator set 7 it trains unless is_test says otherwise (51/716)."""
    model = parsed(f"""
        <ir_version: 8, opset_import: ["": 6]>
        g (float[3, 2] x) => (float[?, ?] y)
        <float[3, 2] c = {{1, 2, 3, 5, 8, 13}}, float[2] s = {{1, 2}}, float[2] v = {{3, 4}}>
        {{
            n = BatchNormalization <is_test = {is_test}> (c, s, s, v, v)
            a = Sigmoid (n)
            y = Sum (a, x)
        }}
    """)
    assert ("BatchNormalization" in operators(folded(model))) == (not is_test)
