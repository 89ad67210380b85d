"""Certificates that were edited: naively, with a new seal, and with everything made to fit."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx

from bnfold.errors import ModelError
from bnfold.evidence.proof.certificate import read_certificate
from bnfold.evidence.proof.prove import prove
from bnfold.folding.api import opened
from bnfold.records import Verdict
from tests.mutants.subject import Array
from tests.mutants.trial import Fold

Path = tuple[str | int, ...]
Body = dict[str, Any]

SEAL: Final = "sha256"


@dataclass(frozen=True, slots=True)
class Edit:
    """An edited certificate.

    Attributes:
        text: What the file holds now.
        what: What was done to it, and where.
    """

    text: str
    what: str


def sealed(body: Body) -> str:
    """Return a certificate with a seal that fits, as anybody can make one."""
    rest = {key: part for key, part in body.items() if key != SEAL}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    return json.dumps({**rest, SEAL: digest}, indent=1, ensure_ascii=False) + "\n"


def naive_edits(text: str) -> Iterator[Edit]:
    """Yield the certificate with one thing changed each, its seal left as it was."""
    body = json.loads(text)
    for what, edited in edits_of(body):
        yield Edit(json.dumps(edited, indent=1, ensure_ascii=False) + "\n", what)
    half = len(text) // 2
    yield Edit(text[:half], "half of the file is missing")
    yield Edit(text[: text.rindex('"sha256"')].rstrip().rstrip(",") + "}", "no seal")
    yield Edit("", "the file is empty")


def sealed_edits(text: str) -> Iterator[Edit]:
    """Yield the certificate with one thing changed each, and a new seal."""
    for what, edited in edits_of(json.loads(text)):
        yield Edit(sealed(edited), f"{what}, and sealed anew")


def edits_of(body: Body) -> Iterator[tuple[str, Body]]:
    """Walk a certificate, whatever it holds, and change one thing at a time."""
    for path, part in _parts(body):
        for what, other in _others(part):
            edited = deepcopy(body)
            _put(edited, path, other)
            yield f"{'/'.join(map(str, path))}: {what}", edited


def _parts(part: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if path:
        yield path, part
    if isinstance(part, dict):
        for key, inner in part.items():
            yield from _parts(inner, (*path, key))
    elif isinstance(part, list):
        for place, inner in enumerate(part):
            yield from _parts(inner, (*path, place))


def _others(part: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(part, bool):
        yield "turned round", not part
    elif isinstance(part, int | float):
        yield "a number changed", part + 1
    elif isinstance(part, str):
        yield "renamed", f"{part}_"
        if len(part) == 64:
            yield "a digit of a digest changed", ("0" if part[0] != "0" else "1") + part[1:]
    elif isinstance(part, list) and part:
        yield "an entry dropped", part[1:]
        yield "an entry doubled", [part[0], *part]
    elif isinstance(part, dict) and part.keys() == {"shape", "float64"}:
        yield "an array changed", _changed(part)
    elif isinstance(part, dict) and part:
        yield "a key dropped", dict(list(part.items())[1:])


def _changed(array: Body) -> Body:
    raw = np.frombuffer(base64.b64decode(array["float64"]), "<f8").copy()
    if raw.size:
        raw[0] = raw[0] * 1.01 + 1e-3
    return {**array, "float64": packed(raw)}


def packed(array: Array) -> str:
    """Return the numbers of an array as certificates hold them."""
    return base64.b64encode(array.astype("<f8").tobytes()).decode("ascii")


def _put(body: Any, path: Path, part: Any) -> None:
    for key in path[:-1]:
        body = body[key]
    body[path[-1]] = part


def verdict(fold: Fold, text: str, accused: onnx.ModelProto | None = None) -> Verdict | None:
    """Return what the judge says with this certificate; None if it refuses to read it."""
    try:
        certificate = read_certificate(text)
    except ModelError:
        return None
    folded = fold.folded if accused is None else accused
    return prove(fold.original, opened(folded), certificate).verdict
