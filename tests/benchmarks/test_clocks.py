"""The clock of a device, where the device is made up."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from benchmarks.gpu import clocks  # noqa: E402  # it needs torch


class _Device:
    """A stream that sleeps, and a CPU that takes `launch_ms` for each call."""

    def __init__(self) -> None:
        self.cpu_ms = 0.0
        self.ends_ms = 0.0
        self.launch_ms = 1.0

    def sleep(self, cycles: int) -> None:
        self.run(cycles / 1e6)

    def run(self, ms: float) -> None:
        self.ends_ms = max(self.ends_ms, self.cpu_ms) + ms

    def call(self, ms: float) -> None:
        self.cpu_ms += self.launch_ms
        self.run(ms)

    def synchronize(self) -> None:
        self.cpu_ms = max(self.cpu_ms, self.ends_ms)

    def event(self, **_options: bool) -> _Event:
        return _Event(self)


class _Event:
    def __init__(self, device: _Device) -> None:
        self.device = device
        self.at_ms = 0.0

    def record(self) -> None:
        self.at_ms = max(self.device.ends_ms, self.device.cpu_ms)

    def query(self) -> bool:
        return self.device.cpu_ms >= self.at_ms

    def synchronize(self) -> None:
        self.device.synchronize()

    def elapsed_time(self, other: _Event) -> float:
        return other.at_ms - self.at_ms


@pytest.fixture
def device(monkeypatch) -> _Device:
    made = _Device()
    monkeypatch.setattr(torch.cuda, "Event", made.event)
    monkeypatch.setattr(torch.cuda, "_sleep", made.sleep)
    monkeypatch.setattr(torch.cuda, "synchronize", made.synchronize)
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: made.cpu_ms / 1e3)
    return made


def test_a_call_from_python_includes_what_the_cpu_takes(device):
    clock = clocks.clock_of("cuda")
    assert clock.called(lambda: device.call(0.25)) == pytest.approx(1.25)


def test_queued_calls_take_what_the_device_takes(device):
    clock = clocks.clock_of("cuda")
    calls = [lambda: device.call(0.25)] * 8
    for _ in range(3):
        assert clock.queued("a", calls) == pytest.approx(0.25)
    assert clock.too_soon == 0


def test_a_sleep_that_was_too_short_is_tried_again_longer(device):
    clock = clocks.clock_of("cuda")
    device.launch_ms = 5.0
    assert clock.queued("slow", [lambda: device.call(0.25)] * 4) == pytest.approx(0.25)
    assert clock.too_soon == 0


def test_what_waits_for_the_device_is_counted(device):
    clock = clocks.clock_of("cuda")

    def waits() -> None:
        device.call(0.25)
        device.synchronize()

    clock.queued("waits", [waits] * 4)
    assert clock.too_soon == 1


def test_a_dry_run_has_a_clock_too():
    clock = clocks.clock_of("cpu")
    assert clock.called(lambda: sum(range(100))) >= 0
    assert clock.queued("a", [lambda: None] * 2) >= 0
