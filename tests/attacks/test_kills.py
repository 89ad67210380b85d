"""Killed at any moment: the old model or the new one, nothing left behind, no child alive."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnx
import pytest

from tests.attacks.dying import KINDS
from tests.small import conv_bn

ROOT = Path(__file__).parents[2]
MEMORY = Path("/dev/shm")
SLEEPS = "import time; time.sleep(60)"
KEEPS_THE_INTERPRETER = "import re; re.match('(a*)*b', 'a' * 60)"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.fixture
def base(tmp_path):
    """A folder in memory, if there is such: a disk makes every death ten times as slow."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


def stopped(how, base, **counts):
    """What writers leave that are stopped: see `tests.attacks.dying`."""
    words = [f"{kind}={count}" for kind, count in counts.items()]
    done = subprocess.run(
        [sys.executable, "-m", "tests.attacks.dying", how, str(base), *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def faults(told):
    return {kind: one["faults"] for kind, one in told.items() if one["faults"]}


@pytest.mark.parametrize("how", ["steps", "interrupts"])
def test_stopped_at_every_step_there_is_the_old_model_or_the_new_one(base, how):
    told = stopped(how, base, **dict.fromkeys(KINDS, 0))
    assert faults(told) == {}
    assert all(one["deaths"] > 10 for one in told.values())


def test_killed_at_random_moments_there_is_the_old_model_or_the_new_one(base):
    counts = (2, 2, 4, 4, 4, 4, 2, 2, 2, 2)
    told = stopped("random", base, **dict(zip(KINDS, counts, strict=True)))
    assert faults(told) == {}
    assert sum(one["deaths"] for one in told.values()) > 5


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_two_hundred_random_moments(tmp_path, kind):
    told = stopped("random", tmp_path, **{kind: 200})
    assert told[kind]["faults"] == []
    assert told[kind]["deaths"] > 100


def children_of(process):
    """Numbers of all processes below one."""
    found = []
    for task in Path(f"/proc/{process}/task").iterdir():
        for word in (task / "children").read_text().split():
            found += [int(word), *children_of(word)]
    return found


def awaited(what, seconds=60.0):
    """Wait until something is true; return it."""
    until = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < until:
        time.sleep(0.02)
    return found


def is_gone(process):
    """Whether a process is no more, or waits only for whoever asks how it ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def listening():
    """Hear of SIGHUP also where the tests themselves run under nohup, which ignores it."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def bnfold(*arguments, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "bnfold", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listening,
        **more,
    )


@on_linux
def test_signals_leave_no_child_and_no_file(tmp_path):
    """All at once, for a command takes seconds until it has a child."""
    pytest.importorskip("onnxruntime")
    codes = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -9}
    begun = {}
    for number in codes:
        folder = tmp_path / number.name
        (folder / "tmp").mkdir(parents=True)
        onnx.save(conv_bn(), folder / "m.onnx")
        words = ("m.onnx", "m.onnx", "--search", "60", "--report", "r.html")
        begun[number] = bnfold("verify", *words, cwd=folder, env=variables(folder))
    for number, process in begun.items():
        children = awaited(lambda one=process: one.poll() is not None or children_of(one.pid))
        assert children is not True, process.communicate()[1]
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == codes[number], said
        assert "Traceback" not in said
        assert awaited(lambda of=children: all(map(is_gone, of))), number
        folder = tmp_path / number.name
        assert sorted(entry.name for entry in folder.iterdir()) == ["m.onnx", "tmp"]
        assert any((folder / "tmp").iterdir()) is (number is signal.SIGKILL)
    again = bnfold(
        "fold", "m.onnx", "-o", "o.onnx", "--no-verify", cwd=folder, env=variables(folder)
    )
    assert again.wait() == 0, again.communicate()[1]
    again.communicate()
    assert list((folder / "tmp").iterdir()) == []


def variables(folder):
    return {**os.environ, "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(ROOT)}


@on_linux
@pytest.mark.parametrize("work", [SLEEPS, KEEPS_THE_INTERPRETER], ids=["sleeps", "computes"])
def test_a_child_ends_when_its_parent_is_killed(work):
    program = f"from bnfold.runtime.children import run_child; run_child(['-c', {work!r}], 60)"
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    (child,) = awaited(lambda: children_of(parent.pid))
    # Until it does its work: at first it is a copy of its parent, then it starts up.
    assert awaited(lambda: b"lifeline" in Path(f"/proc/{child}/cmdline").read_bytes())
    time.sleep(0.2)
    parent.kill()
    parent.wait()
    assert awaited(lambda: is_gone(child), 10)


def test_a_child_ends_when_its_pipe_closes_whatever_the_kernel_does():
    from bnfold.runtime import lifeline

    child = subprocess.Popen(
        [sys.executable, "-P", lifeline.__file__, "-c", f"print(1, flush=True); {SLEEPS}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout.readline() == b"1\n"
    assert child.poll() is None
    child.stdin.close()
    assert child.wait(timeout=10) == 1
    child.stdout.close()


def test_a_child_leaves_nothing_at_home_or_among_temporary_files(tmp_path, monkeypatch):
    """ONNX Runtime 1.32 keeps a database and a number of the machine there."""
    pytest.importorskip("onnxruntime")
    from bnfold.runtime.children import Fate, run_child

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name in ("HOME", "TMPDIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert run_child(["-c", "import onnxruntime"], 60).fate is Fate.ENDED
    assert [path.name for path in tmp_path.rglob("*")] == ["HOME", "TMPDIR"]


def test_a_child_that_is_started_by_hand_does_its_work():
    from bnfold.runtime import lifeline

    command = [sys.executable, "-P", lifeline.__file__, "-c", "import sys; print(sys.argv)"]
    done = subprocess.run(
        [*command, "a"], stdin=subprocess.DEVNULL, capture_output=True, check=True
    )
    assert done.stdout == b"['-c', 'a']\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_somebody_ignores_stays_ignored(number):
    from bnfold.cli.signals import Ending

    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Ending().like_ctrl_c():
            os.kill(os.getpid(), number)
    finally:
        signal.signal(number, before)


def test_a_second_signal_does_not_disturb_the_tidying_up():
    from bnfold.cli.signals import Ending

    ending = Ending()
    with ending.like_ctrl_c():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
    assert ending.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
