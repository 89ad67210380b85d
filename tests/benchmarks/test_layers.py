"""How a layer is measured where something goes wrong, on a CPU."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from benchmarks.gpu import layers, rivals  # noqa: E402  # they need torch
from benchmarks.gpu.clocks import HostClock  # noqa: E402  # as above
from benchmarks.gpu.layers import Arm, DeviceLostError  # noqa: E402  # as above
from benchmarks.gpu.training_plan import Layer  # noqa: E402  # as above

_LAYER = Layer(2, 8, 6, "float32", channels_last=True, kind="bn")
_BUILD = rivals.build


def _measured(**lacking: str) -> tuple[dict, list[str]]:
    doing: list[str] = []
    row = layers.measure(_LAYER, "cpu", lacking, doing.append)
    return row, doing


def _spoil(monkeypatch, arm: str, error: Exception, after: int = 0) -> None:
    """Let an arm fail once it was called so often."""

    class Spoiled(torch.nn.BatchNorm2d):
        calls = 0

        def forward(self, x, residual=None):  # noqa: ARG002  # as all
            Spoiled.calls += 1
            if Spoiled.calls > after:
                raise error
            return super().forward(x)

    def build(name, layer, device):
        return Spoiled(layer.channels) if name == arm else _BUILD(name, layer, device)

    monkeypatch.setattr(rivals, "build", build)


def test_every_arm_has_every_quantity():
    row, doing = _measured()
    assert doing == ["ours", "eager", "again", "ours", "apex", "inplace_abn", "turns"]
    assert set(row["medians_ms"]) == {"eager", "again", "ours"}
    wanted = {f"{part} {way}" for part in layers._PARTS for way in ("called", "queued")}
    assert all(set(one) == wanted for one in row["medians_ms"].values())
    assert set(row["ratios"]) == {"eager / ours", "again / eager"}
    assert row["correct"] is True
    assert row["failures"] == {}
    assert row["too_soon"] == 0


@pytest.mark.parametrize("after", [0, 8], ids=["at once", "in the turns"])
def test_a_rival_without_memory_costs_no_other_arm_its_turn(monkeypatch, after):
    _spoil(monkeypatch, "eager", torch.OutOfMemoryError("out of memory"), after)
    row, _ = _measured()
    assert row["failures"] == {"eager": "OutOfMemoryError: out of memory"}
    assert set(row["medians_ms"]) == {"again", "ours"}
    assert row["ratios"] == {}
    assert "forward" in row["of_copy"]["ours"]


def test_a_failure_of_ours_leaves_the_others(monkeypatch):
    _spoil(monkeypatch, "ours", RuntimeError("no kernel"))
    row, _ = _measured()
    assert row["failures"] == {"ours": "RuntimeError: no kernel"}
    assert "correct" not in row
    assert set(row["medians_ms"]) == {"eager", "again"}


def test_a_check_that_fails_is_no_failure_of_ours(monkeypatch):
    def errors(*_):
        raise torch.OutOfMemoryError("float64 is large")

    monkeypatch.setattr(layers.correct, "errors", errors)
    row, _ = _measured()
    assert row["unchecked"] == "OutOfMemoryError: float64 is large"
    assert "correct" not in row
    assert row["failures"] == {}
    assert "ours" in row["medians_ms"]


def test_an_arm_that_cost_a_worker_is_left_out():
    row, doing = _measured(ours="took too long, and was ended")
    assert "ours" not in doing
    assert row["failures"] == {"ours": "took too long, and was ended"}
    assert set(row["medians_ms"]) == {"eager", "again"}


def test_a_device_that_is_lost_ends_it_and_names_the_arm(monkeypatch):
    def synchronize():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    failures: dict[str, str] = {}
    with pytest.raises(DeviceLostError, match="RuntimeError: illegal") as caught:
        layers.fail("ours", RuntimeError("illegal"), failures)
    assert caught.value.arm == "ours"


def test_backward_is_timed_without_its_forward(monkeypatch):
    order = []
    at = layers.made_inputs(_LAYER, "cpu")[0]
    arm = Arm("eager", rivals.build("eager", _LAYER, "cpu"), [at], 1, HostClock())
    for name in ("forward", "backward"):
        work = getattr(Arm, name)
        monkeypatch.setattr(
            Arm, name, lambda *a, name=name, work=work: order.append(name) or work(*a)
        )
    (timed,) = arm._works("backward", [at])
    order.append("clock")
    timed()
    assert order == ["forward", "clock", "backward"]
