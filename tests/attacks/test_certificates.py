"""Certificates of every wrong type and size: one clear error, and no memory for them."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bnfold
from bnfold.errors import ModelError
from bnfold.evidence.proof.certificate import _seal, read_certificate
from bnfold.evidence.proof.recipes import RecipeError, derive
from tests.attacks.watching import faults_of
from tests.cli.calling import run
from tests.small import conv_bn
from tests.test_bad_input import assert_clear_error

HUGE = 1 << 32


@pytest.fixture(scope="module")
def folded() -> tuple[bytes, bytes, dict[str, Any]]:
    """A model, its fold, and what that says it did."""
    result = bnfold.fold(conv_bn(), verify=False, certificate=True)
    body = json.loads(result.certificate.to_json())
    return conv_bn().SerializeToString(), result.to_proto().SerializeToString(), body


@pytest.fixture
def files(folded, tmp_path: Path) -> tuple[Path, Path, dict[str, Any]]:
    before, after = tmp_path / "m.onnx", tmp_path / "f.onnx"
    before.write_bytes(folded[0])
    after.write_bytes(folded[1])
    return before, after, json.loads(json.dumps(folded[2]))


def sealed(body: dict[str, Any]) -> str:
    body = {key: value for key, value in body.items() if key != "sha256"}
    return json.dumps({**body, "sha256": _seal(body)})


def places(entry: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every entry of a document."""
    yield path
    if isinstance(entry, dict):
        for key, value in entry.items():
            yield from places(value, (*path, key))
    elif isinstance(entry, list):
        for place, value in enumerate(entry[:2]):
            yield from places(value, (*path, place))


def put(body: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The same document with another value at a path."""
    if not path:
        return value
    copy = body.copy()
    copy[path[0]] = put(copy[path[0]], path[1:], value)
    return copy


WRONG = [None, True, 7, -1, 1.5, "word", [], {}, [[]], [None], {"a": 1}, HUGE]


def test_every_entry_of_every_wrong_type_is_read_or_refused(files):
    refused = 0
    for path in places(files[2]):
        for wrong in WRONG:
            text = json.dumps(put(files[2], path, wrong))
            if text.startswith("{"):
                with contextlib.suppress(ModelError):
                    read_certificate(text)
                    continue
                refused += 1
    assert refused > 200


def test_what_is_read_of_wrong_types_is_no_proof(files, tmp_path):
    """What may be anything (names, words, numbers) is an answer, whatever it is."""
    before, after, body = files
    path, rng = tmp_path / "c.json", np.random.default_rng(0)
    found = [one for one in places(body) if len(one) > 1]
    for index in rng.permutation(len(found))[:25]:
        wrong = WRONG[rng.integers(len(WRONG))]
        path.write_text(sealed(put(body, found[index], wrong)))
        done = run("verify", before, after, "--certificate", path)
        assert done.returncode in (0, 1, 3), done.stderr
        assert "does not know how to handle" not in done.stderr, (found[index], wrong)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "7", '"word"', "{}", '{"schema": 1}', "[" * 100_000,
     '{"a":' * 20_000, "\0" * 100, '{"schema": "bnfold/certificate/2"}', "NaN", "1e999999"],
)  # fmt: skip
def test_what_is_no_certificate(text, files, tmp_path):
    before, after, _ = files
    path = tmp_path / "c.json"
    path.write_text(text)
    assert_clear_error(run("verify", before, after, "--certificate", path), "c.json")


def test_bytes_that_are_no_text(files, tmp_path):
    before, after, _ = files
    path = tmp_path / "c.json"
    path.write_bytes(b"\xff\xfe\x00" * 100)
    assert_clear_error(run("verify", before, after, "--certificate", path), "text")


def packed(array: Any) -> dict[str, Any]:
    wide = np.asarray(array, np.float64)
    return {"shape": list(wide.shape), "float64": base64.b64encode(wide.tobytes()).decode()}


def form(outputs: int, inputs: int, groups: int, *taps: int) -> dict[str, Any]:
    windows = [{"taps": n, "first": 0, "step": 1, "stride": 1} for n in taps]
    return {"outputs": outputs, "inputs": inputs, "groups": groups, "windows": windows}


W = {"value": "w"}
ONE = {"numbers": packed(np.ones(1))}
ROW = packed(np.ones(100_000))
RECIPES = {
    "sum of convolutions": {
        "made": "sum of convolutions", "of": [W],
        "settings": {"form": form(HUGE, 3, 1, 3, 3), "parts": []},
    },
    "many taps": {
        "made": "sum of convolutions", "of": [W],
        "settings": {"form": form(4, 3, 1, HUGE, HUGE), "parts": []},
    },
    "many groups": {
        "made": "sum of convolutions", "of": [W],
        "settings": {"form": form(4, 3, 10**9, 3, 3), "parts": []},
    },
    "behind": {
        "made": "convolution behind convolution", "of": [W, W],
        "settings": {"form": form(HUGE, HUGE, 1, 1, 1), "first": form(4, 3, 1, 3, 3),
                     "second": form(4, 3, 1, 3, 3)},
    },
    "negative": {
        "made": "sum of convolutions", "of": [W],
        "settings": {"form": form(-4, 3, 1, 3, 3), "parts": []},
    },
    "diagonal": {
        "made": "sum of products", "of": [],
        "settings": {"parts": [{"outer": ROW, "product": None, "sign": 1}],
                     "transposed": False, "constant_is_left": False},
    },
    "outer": {
        "made": "map", "of": [{"numbers": packed(np.ones((1, 8192)))}],
        "settings": {"scale": packed(np.ones((8192, 1))), "shift": 0.0},
    },
    "factor": {
        "product": {"numbers": packed(np.ones((1, 100_000)))},
        "factors": [packed(np.ones((100_000, 1)))],
    },
    "product": {
        "made": "product behind product",
        "of": [{"numbers": packed(np.ones((100_000, 1)))},
               {"numbers": packed(np.ones((1, 100_000)))}],
        "settings": {"first": {"factor": 1.0, "transposed": False},
                     "second": {"factor": 1.0, "transposed": False}, "transposed": False},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_that_asks_for_huge_arrays(name, files, tmp_path, watcher):
    """A sealed certificate, about the right files, whose recipe would take 32 GB."""
    before, after, body = files
    (entry,) = [one for one in body["tensors"] if one["name"].endswith("w")][:1] or [
        body["tensors"][0]
    ]
    entry["recipe"] = RECIPES[name]
    path = tmp_path / "c.json"
    path.write_text(sealed(body))
    seen = watcher.run("verify", before, after, "--certificate", path, seconds=20)
    assert faults_of(seen, most_bytes=500_000_000, most_s=10) == [], seen.text
    assert seen.exit_code == 1
    assert "cannot be derived" in seen.text


def test_shapes_that_are_no_shapes():
    for bad in (True, 1.5, "3", None, [3], HUGE):
        settings = {"form": form(4, 3, 1, 3, 3), "parts": []}
        settings["form"]["outputs"] = bad
        recipe = {"made": "sum of convolutions", "of": [W], "settings": settings}
        with pytest.raises(RecipeError):
            derive(recipe, lambda _: np.ones((4, 3, 3, 3)))


@pytest.mark.thorough
def test_a_certificate_of_many_megabytes_takes_no_gigabytes(files, tmp_path, watcher):
    before, after, _ = files
    path = tmp_path / "c.json"
    path.write_text("[" + '{"a":1},' * 30_000_000 + "{}]")
    seen = watcher.run("verify", before, after, "--certificate", path)
    assert seen.exit_code == 3
    assert faults_of(seen) == []
