"""Runs commands of bnfold in forks of itself, and watches what they take.

``python -m tests.attacks.server`` has bnfold and what it loads imported already, so a command
costs a fork in place of a start. It reads one request per line on stdin (JSON: ``argv``,
``folder``, ``seconds``, ``address_space``, ``file_size``, ``cwd``, ``variables``) and answers
with one line on stdout.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

PRELOADED = (
    "bnfold.cli.fold",
    "bnfold.cli.verify",
    "bnfold.cli.inspect",
    "bnfold.cli.bench",
    "bnfold.checked",
    "bnfold.verified",
    "bnfold.benchmarked",
    "bnfold.evidence",
    "bnfold.evidence.proof",
    "bnfold.evidence.verification",
    "bnfold.folding.api",
    "bnfold.report.to_json",
    "bnfold.report.to_terminal",
    "bnfold.report.to_text",
    "bnfold.report.verify_text",
    "bnfold.report.bench_text",
    "onnx.reference",
    "onnx.shape_inference",
)
_STEP_S = 0.01
_SCALE = resource.getpagesize()


def resident_bytes(pids: set[int]) -> int:
    """The memory that processes have now; those that are gone have none."""
    found = 0
    for pid in pids:
        try:
            pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
            found += (int(pages[1]) - int(pages[2])) * _SCALE  # without what files back
        except (OSError, IndexError, ValueError):
            continue
    return found


def tree_of(root: int) -> set[int]:
    """A process and all that came from it: they share its group or its session."""
    found = {root}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) in found or root in (int(fields[2]), int(fields[3])):
            found.add(int(entry.name))
    return found


def carry_out(request: dict[str, Any]) -> dict[str, Any]:
    """Fork, run, watch, and end whatever is left."""
    folder = Path(request["folder"])
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _be_the_command(request, folder)
    peak, status, timed_out, turn = 0, None, False, 0
    while status is None:
        done, code = os.waitpid(pid, os.WNOHANG)
        if done:
            status = code
            break
        turn += 1
        peak = max(peak, resident_bytes(tree_of(pid) if turn % 5 == 0 else {pid}))
        if time.monotonic() - start > request["seconds"]:
            timed_out = True
            for one in tree_of(pid):
                os.kill(one, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
        time.sleep(_STEP_S)
    left = tree_of(pid) - {pid}
    for one in left:
        os.kill(one, signal.SIGKILL)
    return {
        "exit_code": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - start,
        "peak_bytes": peak,
        "timed_out": timed_out,
        "left": len(left),
    }


def _be_the_command(request: dict[str, Any], folder: Path) -> None:
    os.setsid()
    os.chdir(request.get("cwd") or folder)
    os.environ.update(request.get("variables") or {})
    for stream, name in ((1, "stdout"), (2, "stderr")):
        target = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, stream)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    limit = request["address_space"]
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if request.get("file_size") is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_size"],) * 2)
    sys.argv = ["bnfold", *request["argv"]]
    code = 0
    try:
        from bnfold.cli.main import main

        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:  # noqa: BLE001  whatever gets out of the command is what is looked for
        import traceback

        traceback.print_exc()
        code = 70
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Answer requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    for name in PRELOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        answers.write(json.dumps(carry_out(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
