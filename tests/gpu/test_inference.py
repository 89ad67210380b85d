"""What runs on a GPU: measuring and judging on ONNX Runtime's CUDA provider."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bnfold
from bnfold.records import BenchReport, Ending
from tests.small import conv_bn, two_layers

pytestmark = pytest.mark.gpu

_CUDA = "CUDAExecutionProvider"
_SHORT_S = 1.0
"""What is tested is where nodes run and what is told: a process of each kind is enough."""


def _measured(model: onnx.ModelProto, cuda: str, **options: object) -> BenchReport:
    return bnfold.benchmark(
        model,
        arms=("original", "folded"),
        provider=cuda,
        batch=2,
        max_time_s=_SHORT_S,
        **options,
    )


@pytest.fixture(scope="module")
def report(cuda) -> BenchReport:
    return _measured(conv_bn(), cuda)


def _is_whole(report: BenchReport) -> None:
    (case,) = report.cases
    assert case.failures == {}
    assert case.ending in (Ending.PRECISE, Ending.OUT_OF_TIME)
    assert {arm.provider for arm in report.arms} == {_CUDA}
    assert {one.arm for one in case.latencies} == {arm.name for arm in report.arms}
    assert all(one.p50_ms > 0 for one in case.latencies)
    assert max(case.outputs_differ.values()) < 1e-2


def _spoiled(model: onnx.ModelProto, name: str, factor: float) -> onnx.ModelProto:
    """The model with one channel of a weight multiplied."""
    spoiled = onnx.ModelProto()
    spoiled.CopyFrom(model)
    (tensor,) = [one for one in spoiled.graph.initializer if one.name == name]
    weight = numpy_helper.to_array(tensor).copy()
    weight[1] *= factor
    tensor.CopyFrom(numpy_helper.from_array(weight, name))
    return spoiled


def _weight_of_conv(model: onnx.ModelProto) -> str:
    (conv,) = [node for node in model.graph.node if node.op_type == "Conv"]
    return conv.input[1]


def test_a_benchmark_places_every_node_on_the_gpu(report):
    _is_whole(report)
    assert {graph.arm for graph in report.graphs} == {"original", "folded"}
    for graph in report.graphs:
        assert graph.elsewhere == (), graph.arm
        assert sum(graph.nodes.values()) > 0


def test_a_benchmark_reads_the_device(report):
    assert report.machine.device
    assert report.machine.device != "unknown GPU"
    assert report.machine.readings
    for reading in report.machine.readings:
        assert reading.sm_clock_mhz is None or reading.sm_clock_mhz > 0
        assert reading.temperature_c is None or 0 < reading.temperature_c < 120
        assert reading.used_bytes is None or reading.used_bytes > 0
    assert any(reading.sm_clock_mhz for reading in report.machine.readings)


def test_a_benchmark_tells_the_memory_on_the_device(report):
    assert {start.arm for start in report.starts} == {"original", "folded"}
    assert all(start.session_ms > 0 and start.first_run_ms > 0 for start in report.starts)
    assert all(start.device_bytes is not None for start in report.starts)


def test_a_benchmark_replays_a_cuda_graph(cuda):
    found = _measured(conv_bn(), cuda, cuda_graph=True)
    _is_whole(found)
    assert found.settings.cuda_graph
    assert all(arm.provider_options["enable_cuda_graph"] == "1" for arm in found.arms)


def test_a_benchmark_replays_a_cuda_graph_for_each_batch_size(cuda):
    found = bnfold.benchmark(
        conv_bn(),
        arms=("original", "folded"),
        provider=cuda,
        batch=(1, 2, 5),
        cuda_graph=True,
        details=False,
        max_time_s=_SHORT_S,
    )
    assert [case.batch for case in found.cases] == [1, 2, 5]
    for case in found.cases:
        assert case.failures == {}
        assert {one.arm for one in case.latencies} == {"original", "again", "folded"}
        assert max(case.outputs_differ.values()) < 1e-2
    assert found.starts == found.graphs == ()


def test_a_benchmark_in_float16(cuda):
    found = _measured(two_layers(), cuda, dtype="float16")
    _is_whole(found)
    assert found.settings.dtype == "float16"


def test_an_honest_fold_passes_on_the_gpu(cuda):
    model = conv_bn()
    folded = bnfold.fold(model, verify=False).to_proto()
    found = bnfold.verify(model, folded, provider=cuda)
    assert found.passed, found.why


def test_a_spoiled_fold_is_convicted_on_the_gpu(cuda):
    model = conv_bn()
    folded = bnfold.fold(model, verify=False).to_proto()
    spoiled = _spoiled(folded, _weight_of_conv(folded), 1.01)
    found = bnfold.verify(model, spoiled, provider=cuda)
    assert not found.passed
    assert found.why


def test_the_gpu_and_the_cpu_agree(cuda):
    model = conv_bn()
    found = bnfold.verify(model, model, provider="cpu", folded_provider=cuda)
    assert found.passed, found.why
    assert all(np.isfinite(one.ratio) for one in found.outputs)
