"""Records to plain data for JSON, and back, by their types.

JSON has no number for infinity and NaN: they become the words ``"inf"``, ``"-inf"`` and
``"nan"``. What is read may have keys that are not known here, and may lack those that have a
default.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final, TypeVar

from bnfold.errors import BnfoldError
from bnfold.records import Step

Record = TypeVar("Record")

LEFT_OUT: Final[Mapping[type, tuple[str, ...]]] = {Step: ("map",)}
"""Fields that no document has: the numbers of a map are in the certificate."""


_TYPES: Final[dict[type, Mapping[str, Any]]] = {}


def encode(entry: object) -> Any:
    """Return a record, or what records are made of, as dicts, lists, numbers and text."""
    if isinstance(entry, Enum):
        return entry.value
    if dataclasses.is_dataclass(entry) and not isinstance(entry, type):
        return _encode_fields(entry)
    if isinstance(entry, Mapping):
        return {str(key): encode(value) for key, value in entry.items()}
    if isinstance(entry, Sequence) and not isinstance(entry, str):
        return [encode(value) for value in entry]
    if isinstance(entry, float):
        return float(entry) if math.isfinite(entry) else str(float(entry))
    return entry


def _encode_fields(record: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in fields_of(type(record)):
        encoded = encode(getattr(record, one.name))
        if one.metadata.get("flat"):
            gone = one.metadata.get("without", ())
            found |= {key: value for key, value in encoded.items() if key not in gone}
        else:
            found[one.name] = encoded
    return found


def fields_of(kind: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
    """Return the fields of a record that documents have."""
    gone = LEFT_OUT.get(kind, ())
    return tuple(one for one in dataclasses.fields(kind) if one.name not in gone)


def types_of(kind: type[Any]) -> Mapping[str, Any]:
    """Return the type of every field of a record."""
    if kind not in _TYPES:
        _TYPES[kind] = typing.get_type_hints(kind)
    return _TYPES[kind]


def decode(kind: type[Record], document: Mapping[str, Any]) -> Record:
    """Read a record from a document.

    Args:
        kind: The type of the record.
        document: What `encode` made of one, perhaps by way of a file.

    Raises:
        BnfoldError: If it lacks something, or holds something of another type.
    """
    try:
        return typing.cast("Record", _record(kind, document))
    except (KeyError, TypeError, ValueError) as error:
        raise BnfoldError(
            "cannot read the report",
            where=_schema_of(document),
            why=f"{kind.__name__}: {type(error).__name__}: {error}",
            remedy="make it again with this version of bnfold",
        ) from error


def _schema_of(document: Any) -> str:
    return str(document.get("schema", "")) if isinstance(document, Mapping) else ""


def _record(kind: type[Any], document: Any) -> Any:
    if not isinstance(document, Mapping):
        message = f"{kind.__name__} expected, {type(document).__name__} found"
        raise TypeError(message)
    hints = types_of(kind)
    values: dict[str, Any] = {}
    for one in fields_of(kind):
        if one.metadata.get("flat"):
            gone = one.metadata.get("without", ())
            rest = {key: value for key, value in document.items() if key not in gone}
            values[one.name] = _record(hints[one.name], rest)
        elif one.name in document:
            values[one.name] = _value(hints[one.name], document[one.name])
        elif _is_required(one):
            raise KeyError(one.name)
    return kind(**values)


def _is_required(one: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return one.default is missing and one.default_factory is missing


def _value(hint: Any, entry: Any) -> Any:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return _one_of(parts, entry)
    if origin is tuple:
        kinds = [parts[0]] * len(entry) if parts[-1] is Ellipsis else list(parts)
        return tuple(_value(kind, one) for kind, one in zip(kinds, entry, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        return {key: _value(parts[1], one) for key, one in entry.items()}
    if dataclasses.is_dataclass(hint):
        return _record(typing.cast("type[Any]", hint), entry)
    return _plain(hint, entry)


def _one_of(kinds: tuple[Any, ...], entry: Any) -> Any:
    """Read an optional value, or one of several plain types."""
    if entry is None:
        return None
    rest = [kind for kind in kinds if kind is not types.NoneType]
    if len(rest) == 1:
        return _value(rest[0], entry)
    fitting = [kind for kind in rest if isinstance(entry, kind)]
    return fitting[0](entry)


def _plain(hint: Any, entry: Any) -> Any:
    """Read a number, a truth, a text or a word of a fixed set."""
    if hint is float and isinstance(entry, int | float | str) and not isinstance(entry, bool):
        return float(entry)
    if issubclass(hint, Enum):
        return hint(entry)
    if type(entry) is not hint:
        message = f"{hint.__name__} expected, {entry!r} found"
        raise TypeError(message)
    return entry
