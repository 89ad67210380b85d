"""Where a command's documents go: a page, Markdown, JSON on stdout."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bnfold.cli.terminal import print_json, print_text

if TYPE_CHECKING:
    from bnfold.files.apart import Read, Write

_STDOUT: Final = "-"


@dataclass(frozen=True, slots=True)
class Outputs:
    """All that a command is to write, by the option that says so.

    Attributes:
        page: The page of ``--report``.
        markdown: The file of ``--markdown``; ``-`` is stdout.
        as_json: Whether JSON goes to stdout.
        models: Models, with the data files that they may have.
        texts: Further files.
        in_place: A model that is read, and replaced in the end.
    """

    page: Path | None = None
    markdown: str | None = None
    as_json: bool = False
    models: Mapping[str, Path | None] = field(default_factory=dict)
    texts: Mapping[str, Path | None] = field(default_factory=dict)
    in_place: Path | None = None

    def check(self, reads: Iterable[Read] = ()) -> None:
        """Find out before the work whether its results can be written, and destroy nothing.

        Args:
            reads: Every file that the command reads.

        Raises:
            UsageError: If an output is a file that is read, or two are one file.
            OutputError: If a file could not be written.
            MissingDependencyError: If a page is asked for and what draws it is not there.
        """
        from bnfold.files.apart import check_apart
        from bnfold.files.scratch import sweep, temporary_folder
        from bnfold.files.targets import check_writable
        from bnfold.report.canvas import require

        if self.as_json and self.markdown == _STDOUT:
            message = "--json and --markdown - would both go to stdout: name a file for one"
            raise click.UsageError(message)
        if self.page is not None:
            require("jinja2")
            require("matplotlib")
        files = list(self._files())
        for write in files:
            check_writable(write.path)
        if self.in_place is not None:
            check_writable(self.in_place)
        check_apart([*files, *self._data(files), *self._stdout()], reads)
        for folder in {write.path.absolute().parent for write in files}:
            sweep(folder)
        with contextlib.suppress(OSError):
            sweep(temporary_folder())

    def write(self, document: Mapping[str, Any]) -> None:
        """Write a document wherever the user wants it, what is hardest to make last.

        Raises:
            OutputError: If a file cannot be written.
        """
        from bnfold.files.replacing import write_text
        from bnfold.report.to_html import to_html
        from bnfold.report.to_json import to_json
        from bnfold.report.to_markdown import to_markdown

        if self.as_json:
            print_json(to_json(document))
        if self.markdown == _STDOUT:
            print_text(to_markdown(document))
        elif self.markdown is not None:
            write_text(self.markdown, to_markdown(document))
        if self.page is not None:
            write_text(self.page, to_html(document))

    @property
    def wants_document(self) -> bool:
        """Whether anything but a model and a certificate is to be written."""
        return self.as_json or self.page is not None or self.markdown is not None

    def _files(self) -> Iterator[Write]:
        from bnfold.files.apart import Write

        markdown = None if self.markdown in (None, _STDOUT) else Path(str(self.markdown))
        documents = {"--report": self.page, "--markdown": markdown}
        for option, path in {**self.models, **self.texts, **documents}.items():
            if path is not None:
                yield Write(path, option)

    def _data(self, files: Iterable[Write]) -> Iterator[Write]:
        """Data files that models may get: the first choice, and those that others name.

        A model in place takes no name that is there.
        """
        from bnfold.files.apart import Write
        from bnfold.files.identity import identity_of
        from bnfold.files.pairs import data_path, is_data_of
        from bnfold.files.targets import target_of

        for option, path in {**self.models, "MODEL": self.in_place}.items():
            target = None if path is None else target_of(path)
            if target is None or target.is_stream:
                continue
            model = target.path
            others = [target_of(one.path).path for one in files]
            for data in dict.fromkeys((data_path(model), *others)):
                is_data = data.parent == model.parent and is_data_of(model, data.name)
                if is_data and not (path is self.in_place and data.exists()):
                    with contextlib.suppress(OSError):  # no file can have so long a name
                        identity_of(data)
                        yield Write(data, f"the data of {option}")

    def _stdout(self) -> Iterator[Write]:
        """What the shell's ``>`` names is an output as well."""
        from bnfold.files.apart import Write

        if self.as_json or self.markdown == _STDOUT:
            yield Write(Path("/dev/stdout"), "stdout,")
