"""How a child process ends when something went wrong: in one line, and by an exit code."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import Final

NO_SPACE: Final = 74
"""Exit code of a child that could not write its results (EX_IOERR of sysexits.h)."""
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run_and_tell(main: Callable[[str], None]) -> None:
    """Run the main function of a child on its argument; say what it raises on stderr."""
    try:
        main(sys.argv[1])
    except OSError as error:
        _say(error)
        sys.exit(NO_SPACE if error.errno in _NO_SPACE else 1)
    except Exception as error:  # noqa: BLE001  told to the parent, without a traceback
        _say(error)
        sys.exit(1)


def _say(error: Exception) -> None:
    sys.stderr.write(f"{type(error).__name__}: {error}".splitlines()[0])
