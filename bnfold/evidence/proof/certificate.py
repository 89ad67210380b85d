"""Certificates: every fold as data, for a checker that does not know the folder.

A certificate is a claim, not a proof: it says which parts of which model changed, and what the
new tensors were made of. Whoever checks it needs only the two models and this file.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from bnfold.errors import ModelError
from bnfold.evidence.proof.changes import Change, Kind
from bnfold.model.regular import UnreadableError, read_regular
from bnfold.records import ChannelMap, Step
from bnfold.safe_text import for_json

SCHEMA: Final = "bnfold/certificate/1"
_MOST_BYTES: Final = 256 << 20
_FLOATS: Final = "<f8"


@dataclass(frozen=True, slots=True)
class TensorChange:
    """A tensor that changed, and what it was made of; no recipe where none can be told."""

    change: Change
    recipe: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Relation:
    """A value that is not the same in both models: ``folded = scale · original + shift``.

    Attributes:
        name: Its name in both.
        axis: The axis that scale and shift run along; None for one number for all.
        scale: One number for each channel; None where it is no map of the original's.
        shift: The same.
    """

    name: str
    axis: int | None = None
    scale: tuple[float, ...] | None = None
    shift: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """Everything that a fold did to one model.

    Attributes:
        original: Digest of the model before.
        folded: Digest of the model after.
        header: Digests of all but nodes and tensors, before and after.
        assumptions: What the user allowed, as words.
        folds: The steps of the fold, their maps included.
        nodes: Nodes that were removed, changed or added.
        tensors: Tensors that were removed, changed or added.
        values: Values of both models that are not the same in both.
    """

    original: str
    folded: str
    header: tuple[str, str]
    assumptions: tuple[str, ...]
    folds: tuple[Step, ...]
    nodes: tuple[Change, ...]
    tensors: tuple[TensorChange, ...]
    values: tuple[Relation, ...] = ()
    sealed: bool = True
    """Whether its own digest fits: False when the file was edited after it was written."""

    def to_json(self) -> str:
        """Return the certificate as JSON; arrays are base64 of little-endian float64."""
        body = {
            "schema": SCHEMA,
            "original": {"sha256": self.original},
            "folded": {"sha256": self.folded},
            "header": {"before": self.header[0], "after": self.header[1]},
            "assumptions": list(self.assumptions),
            "folds": [_with_arrays(asdict(step)) for step in self.folds],
            "nodes": [asdict(change) for change in self.nodes],
            "tensors": [
                {**asdict(entry.change), "recipe": entry.recipe} for entry in self.tensors
            ],
            "values": [_with_arrays(asdict(relation)) for relation in self.values],
        }
        body = _packed(body)
        body["sha256"] = _seal(body)
        return for_json(json.dumps(body, indent=1, ensure_ascii=False)) + "\n"


def read_certificate(source: str | Path) -> Certificate:
    """Read a certificate from a file, or from its JSON text.

    Raises:
        ModelError: If it cannot be read, or is no certificate of a known schema.
    """
    where = "certificate" if _is_text(source) else str(source)
    try:
        text = str(source) if _is_text(source) else _text_of(source)
        return _from_body(json.loads(text))
    except MemoryError:
        raise
    except Exception as error:  # a stranger's file can be wrong in any way
        raise _unreadable(where, _why_unreadable(error)) from error


def _why_unreadable(error: Exception) -> str:
    """Say what is wrong with the text: never in the words of Python, which are about code."""
    match error:
        case UnreadableError():
            return str(error)
        case UnicodeDecodeError():
            return "it is no text"
        case json.JSONDecodeError():
            return f"it is no JSON: {error}"
        case RecursionError():
            why = "it is nested too deep"
        case KeyError():
            why = f"{error} is missing"
        case _OtherwiseError():
            why = str(error)
        case _:
            why = "the numbers in it are written otherwise"
    return f"it is no {SCHEMA}: {why}"


class _OtherwiseError(Exception):
    """An entry of a certificate is not what it should be; says which."""


def _text_of(path: str | Path) -> str:
    return read_regular(path, _MOST_BYTES).decode()


def _is_text(source: str | Path) -> bool:
    return isinstance(source, str) and source.lstrip().startswith("{")


def _unreadable(where: str, why: str) -> ModelError:
    remedy = "write it anew: bnfold fold MODEL -o FOLDED --certificate C.json"
    return ModelError("cannot read the certificate", where=where, why=why, remedy=remedy)


def _from_body(body: Any) -> Certificate:
    if not isinstance(body, dict):
        message = f"it is {_kind(body)}, not an object"
        raise _OtherwiseError(message)
    if body["schema"] != SCHEMA:
        message = f"its schema is {body['schema']!r}"
        raise _OtherwiseError(message)
    seal = body.pop("sha256", "")
    sealed = seal == _seal(body)
    body = _unpacked(body)
    header = _entry(body, "header", dict)
    return Certificate(
        original=_text(_entry(body, "original", dict), "sha256"),
        folded=_text(_entry(body, "folded", dict), "sha256"),
        header=(_text(header, "before"), _text(header, "after")),
        assumptions=_texts(body, "assumptions"),
        folds=tuple(_step(entry) for entry in _objects(body, "folds")),
        nodes=tuple(_change(entry) for entry in _objects(body, "nodes")),
        tensors=tuple(_tensor(entry) for entry in _objects(body, "tensors")),
        values=tuple(_relation(entry) for entry in _objects(body, "values")),
        sealed=sealed,
    )


_KINDS: Final = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "true or false",
    type(None): "null",
}
"""What JSON calls what Python makes of it."""


def _kind(found: Any) -> str:
    return _KINDS.get(type(found), "a number")


def _entry(body: Any, key: str, *kinds: type) -> Any:
    """Return an entry of an object, of one of the kinds; a flag is no number."""
    found = body[key]
    if not isinstance(found, kinds) or (isinstance(found, bool) and bool not in kinds):
        message = f"{key!r} is {_kind(found)}"
        raise _OtherwiseError(message)
    return found


def _text(body: Any, key: str) -> str:
    return str(_entry(body, key, str))


def _texts(body: Any, key: str) -> tuple[str, ...]:
    found = tuple(_entry(body, key, list))
    if not all(isinstance(one, str) for one in found):
        message = f"{key!r} holds something else than texts"
        raise _OtherwiseError(message)
    return found


def _objects(body: Any, key: str) -> list[dict[str, Any]]:
    found = _entry(body, key, list)
    if not all(isinstance(one, dict) for one in found):
        message = f"{key!r} holds something else than objects"
        raise _OtherwiseError(message)
    return list(found)


def _axis(body: Any) -> int | None:
    found = _entry(body, "axis", int, type(None))
    return None if found is None else int(found)


def _vector(body: Any, key: str) -> tuple[float, ...] | None:
    """Return one number for each channel; they have no other axis."""
    found = _entry(body, key, list, np.ndarray, type(None))
    if found is None:
        return None
    array = np.asarray(found, np.float64)
    if array.ndim != 1:
        message = f"{key!r} has {array.ndim} axes"
        raise _OtherwiseError(message)
    return tuple(array.tolist())


def _step(entry: dict[str, Any]) -> Step:
    found = _entry(entry, "map", dict, type(None))
    routes = _entry(entry, "routes", list)
    return Step(
        rule=_text(entry, "rule"),
        site=_texts(entry, "site"),
        move=_text(entry, "move"),
        routes=tuple(_texts({"routes": route}, "routes") for route in routes),
        absorbed_by=_texts(entry, "absorbed_by"),
        tensors=_texts(entry, "tensors"),
        left=_texts(entry, "left"),
        cloned_bytes=int(_entry(entry, "cloned_bytes", int)),
        adjusted=_texts(entry, "adjusted"),
        map=None
        if found is None
        else ChannelMap(
            _axis(found), _vector(found, "scale") or (), _vector(found, "shift") or ()
        ),
    )


def _change(entry: dict[str, Any]) -> Change:
    names = ("name", "before", "after", "operator")
    return Change(Kind(entry["kind"]), *(_text(entry, name) for name in names))


def _tensor(entry: dict[str, Any]) -> TensorChange:
    recipe = _entry(entry, "recipe", dict, type(None))
    return TensorChange(_change(entry), recipe)


def _relation(entry: dict[str, Any]) -> Relation:
    scale, shift = _vector(entry, "scale"), _vector(entry, "shift")
    return Relation(_text(entry, "name"), _axis(entry), scale, shift)


def _seal(body: Mapping[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _with_arrays(entry: dict[str, Any]) -> dict[str, Any]:
    """Make scales and shifts arrays, which are written without losing a bit."""
    inner = {key: _with_arrays(part) for key, part in entry.items() if isinstance(part, dict)}
    numbers = {
        key: np.array(entry[key], np.float64)
        for key in ("scale", "shift")
        if entry.get(key) is not None
    }
    return {**entry, **inner, **numbers}


def _packed(entry: Any) -> Any:
    """Replace arrays by what JSON can hold, without losing a bit."""
    if isinstance(entry, Mapping):
        return {str(key): _packed(value) for key, value in entry.items()}
    if isinstance(entry, list | tuple):
        return [_packed(value) for value in entry]
    if isinstance(entry, np.ndarray | np.generic):
        wide = np.asarray(entry).astype(_FLOATS)
        encoded = base64.b64encode(np.ascontiguousarray(wide).tobytes()).decode("ascii")
        return {"shape": list(wide.shape), "float64": encoded}
    return entry


def _unpacked(entry: Any) -> Any:
    if isinstance(entry, dict):
        if entry.keys() == {"shape", "float64"}:
            raw = np.frombuffer(base64.b64decode(entry["float64"], validate=True), _FLOATS)
            return raw.reshape(entry["shape"]).astype(np.float64)
        return {key: _unpacked(value) for key, value in entry.items()}
    return [_unpacked(value) for value in entry] if isinstance(entry, list) else entry
