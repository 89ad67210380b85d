"""Triton's interpreter, without what it does again for nothing.

Before it runs a kernel, it replaces the functions of `triton.language`, of which it asks every
member for that, and does so again whenever the kernel calls a function of its own: a third of
its time. What the first call of a function has replaced stays so until the kernel ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from triton.runtime import interpreter


def patch_once_a_launch() -> None:
    """Let calls of a function within a launch replace what it needs the first time only."""
    launch, patch = interpreter.GridExecutor.__call__, interpreter._patch_lang
    patched: set[Callable[..., Any]] = set()

    def launch_anew(self: Any, *args: Any, **kwargs: Any) -> None:
        patched.clear()  # a launch puts back what it has replaced
        launch(self, *args, **kwargs)

    def patch_once(fn: Callable[..., Any]) -> Any:
        if fn in patched:
            return interpreter._LangPatchScope()
        patched.add(fn)
        return patch(fn)

    interpreter.GridExecutor.__call__ = launch_anew
    interpreter._patch_lang = patch_once
