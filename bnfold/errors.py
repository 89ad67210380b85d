"""What bnfold says when it cannot do what was asked: what, where, why and what next."""

from __future__ import annotations

from bnfold.safe_text import Shown, shown_lines


class BnfoldError(Exception):
    """Base of every error raised on purpose; its text is meant for the user.

    The text is safe to print, though it names what a model holds; the attributes are exact.

    Args:
        what: What could not be done, in one clause.
        where: The file, node or tensor it happened at.
        why: The fact that stopped it.
        remedy: What the user can do next.
    """

    exit_code = 3

    def __init__(self, what: str, *, where: str = "", why: str = "", remedy: str = "") -> None:
        self.what = what
        self.where = where
        self.why = why
        self.remedy = remedy
        super().__init__(what)

    def __str__(self) -> str:
        return self.shown()

    def shown(self, before: str = "") -> Shown:
        """Return the text in lines, none of them made by a name; ``before`` begins it."""
        parts = [f"{before}{self.what}"]
        if self.where:
            parts.append(f"  where: {self.where}")
        if self.why:
            parts.append(f"  why:   {self.why}")
        if self.remedy:
            parts.append(f"  next:  {self.remedy}")
        return shown_lines(parts)


class ModelError(BnfoldError):
    """The model cannot be used: unreadable, invalid, or its numbers make no sense."""


class DataError(BnfoldError):
    """Inputs or labels that the user gave cannot be read, or do not fit the model."""


class OutputError(BnfoldError):
    """The result cannot be written where it was asked for."""


def refused_by_disk(error: OSError) -> OutputError:
    """Return what to say of a file on the way that cannot be written: mostly, a full disk."""
    import tempfile  # what only an error needs

    return OutputError(
        "cannot write a file that is needed on the way",
        where=str(error.filename or tempfile.gettempdir()),
        why=error.strerror or str(error),
        remedy="free some space, or set TMPDIR to a folder that is writable and has some",
    )


class UsageError(BnfoldError):
    """The call itself makes no sense."""

    exit_code = 2


class MissingDependencyError(BnfoldError):
    """A package that this command needs is not installed; the remedy names the extra."""

    exit_code = 4


class CheckFailedError(BnfoldError):
    """The folded model was found to compute another function."""

    exit_code = 1


class RequirementError(BnfoldError):
    """What the user required of the result does not hold."""

    exit_code = 1
