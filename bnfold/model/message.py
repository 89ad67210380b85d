"""The ``.onnx`` file of a model: its message, with names of data files and large weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir

from bnfold.model.exchange import Inside, Tensors
from bnfold.model.held_inside import held_inside
from bnfold.model.held_outside import DataFile
from bnfold.model.reads import all_tensors
from bnfold.model.spliced import Spliced, spliced


class Message:
    """A model whose data files get their names last."""

    def __init__(self, proto: onnx.ModelProto, paths: Sequence[Path], inside: Inside) -> None:
        """Find out where the names go.

        Args:
            proto: The model; it names its data files as they are called now.
            paths: These files.
            inside: What is inside of it, in the message or left out.
        """
        self.names: Sequence[str] = ()
        self._proto = proto
        self._inside = inside
        self._spliced: Spliced | None = None
        self._seen: tuple[int, ...] = ()
        self._entries: dict[str, list[onnx.StringStringEntryProto]] = {
            path.name: [] for path in paths
        }
        for tensor in all_tensors(proto) if paths else ():
            for entry in tensor.external_data:
                if entry.key == "location" and entry.value in self._entries:
                    self._entries[entry.value].append(entry)
        numbers = {one.name: number for number, one in enumerate(proto.graph.initializer)}
        self._numbers = {value: numbers[value.name or ""] for value in inside.left_out}

    def named(self, names: Sequence[str]) -> bytes | Message:
        """Return the file with these names, in the order of the data files.

        It is bytes where all is in the message, and is to be written otherwise.
        """
        self.names = tuple(names)
        for entries, name in zip(self._entries.values(), names, strict=True):
            for entry in entries:
                entry.value = name
        data = bytes(self._proto.SerializeToString())
        if not self._numbers:
            return data
        left_out = self._inside.left_out
        tensors = {number: left_out[value] for value, number in self._numbers.items()}
        self._spliced = spliced(data, tensors)
        return self._whole() if self._spliced is None else self

    def _whole(self) -> bytes:
        """Return the bytes of all of it, where protobuf has to write them."""
        for value, number in self._numbers.items():
            self._proto.graph.initializer[number].raw_data = self._inside.left_out[
                value
            ].tobytes()
        return bytes(self._proto.SerializeToString())

    def write(self, path: Path) -> None:
        """Write a new file and have the system put it on disk.

        Raises:
            OSError: If it cannot be written.
        """
        assert self._spliced is not None
        self._seen = self._spliced.write(path)

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield all bytes, for what is no file."""
        assert self._spliced is not None
        yield from self._spliced.pieces()

    def tensors_in(self, path: Path) -> Tensors:
        """Return the tensors that are inside in another way than before, as they are now.

        Args:
            path: The place of the file that was written.
        """
        found = dict(self._inside.moved)
        initializers = self._proto.graph.initializer
        if self._spliced is None:
            for value, number in self._numbers.items():
                found[value] = ir.serde.TensorProtoTensor(initializers[number])
            return found
        file = DataFile(path, self._seen)
        for value, number in self._numbers.items():
            initializers[number].ClearField("raw_data")
            offset = self._spliced.offsets[number]
            found[value] = held_inside(initializers[number], file, offset)
        return found
