"""Checkpoint and log of a training, in one folder; a file appears whole or not at all."""

from __future__ import annotations

import io
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from bnfold.errors import DataError, OutputError, UsageError
from bnfold.exporting.sources import unreadable
from models.training import Training

_FORMAT: Final = 1
_CHECKPOINT: Final = "checkpoint.pt"
_LOG: Final = "log.jsonl"


def exists(folder: Path) -> bool:
    """Return whether there is a checkpoint in the folder."""
    return (folder / _CHECKPOINT).exists()


def save(training: Training, folder: Path) -> None:
    """Write the checkpoint, then the log: one JSON object per epoch.

    Raises:
        OutputError: If they cannot be written; the last ones are still there then.
    """
    state = {
        "format": _FORMAT,
        "settings": asdict(training.settings),
        "state": training.state(),
    }
    stream = io.BytesIO()
    torch.save(state, stream)
    log = "".join(json.dumps(asdict(epoch)) + "\n" for epoch in training.history)
    write_whole(folder / _CHECKPOINT, stream.getvalue())
    write_whole(folder / _LOG, log.encode())


def resume(training: Training, folder: Path) -> None:
    """Go on from the checkpoint in the folder.

    Raises:
        DataError: If it cannot be read.
        UsageError: If it comes from other settings.
    """
    path = folder / _CHECKPOINT
    saved = _read(path)
    differing = [
        f"{name} is {saved['settings'].get(name)} in it, and {wanted} here"
        for name, wanted in asdict(training.settings).items()
        if saved["settings"].get(name) != wanted
    ]
    if differing:
        raise UsageError(
            "the checkpoint comes from a training with other settings",
            where=str(path),
            why="; ".join(differing),
            remedy="repeat its settings, name another --output, or --overwrite it",
        )
    try:
        training.restore(saved["state"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _unusable(path, f"{type(error).__name__}: {error}") from error
    save(training, folder)  # the log may be one epoch behind


def _read(path: Path) -> dict[str, Any]:
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler meets what is no pickle with errors of any kind
        raise _unusable(path, unreadable(error)) from error
    if not isinstance(saved, dict) or "format" not in saved:
        raise _unusable(path, "another program wrote it")
    if saved["format"] != _FORMAT:
        raise _unusable(path, f"its format is {saved['format']}, not {_FORMAT}")
    for part in ("settings", "state"):
        if not isinstance(saved.get(part), dict):
            raise _unusable(path, f"it has no {part}")
    return saved


def _unusable(path: Path, why: str) -> DataError:
    return DataError(
        "the checkpoint cannot be used",
        where=str(path),
        why=why.splitlines()[0],
        remedy="name another --output, or start anew with --overwrite",
    )


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside its place, flush it to disk and rename it.

    Raises:
        OutputError: If that cannot be done; nothing is left behind then.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".bnfold-", dir=path.parent) as folder:
            written = Path(folder) / path.name
            with written.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            written.replace(path)
    except OSError as error:
        raise OutputError(
            "cannot write the file",
            where=str(path),
            why=error.strerror or str(error),
            remedy="check that the folder is writable and has space left",
        ) from error
