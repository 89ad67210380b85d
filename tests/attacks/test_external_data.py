"""Data outside of the model's file: in its folder, whole, and nowhere else."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import onnx
import pytest

import bnfold
from bnfold.model.io import load
from bnfold.model.tensors import stored_tensors
from tests.attacks.outside import PLACES, SCALE, every_tensor, external, initializer
from tests.battery import judge
from tests.cli.calling import run
from tests.test_bad_input import assert_clear_error

EVERYWHERE = pytest.mark.parametrize("place", PLACES)


def save(folder: Path, model: onnx.ModelProto, name: str = "m.onnx") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def data(folder: Path, name: str = "w.data", size: int = 12) -> Path:
    path = folder / name
    path.write_bytes(SCALE.tobytes()[:size].ljust(size, b"\0"))
    return path


def refused(path: Path, *words: str) -> None:
    for argv in (
        ("fold", path, "-o", path.parent / "out.onnx", "--no-verify"),
        ("inspect", path),
        ("verify", path, path),
        ("bench", path, "--max-time", "1"),
    ):
        assert_clear_error(run(*argv), *words)
    assert not (path.parent / "out.onnx").exists()


@EVERYWHERE
def test_the_walk_finds_what_reflection_finds(place):
    model = PLACES[place](external("k", "w.data"))
    found = [id(one) for one in every_tensor(model)]
    walked = [stored.tensor for stored in stored_tensors(model)]
    assert len(walked) == len(found)
    assert {one.SerializeToString() for one in walked} == {
        one.SerializeToString() for one in every_tensor(model)
    }


@EVERYWHERE
def test_data_in_the_folder_is_read_from_there(place, tmp_path, monkeypatch):
    """Not from the current folder, which holds a file of the same name."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    data(elsewhere).write_bytes(np.full(3, 99.0, np.float32).tobytes())
    path = save(tmp_path / "in", PLACES[place](external("k", "w.data")))
    data(path.parent)
    monkeypatch.chdir(elsewhere)
    result = bnfold.fold(path, verify=False)
    assert result.report.steps or "subgraph" in place
    (tmp_path / "out").mkdir()
    result.save(tmp_path / "out" / "o.onnx")
    data(path.parent).unlink()
    as_written = onnx.load(tmp_path / "out" / "o.onnx", load_external_data=False)
    for one in every_tensor(as_written):
        named = [entry.value for entry in one.external_data if entry.key == "location"]
        assert all((tmp_path / "out" / name).is_file() for name in named), place
    back = onnx.load(tmp_path / "out" / "o.onnx")
    inside = PLACES[place](onnx.numpy_helper.from_array(SCALE, "k"))
    if place not in ("sparse", "list"):
        assert judge.wrong_outputs(inside, back) == []


@EVERYWHERE
@pytest.mark.parametrize(
    ("location", "word"),
    [("../secret.data", "outside"), ("/etc/hostname", "outside"),
     ("sub/../../secret.data", "outside"), ("absent.data", "absent.data"), ("", "location")],
)  # fmt: skip
def test_data_elsewhere_is_refused(place, location, word, tmp_path):
    data(tmp_path, "secret.data")
    path = save(tmp_path / "in", PLACES[place](external("k", location)))
    assert_clear_error(run("inspect", path), word)


@EVERYWHERE
@pytest.mark.parametrize(
    ("entries", "word"),
    [({"offset": "-4"}, "offset"), ({"offset": "x"}, "offset"), ({"offset": "1e3"}, "offset"),
     ({"offset": "99999999999999999999"}, "offset"), ({"offset": " 0"}, "offset"),
     ({"length": "-12"}, "length"), ({"length": "twelve"}, "length"),
     ({"length": "8"}, "shorter"), ({"length": "0"}, "shorter"), ({"length": "16"}, "longer"),
     ({"offset": "4"}, "w.data"), ({"offset": "4", "length": None}, "w.data")],
)  # fmt: skip
def test_offset_and_length_are_checked(place, entries, word, tmp_path):
    path = save(tmp_path, PLACES[place](external("k", "w.data", **entries)))
    data(tmp_path)
    assert_clear_error(run("inspect", path), word)


def test_every_command_refuses(tmp_path):
    path = save(tmp_path / "in", PLACES["function"](external("k", "../secret.data")))
    data(tmp_path, "secret.data")
    refused(path, "outside", "secret.data")


@EVERYWHERE
def test_a_key_that_is_given_twice_is_refused(place, tmp_path):
    """Whoever checks would look at one of them, whoever reads at the other."""
    held = external("k", "w.data")
    held.external_data.add(key="location", value="../secret.data")
    path = save(tmp_path, PLACES[place](held))
    data(tmp_path)
    assert_clear_error(run("inspect", path), "twice")


def test_a_link_out_of_the_folder_is_refused_and_said_to_be_one(tmp_path):
    path = save(tmp_path / "in", initializer(external("k", "w.data")))
    secret = data(tmp_path, "secret.data")
    (path.parent / "w.data").symlink_to(secret)
    refused(path, "link", "secret.data", "copy")


def test_a_folder_that_is_a_link_out_is_refused(tmp_path):
    path = save(tmp_path / "in", initializer(external("k", "sub/w.data")))
    (tmp_path / "other").mkdir()
    data(tmp_path / "other")
    (path.parent / "sub").symlink_to(tmp_path / "other")
    refused(path, "link")


def test_a_link_inside_of_the_folder_is_read(tmp_path):
    path = save(tmp_path, initializer(external("k", "w.data")))
    real = data(tmp_path, "real.data")
    (tmp_path / "w.data").symlink_to(real.name)
    assert bnfold.fold(path, verify=False).report.steps


def hub(root: Path, model: onnx.ModelProto) -> Path:
    """Lay files out as caches of model hubs do: links in a snapshot to blobs beside it."""
    blobs, snapshot = root / "blobs", root / "snapshots" / "x"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    save(blobs, model, "aaa")
    data(blobs, "bbb")
    (snapshot / "model.onnx").symlink_to("../../blobs/aaa")
    (snapshot / "model.onnx.data").symlink_to("../../blobs/bbb")
    return snapshot / "model.onnx"


@EVERYWHERE
def test_links_of_a_hub_are_followed(place, tmp_path):
    path = hub(tmp_path, PLACES[place](external("k", "model.onnx.data")))
    done = run("fold", path, "-o", tmp_path / "out.onnx", "--no-verify")
    assert done.returncode == 0, done.stderr
    back = load(tmp_path / "out.onnx")
    assert back.graph


def test_a_hub_is_folded_and_verified(tmp_path):
    path = hub(tmp_path, initializer(external("k", "model.onnx.data")))
    out = tmp_path / "out.onnx"
    assert run("fold", path, "-o", out).returncode == 0
    assert run("verify", path, out).returncode == 0
    assert run("inspect", path).returncode == 0


def test_another_link_in_a_hub_is_refused(tmp_path):
    path = hub(tmp_path / "hub", initializer(external("k", "model.onnx.data")))
    secret = data(tmp_path, "secret.data")
    (path.parent / "model.onnx.data").unlink()
    (path.parent / "model.onnx.data").symlink_to(secret)
    refused(path, "link", "secret.data")


def test_a_hard_link_is_a_file_like_any_other(tmp_path):
    path = save(tmp_path, initializer(external("k", "w.data")))
    os.link(data(tmp_path, "first.data"), tmp_path / "w.data")
    assert bnfold.fold(path, verify=False).report.steps


def test_data_that_is_no_file_is_refused_at_once(tmp_path):
    path = save(tmp_path, initializer(external("k", "w.data")))
    target = tmp_path / "w.data"
    target.mkdir()
    refused(path, "folder")
    target.rmdir()
    os.mkfifo(target)
    refused(path, "pipe")
    target.unlink()
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(target))
        refused(path, "socket")
    target.unlink()


def test_a_model_in_memory_has_no_folder(tmp_path, monkeypatch):
    data(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(bnfold.errors.ModelError, match="in memory"):
        bnfold.fold(initializer(external("k", "w.data")), verify=False)


def test_text_cannot_lie_in_a_file(tmp_path):
    held = external("k", "w.data")
    held.data_type = onnx.TensorProto.STRING
    path = save(tmp_path, PLACES["list"](held))
    data(tmp_path)
    assert_clear_error(run("inspect", path), "text")


@pytest.mark.parametrize(
    "kind", ["FLOAT", "FLOAT16", "INT64", "INT4", "BOOL", "COMPLEX64", "STRING"]
)
def test_an_initializer_without_data_is_no_tensor_of_zeros(kind, tmp_path):
    empty = onnx.TensorProto(
        name="k", data_type=onnx.TensorProto.DataType.Value(kind), dims=[3, 1, 1]
    )
    assert_clear_error(run("inspect", save(tmp_path, initializer(empty))), "no data")
    empty.dims[:] = [0, 1, 1]
    assert run("inspect", save(tmp_path, initializer(empty))).returncode == 0


@pytest.mark.parametrize(
    ("field", "values"),
    [("float_data", [1.0, 2.0]), ("float_data", [1.0] * 4), ("double_data", [1.0] * 3),
     ("int32_data", [1, 2, 3])],
)  # fmt: skip
def test_numbers_are_as_many_as_the_shape_says_and_where_they_belong(field, values, tmp_path):
    held = onnx.TensorProto(name="k", data_type=onnx.TensorProto.FLOAT, dims=[3, 1, 1])
    getattr(held, field).extend(values)
    assert_clear_error(run("inspect", save(tmp_path, initializer(held))), "tensor")


def test_elements_that_are_there_twice_are_refused(tmp_path):
    held = onnx.numpy_helper.from_array(SCALE, "k")
    held.float_data.extend([9.0, 9.0, 9.0])
    assert_clear_error(run("inspect", save(tmp_path, initializer(held))), "twice")


def test_one_file_named_a_thousand_times_is_not_a_thousand_files(watcher, tmp_path):
    """Sparse tensors and training are read into memory: 40 MB must not become 40 GB."""
    model = initializer(onnx.numpy_helper.from_array(SCALE, "k"))
    info = model.training_info.add()
    for turn in range(1000):
        held = external(f"t{turn}", "w.data", length=str(40_000_000))
        held.dims[:] = [10_000_000]
        info.initialization.initializer.append(held)
    path = save(tmp_path, model)
    with (tmp_path / "w.data").open("wb") as file:
        file.truncate(40_000_000)
    seen = watcher.run("inspect", path)
    assert seen.exit_code == 3
    assert "too large" in seen.stderr
    assert seen.peak_bytes < 500_000_000
