"""What the writing of a model with a data file has begun, so that it can be ended or undone.

The note lies in the scratch folder beside the new files. It is not needed to read the model:
that is old or new at every moment. It says which data file is left over.
"""

from __future__ import annotations

import contextlib
import json
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bnfold.files.mentions import is_named_in

NEW_MODEL: Final = "model"
"""Name of the new ``.onnx`` file in the scratch folder, until it is renamed."""

_NOTE: Final = "journal"


@dataclass(frozen=True, slots=True)
class Journal:
    """Data files, by name and inode: what has another inode by then is somebody else's.

    Attributes:
        placed: The new model's; left over if the new model never came to its place.
        replaced: The old model's; left over as soon as it did.
    """

    placed: dict[str, int]
    replaced: dict[str, int]

    def write(self, scratch: Path) -> None:
        """Note it, before anything is done."""
        (scratch / _NOTE).write_text(json.dumps(asdict(self)), encoding="utf-8")


def is_begun(scratch: Path) -> bool:
    """Whether something was begun there, and neither ended nor undone."""
    return (scratch / _NOTE).exists()


def settle(scratch: Path) -> None:
    """End what was begun: remove the data files that no model reads any more.

    The same for a writer that is done, one that failed, and one that was killed. A file that
    anything else in the folder names stays.
    """
    try:
        note = json.loads((scratch / _NOTE).read_text(encoding="utf-8"))
        journal = Journal(dict(note["placed"]), dict(note["replaced"]))
    except (OSError, ValueError, TypeError, KeyError):
        return  # nothing was begun: a note is whole before the first step
    undone = (scratch / NEW_MODEL).exists()
    for name, inode in (journal.placed if undone else journal.replaced).items():
        _remove_unread(scratch.parent / Path(name).name, inode)
    (scratch / _NOTE).unlink(missing_ok=True)


def _remove_unread(path: Path, inode: int) -> None:
    with contextlib.suppress(OSError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_ino != inode:
            return
        if not is_named_in(path.parent, path.name):
            path.unlink()
