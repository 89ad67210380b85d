"""Write a model so that it appears whole or not at all."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import onnx_ir as ir

from bnfold.errors import OutputError, UsageError
from bnfold.files.apart import Write, check_apart
from bnfold.files.data_writer import DataWriter
from bnfold.files.identity import Identity, identity_of
from bnfold.files.pairs import Saved, Written, data_path, put_model, wants_digest
from bnfold.files.scratch import scratch_folder
from bnfold.files.streams import write_into
from bnfold.files.targets import Target, target_of, told_of
from bnfold.model.digests import Digest, Place, begun_digest, is_digest_of_bytes, place_of
from bnfold.model.exchange import exchanged, go_on, outside_of
from bnfold.model.io import to_proto
from bnfold.model.layout import Layout, Placed, Plan, plan_of
from bnfold.model.message import Message
from bnfold.model.pieces import put_bytes
from bnfold.model.reads import READS, SOURCE, Source, reads_of_model

_WHAT: Final = "cannot write the model"

_UNSYNCED: Final = 4
"""So many data files may wait for the end to be put on disk: each is an open file."""


def save(model: ir.Model, path: str | Path, layout: Layout | None = None) -> Saved:
    """Write a model to ``path``, with weights beside it where they lay outside before.

    Weights go outside as well when the model would exceed protobuf's 2 GB. The model at
    ``path`` is the old one or the new one at every moment, with its own weights: where
    ``<name>.data`` has other contents, or where there are several data files, they have names
    made of their contents; old data that is named after the model is removed at the end,
    unless something names it. A pipe or a device is written into.

    Args:
        model: The model; not changed.
        path: Where its ``.onnx`` file goes.
        layout: Where its weights go; None for as they lay.

    Raises:
        UsageError: If that would overwrite a file that the model is read from.
        OutputError: If it cannot be written; nothing is left behind then.
    """
    with begun(model, path, layout) as writing:
        return writing.finish()


def save_over_source(model: ir.Model, layout: Layout | None = None) -> Saved:
    """Write a model over the file that it was read from, with the same promise as `save`.

    The model in memory goes on with the new files.

    Args:
        model: The model.
        layout: Where its weights go; None for as they lay.

    Raises:
        UsageError: If it was not read from a file, or that has changed since.
        OutputError: If it cannot be written; the file and its data are as they were then.
    """
    with begun(model, None, layout) as writing:
        return writing.finish()


@contextlib.contextmanager
def begun(
    model: ir.Model,
    path: str | Path | None,
    layout: Layout | None = None,
    *,
    digested: bool = False,
) -> Iterator[Begun]:
    """Write the data files of a model beside their place; `Begun.finish` does the rest.

    What is done between the two goes on while the system puts the data on disk. Without
    `Begun.finish` nothing is left of it.

    Args:
        model: The model; not changed before the end.
        path: Where its ``.onnx`` file goes; None for over the file that it was read from.
        layout: Where its weights go; None for as they lay.
        digested: Whether `Begun.digests` are wanted: what is written is read again soon.

    Raises:
        UsageError: As of `save` and `save_over_source`.
        OutputError: The same.
    """
    target = target_of(_unchanged_source(model).path if path is None else path)
    plan = plan_of(model, layout or Layout())
    if path is not None:
        writes = [Write(Path(path), "the model")]
        if not target.is_stream and plan.files:
            writes.append(Write(data_path(target.path), "its data"))
        check_apart(writes, reads_of_model(model))
    with contextlib.ExitStack() as stack:
        with told_of(target.given, _WHAT):
            if plan.files:
                _check_has_place(target)
            writing = Begun(model, target, plan, is_over_source=path is None)
            if plan.files or not target.is_stream:
                scratch = stack.enter_context(scratch_folder(within=target.path.parent))
                writing.write_data(scratch, stack, digested=digested)
        yield writing


@dataclass(slots=True)
class Begun:
    """A model whose data files are written, and not yet in their place.

    Attributes:
        model: The model.
        target: Where its ``.onnx`` file goes.
        plan: What goes where.
        is_over_source: Whether that is the file it was read from.
        digests: Of its tensors as they were written, by where they are in the model.
    """

    model: ir.Model
    target: Target
    plan: Plan
    is_over_source: bool = False
    digests: dict[Place, str] = field(default_factory=dict)
    _scratch: Path = Path()
    _files: list[DataWriter] = field(default_factory=list)
    _open: deque[contextlib.ExitStack] = field(default_factory=deque)

    def write_data(
        self, scratch: Path, stack: contextlib.ExitStack, *, digested: bool
    ) -> None:
        """Write all data files.

        Args:
            scratch: Where.
            stack: Closes what is open.
            digested: Whether `digests` are wanted.

        Raises:
            OSError: If they cannot be written.
        """
        self._scratch = scratch
        count = len(self.plan.files)
        hashed = wants_digest(self.target, count)
        for number, placed in enumerate(self.plan.files):
            if len(self._open) >= _UNSYNCED:
                self._open.popleft().close()
            one = stack.enter_context(contextlib.ExitStack())
            # a name that no tensor has
            path = scratch / f"{scratch.name}.{number}.data"
            last = placed[-1]
            # What is proved is checked next, by `verify`: that finds it in the page cache.
            expected = 0 if digested else last.offset + last.tensor.nbytes
            file = one.enter_context(DataWriter(path, hashed=hashed, expected=expected))
            self._files.append(file)
            self._open.append(one)
            self.digests.update(_written(placed, file, digested=digested))

    def finish(self) -> Saved:
        """Put all of it on disk and in its place.

        Raises:
            UsageError: If the file that is written over has changed.
            OutputError: If it cannot be written; nothing is left behind then.
        """
        if self.is_over_source:
            source = _unchanged_source(self.model)
        with told_of(self.target.given, _WHAT):
            if not self.plan.files and self.target.is_stream:
                with exchanged(self.model, {}) as inside:
                    message = Message(to_proto(self.model), (), inside)
                data = message.named(())
                write_into(self.target, [data] if isinstance(data, bytes) else data.pieces())
                return Saved(self.target.given)
            saved = self._put()
        if self.is_over_source:
            self.model.graph.meta[SOURCE] = Source.of(source.path)
            self.model.graph.meta[READS] = ()
        return saved

    def _put(self) -> Saved:
        while self._open:
            self._open.popleft().close()
        paths = [file.path for file in self._files]
        with exchanged(self.model, outside_of(self.plan, paths)) as inside:
            message = Message(to_proto(self.model), paths, inside)
        written = [Written(file.path, file.digest) for file in self._files]
        kept = frozenset() if self.is_over_source else _identities(self.model)
        saved = put_model(self._scratch, self.target, written, message.named, kept)
        if self.is_over_source:
            folder = self.target.path.parent
            outside = outside_of(self.plan, [folder / name for name in message.names])
            go_on(self.model, outside, message.tensors_in(self.target.path))
        return replace(saved, said=self.plan.said)


def _unchanged_source(model: ir.Model) -> Source:
    source = model.graph.meta.get(SOURCE)
    if not isinstance(source, Source):
        raise UsageError(
            "the model cannot be replaced",
            why="it was not read from a file",
            remedy="save it under a path",
        )
    with told_of(source.path, _WHAT):
        if Source.of(source.path) != source:
            raise UsageError(
                "the model cannot be replaced",
                where=str(source.path),
                why="the file has changed since it was read, and what changed would be lost",
                remedy="fold it again",
            )
    return source


def _written(
    placed: Sequence[Placed], file: DataWriter, *, digested: bool
) -> dict[Place, str]:
    """Write one data file, one tensor at a time.

    Returns:
        Digests of the tensors by where they are in the model, if they are wanted. Each was
        taken of the very bytes that were handed to the system, in the same order.
    """
    told: dict[Place, Digest] = {}
    for tensor, offset, _ in placed:
        file.pad_to(offset)
        digest = begun_digest(tensor) if digested and is_digest_of_bytes(tensor) else None
        if digest is not None:
            told[place_of(tensor)] = digest
        put_bytes(tensor, file, digest)
    file.settle()
    return {place: digest.hexdigest() for place, digest in told.items()}


def _check_has_place(target: Target) -> None:
    """Refuse outputs beside which no data can lie where readers look for it.

    Raises:
        OutputError: Saying why.
    """
    why = ""
    if target.is_stream:
        why = "its weights go to a file beside it, and a pipe or a device has none"
    elif identity_of(target.given.parent) != identity_of(target.path.parent):
        why = f"it is a link to {target.path}, and readers look for its data beside the link"
    elif not target.path.name.isprintable():
        why = "its data is named after it, and ONNX takes no such name"
    if why:
        raise OutputError(
            _WHAT,
            where=str(target.given),
            why=why,
            remedy="name a file in the folder that it shall lie in",
        )


def _identities(model: ir.Model) -> frozenset[Identity]:
    """Return the files that the model is read from, as far as they are there."""
    found = set()
    for read in reads_of_model(model):
        with contextlib.suppress(OSError):
            found.add(identity_of(read.path))
    return frozenset(found)
