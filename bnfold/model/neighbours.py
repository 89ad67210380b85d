"""The files that a model may read its data from: those in its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from bnfold.errors import ModelError
from bnfold.model.regular import UnreadableError, size_of


@dataclass(frozen=True, slots=True)
class Region:
    """Where the data of a tensor lies.

    Attributes:
        location: The path of the file, relative to the model.
        offset: In bytes.
        length: In bytes; None if it is not said.
    """

    location: str
    offset: int = 0
    length: int | None = None


class Neighbours:
    """The files of one model's folder; each is looked at once.

    A file counts if its name lies in the folder, and what the name leads to lies there too, or
    in the folder of the model's own file where links lead to both: caches of model hubs keep
    files under other names elsewhere, and a folder of links to them.
    """

    def __init__(self, model: Path) -> None:
        """Take note of the folder.

        Args:
            model: The ``.onnx`` file.
        """
        self.folder = Path(os.path.abspath(model)).parent  # noqa: PTH100  links stay links
        roots = (Path(os.path.realpath(self.folder)), Path(os.path.realpath(model)).parent)
        self._roots = tuple(dict.fromkeys(roots))
        self._files: dict[str, tuple[Path, int]] = {}

    def file(self, location: str) -> Path:
        """Return the file that a checked location leads to, without links."""
        return self._files[location][0]

    def sizes(self) -> Iterator[tuple[Path, int]]:
        """Yield every file that was checked, and its size in bytes."""
        yield from dict(self._files.values()).items()

    def check(self, region: Region, needed_bytes: int, where: str) -> None:
        """Find the file of a region, and see that all of the region is there.

        Raises:
            ModelError: If the location leads out of the folder, or there is no such file, or
                it is no regular file or too short.
        """
        if region.location not in self._files:
            self._files[region.location] = self._found(region.location, where)
        _, size_bytes = self._files[region.location]
        end = region.offset + needed_bytes
        if end > size_bytes:
            raise ModelError(
                "the external data of the model is cut off",
                where=where,
                why=f"{str(self.folder / region.location)!r} has {size_bytes} bytes, {end} are"
                f" needed: {needed_bytes} from {region.offset} on",
                remedy="copy the data file again, completely",
            )

    def bytes_of(self, region: Region, needed_bytes: int) -> bytes:
        """Return the bytes of a region that has been checked."""
        with self.file(region.location).open("rb") as file:
            file.seek(region.offset)
            return file.read(needed_bytes)

    def _found(self, location: str, where: str) -> tuple[Path, int]:
        if not location or "\0" in location:
            raise _missing(where, f"its location is {location!r}")
        self._check_inside(location, where)
        path = self.folder / location
        try:
            return Path(os.path.realpath(path)), size_of(path)
        except UnreadableError as error:
            why = f"{str(path)!r} cannot be read: {error}"
            if not os.path.lexists(path):
                raise _missing(where, f"there is no file {str(path)!r}") from error
            raise ModelError(
                "the external data of the model is no file that can be read",
                where=where,
                why=why,
                remedy="put a regular file there: copy the data file beside the .onnx file",
            ) from error

    def _check_inside(self, location: str, where: str) -> None:
        is_absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor
        if is_absolute or Path(os.path.normpath(location)).parts[:1] == (os.pardir,):
            raise ModelError(
                "the model reads external data from outside of its folder",
                where=where,
                why=f"its location is {location!r}; ONNX allows paths below the model only",
                remedy="put the data file beside the model and correct the location",
            )
        real = Path(os.path.realpath(self.folder / location))
        if not any(real.is_relative_to(root) for root in self._roots):
            raise ModelError(
                "the external data of the model is a link that leads out of its folder",
                where=where,
                why=f"{str(self.folder / location)!r} leads to {str(real)!r}; links are"
                " followed in the model's folder, and to the folder its own file really is in",
                remedy="put a copy of the file in place of the link, or give the path of the"
                " model where it really lies, beside its data",
            )


def _missing(where: str, why: str) -> ModelError:
    return ModelError(
        "the external data of the model is missing",
        where=where,
        why=why,
        remedy="copy the data file beside the .onnx file",
    )
