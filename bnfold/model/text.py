"""Is the text of a model text? Protobuf hands out names that are no UTF-8 as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Final

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from bnfold.errors import ModelError

_OF_TENSORS: Final = ("name", "doc_string", "external_data", "metadata_props")


def check_text(proto: onnx.ModelProto, where: str) -> None:
    """Refuse a model of which a name, a domain or another text is no UTF-8.

    ONNX asks for UTF-8 everywhere; its protobuf, of the second version, checks nothing. Past
    here every name is a str.

    Raises:
        ModelError: Naming the field and its bytes.
    """
    for field, found in _no_text(proto):
        raise ModelError(
            "a text of the model is no UTF-8",
            where=f"{where}: {field}",
            why=f"its bytes are {found!r}",
            remedy="export the model again, or give it another name; ONNX asks for UTF-8",
        )


def _no_text(message: Any) -> Iterator[tuple[str, object]]:
    """Yield what should be text and is none, with the name of its field."""
    for field, value in _filled(message):
        is_text, is_message = _kind_of(field)
        if is_text:
            for one in (value,) if isinstance(value, str | bytes) else value:
                if type(one) is not str:
                    yield field.full_name, one
        elif is_message:
            for one in (value,) if isinstance(value, Message) else value:
                yield from _no_text(one)


def _filled(message: Any) -> Iterable[tuple[FieldDescriptor, Any]]:
    """Return the fields that are there; not the numbers of a tensor, which would be copied."""
    if not isinstance(message, onnx.TensorProto):
        return message.ListFields()  # type: ignore[no-any-return]  # messages have no types
    fields = onnx.TensorProto.DESCRIPTOR.fields_by_name
    return [(fields[name], getattr(message, name)) for name in _OF_TENSORS]


@cache
def _kind_of(field: FieldDescriptor) -> tuple[bool, bool]:
    """Return whether a field holds text, and whether messages."""
    kind = field.type
    return kind == FieldDescriptor.TYPE_STRING, kind == FieldDescriptor.TYPE_MESSAGE
