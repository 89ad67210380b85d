"""Children of bnfold as forks of one process that has loaded what they load.

A check by ONNX Runtime is done in a process of its own, which loads numpy and the runtime for
a third of a second; the tests need hundreds of them. `Forks` stands in for `subprocess` in
`bnfold.runtime.children`: the rest of how a child is started and watched stays the product's.
Tests whose subject are the processes start real ones: see `real_children` in `conftest.py`.

``python -m tests.forks`` reads one request a line (JSON) and answers with the number of the
fork, then with how it ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any, Final

from bnfold.runtime import children

PRELOADED: Final = ("bnfold.runtime.child", "bnfold.measurement.worker")
_SET_DEATH_SIGNAL: Final = 1
_AT_THE_START: Final = ("PYTHON", "LD_", "ORT_", "OMP_", "OPENBLAS_", "MKL_", "HOME", "XDG_")
"""Variables that are read when Python or a library is loaded: of others a fork is told."""
_ROOT: Final = Path(__file__).parents[1]


def _early(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: v for name, v in variables.items() if name.startswith(_AT_THE_START)}


class Forks:
    """What `bnfold.runtime.children` needs of `subprocess`."""

    TimeoutExpired = subprocess.TimeoutExpired

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._variables = children._environment(Path(tempfile.gettempdir()))
        self.count = 0

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float,
        env: Mapping[str, str],
        **options: Any,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a module of `PRELOADED` in a fork, anything else as `subprocess.run` does.

        A process may end with the thread that started it: it is to be the one that lasts.
        """
        _, _, _, kind, what, *arguments = command
        is_ours = kind == "-m" and what in PRELOADED
        is_alike = _early(env) == _early(self._variables)
        if not is_ours or not is_alike or current_thread() is not main_thread():
            return subprocess.run(command, timeout=timeout, env=env, **options)
        if self._server is None:
            self._begin()
        self.count += 1
        with tempfile.TemporaryDirectory(prefix="fork-") as folder:
            request = {
                "what": what,
                "arguments": arguments,
                "variables": dict(env),
                "cwd": str(Path.cwd()),
                "folder": folder,
            }
            files = [Path(folder) / name for name in ("stdout", "stderr")]
            for file in files:
                file.touch()  # a fork may be killed before it could
            code = self._asked(request, timeout)
            said = [file.read_bytes() for file in files]
        if code is None:
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, code, *said)

    def _asked(self, request: Mapping[str, Any], timeout: float) -> int | None:
        """Return the exit code, or None if it took too long; the fork is gone in any case."""
        assert self._server is not None
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        pid, ended = int(self._server.stdout.readline()), False
        try:
            ended = bool(select.select([self._server.stdout], [], [], timeout)[0])
        finally:  # also after Ctrl-C
            if not ended:
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(pid, signal.SIGKILL)
            code = int(self._server.stdout.readline())
        return code if ended else None

    def _begin(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.forks"],
            cwd=_ROOT,
            env=self._variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            assert self._server.stdin is not None
            assert self._server.stdout is not None
            self._server.stdin.close()
            self._server.wait(60)
            self._server.stdout.close()


def _die_with_the_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)


def _be_the_child(request: Mapping[str, Any]) -> None:
    code = 1
    try:
        _die_with_the_parent()
        os.setsid()
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["variables"])
        tempfile.tempdir = None
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream, name in ((1, "stdout"), (2, "stderr")):
            path = os.path.join(request["folder"], name)  # noqa: PTH118
            os.dup2(os.open(path, os.O_WRONLY), stream)
        what = request["what"]
        sys.argv = [what, *request["arguments"]]
        sys.modules.pop(what, None)
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        if isinstance(ended.code, str):
            sys.stderr.write(ended.code)
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001  a fork must not go on with what its parent does
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Answer requests until stdin ends."""
    _die_with_the_parent()
    for name in PRELOADED:
        importlib.import_module(name)
    answers = os.dup(1)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _be_the_child(json.loads(line))
        os.write(answers, b"%d\n" % pid)
        os.write(answers, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
