"""Write the JSON Schemas of bnfold's documents from the records and their docstrings.

python -m docs.schemas           rewrites docs/schemas/
python -m docs.schemas --check   exits 1 if they are out of date
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Final

from bnfold.report.documents import (
    BENCH_SCHEMA,
    EXPORT_SCHEMA,
    FOLD_SCHEMA,
    VERIFY_SCHEMA,
    BenchDocument,
    ExportDocument,
    FoldDocument,
    VerifyDocument,
)
from bnfold.report.encoding import fields_of, types_of

FOLDER: Final = Path(__file__).resolve().parent / "schemas"
DOCUMENTS: Final[Mapping[str, tuple[str, type]]] = {
    "fold-report.json": (FOLD_SCHEMA, FoldDocument),
    "verify-report.json": (VERIFY_SCHEMA, VerifyDocument),
    "bench-report.json": (BENCH_SCHEMA, BenchDocument),
    "export-report.json": (EXPORT_SCHEMA, ExportDocument),
}
_NUMBER: Final = {
    "description": "A number, or a word for what JSON has no number for.",
    "anyOf": [{"type": "number"}, {"enum": ["nan", "inf", "-inf"]}],
}
_PLAIN: Final = {str: "string", int: "integer", bool: "boolean", types.NoneType: "null"}


def schema_of(name: str, kind: type) -> dict[str, Any]:
    """Return the JSON Schema of a kind of document.

    Args:
        name: What the document says under ``schema``.
        kind: Its type.
    """
    found: dict[str, Any] = {"number": _NUMBER}
    body = _record(kind, found)
    body["properties"]["schema"] = {**body["properties"]["schema"], "const": name}
    kept = {key: found[key] for key in sorted(found)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": name,
        **body,
        "$defs": kept,
    }


def _record(kind: type, found: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a record; those of the records in it go to ``found``."""
    properties = _properties(kind, found)
    return {
        "description": _first_lines(kind),
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }


def _properties(
    kind: type, found: dict[str, Any], without: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the schema of every field of a record, but for those that are left out."""
    told, hints = _attributes(kind), types_of(kind)
    properties: dict[str, Any] = {}
    for one in fields_of(kind):
        if one.name in without:
            continue
        if one.metadata.get("flat"):
            gone = one.metadata.get("without", ())
            properties |= _properties(hints[one.name], found, gone)
            continue
        entry = _type(hints[one.name], found)
        said = told.get(one.name)
        properties[one.name] = {"description": said, **entry} if said else entry
    return properties


def _type(hint: Any, found: dict[str, Any]) -> dict[str, Any]:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return {"anyOf": [_type(part, found) for part in parts]}
    if origin is tuple and parts[-1] is Ellipsis:
        return {"type": "array", "items": _type(parts[0], found)}
    if origin is tuple:
        items = [_type(part, found) for part in parts]
        return {"type": "array", "prefixItems": items, "minItems": len(parts), "items": False}
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _type(parts[1], found)}
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    return {"$ref": f"#/$defs/{_name(hint, found)}"}


def _name(hint: type, found: dict[str, Any]) -> str:
    """Return the name of a definition, which is made if it is new."""
    if hint is float:
        return "number"
    if hint.__name__ not in found:
        found[hint.__name__] = {}
        found[hint.__name__] = _word(hint) if issubclass(hint, Enum) else _record(hint, found)
    return hint.__name__


def _word(kind: type[Enum]) -> dict[str, Any]:
    return {"description": _first_lines(kind), "enum": [one.value for one in kind]}


def _first_lines(kind: type) -> str:
    """Return a docstring as far as its list of attributes, in one line."""
    text = inspect.getdoc(kind) or ""
    return _line(text.partition("Attributes:")[0])


def _attributes(kind: type) -> dict[str, str]:
    """Return what a docstring says about each attribute."""
    assert dataclasses.is_dataclass(kind)
    text = (inspect.getdoc(kind) or "").partition("Attributes:")[2]
    entries = re.split(r"\n(?=\w+: )", "\n" + textwrap.dedent(text).strip("\n"))
    pairs = (entry.strip().partition(": ") for entry in entries if entry.strip())
    return {name: _line(said) for name, _, said in pairs}


def _line(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def written() -> dict[Path, str]:
    """Return every schema as text, by file."""
    return {
        FOLDER / file: json.dumps(schema_of(*what), indent=2, ensure_ascii=False) + "\n"
        for file, what in DOCUMENTS.items()
    }


def main() -> None:
    """Rewrite the schemas, or check them."""
    fresh = written()
    if "--check" in sys.argv[1:]:
        old = [f for f, text in fresh.items() if not f.is_file() or f.read_text() != text]
        sys.exit(f"{old[0].name}: run python -m docs.schemas" if old else 0)
    FOLDER.mkdir(exist_ok=True)
    for file, text in fresh.items():
        file.write_text(text)


if __name__ == "__main__":
    main()
