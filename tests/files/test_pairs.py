"""A model and its data: what is named how, what is removed, and what never is."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

from bnfold.errors import OutputError
from bnfold.files import pairs as under_test
from bnfold.files.journal import NEW_MODEL, Journal, settle
from bnfold.files.locks import alone_in
from bnfold.files.mentions import is_named_in, locations_in
from bnfold.files.scratch import scratch_folder
from bnfold.folding.api import fold_unchecked
from tests.small import conv_bn


@pytest.fixture
def folded(tmp_path):
    """Folds of models that differ, each with external data."""
    (tmp_path / "in").mkdir()

    def made(seed):
        path = tmp_path / "in" / f"{seed}.onnx"
        if not path.exists():
            onnx.save(
                conv_bn(seed), path, save_as_external_data=True,
                location=f"{seed}.bin", size_threshold=0,
            )  # fmt: skip
        return fold_unchecked(path)

    return made


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "m.onnx"


def names(out):
    return sorted(entry.name for entry in out.parent.iterdir())


def numbers(path):
    return onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0])


def test_the_first_data_has_the_plain_name(folded, out):
    saved = folded(0).save(out)
    assert names(out) == ["m.onnx", "m.onnx.data"]
    assert saved.data == out.parent / "m.onnx.data"
    assert saved.left == ()


def test_other_contents_have_another_name_and_the_old_ones_go(folded, out):
    folded(0).save(out)
    saved = folded(1).save(out)
    assert names(out) == ["m.onnx", saved.data.name]
    assert re.fullmatch(r"m\.onnx\.[0-9a-f]{16}\.data", saved.data.name)
    folded(2).save(out)
    assert names(out) == ["m.onnx", "m.onnx.data"]


def test_the_same_contents_keep_their_name_and_their_file(folded, out):
    for seed in (0, 1):
        first = folded(seed).save(out)
        before = first.data.stat()
        again = folded(seed).save(out)
        assert again == first
        assert again.data.stat().st_ino == before.st_ino
        assert len(names(out)) == 2


def test_a_model_that_needs_no_data_any_more_takes_its_old_data_along(folded, out):
    folded(0).save(out)
    fold_unchecked(conv_bn()).save(out)
    assert names(out) == ["m.onnx"]


def test_data_of_others_is_neither_overwritten_nor_removed(folded, out):
    (out.parent / "m.onnx.data").write_text("mine")
    saved = folded(0).save(out)
    folded(1).save(out)
    assert (out.parent / "m.onnx.data").read_text() == "mine"
    assert not saved.data.exists()


def test_a_copy_of_the_model_keeps_its_data(folded, out):
    folded(0).save(out)
    copy = out.with_name("backup.onnx")
    copy.write_bytes(out.read_bytes())
    before = numbers(copy)
    saved = folded(1).save(out)
    assert saved.left == (out.parent / "m.onnx.data",)
    assert np.array_equal(numbers(copy), before)
    assert not np.array_equal(numbers(out), before)


def test_a_link_to_the_data_keeps_it(folded, out):
    folded(0).save(out)
    (out.parent / "also").symlink_to("m.onnx.data")
    folded(1).save(out)
    assert (out.parent / "also").exists()


def test_data_of_the_old_model_that_has_another_name_is_left(folded, out):
    onnx.save(conv_bn(7), out, save_as_external_data=True, location="w.bin", size_threshold=0)
    saved = folded(0).save(out)
    assert names(out) == ["m.onnx", "m.onnx.data", "w.bin"]
    assert saved.left == (out.parent / "w.bin",)


def test_a_name_that_a_broken_model_says_is_not_given_to_new_weights(folded, out):
    """Killed before the end, the broken model would read the weights of another one."""
    folded(0).save(out)
    (out.parent / "m.onnx.data").unlink()
    saved = folded(1).save(out)
    assert saved.data.name != "m.onnx.data"


def test_a_name_that_is_taken_at_the_last_moment_is_not_taken_away(folded, out, monkeypatch):
    real = under_test._place

    def somebody_is_first(written, path):
        path.write_text("mine")
        real(written, path)

    monkeypatch.setattr(under_test, "_place", somebody_is_first)
    with pytest.raises(OutputError, match="cannot write the model"):
        folded(0).save(out)
    assert names(out) == ["m.onnx.data"]
    assert (out.parent / "m.onnx.data").read_text() == "mine"


def test_without_hard_links_data_is_renamed(folded, out, monkeypatch):
    def refused(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    folded(0).save(out)
    folded(1).save(out)
    assert len(names(out)) == 2
    assert not np.array_equal(numbers(out), 0)


def test_a_write_that_fails_at_the_end_takes_its_data_back(folded, out, monkeypatch):
    folded(0).save(out)
    before = numbers(out)
    real = Path.replace

    def busy(self, target):
        if Path(target) == out:
            raise OSError(16, "Device or resource busy")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", busy)
    with pytest.raises(OutputError, match="cannot write the model"):
        folded(1).save(out)
    assert names(out) == ["m.onnx", "m.onnx.data"]
    assert np.array_equal(numbers(out), before)


def test_writers_of_one_model_leave_one_of_theirs(folded, out):
    results = [folded(seed) for seed in range(4)]
    expected = []
    for index, result in enumerate(results):
        alone = out.with_name(f"alone{index}.onnx")
        result.save(alone)
        expected.append(numbers(alone))
        for name in (alone.name, f"{alone.name}.data"):
            alone.with_name(name).unlink()
    writers = [threading.Thread(target=result.save, args=(out,)) for result in results]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(names(out)) == 2
    assert any(np.array_equal(numbers(out), one) for one in expected)


@pytest.fixture
def scratch(tmp_path):
    with scratch_folder(within=tmp_path) as folder:
        yield folder


def placed(folder, name):
    (folder / name).write_text(name)
    return {name: (folder / name).stat().st_ino}


def test_a_model_that_never_came_takes_its_data_along(tmp_path, scratch):
    (scratch / NEW_MODEL).touch()
    Journal(placed(tmp_path, "new"), placed(tmp_path, "old")).write(scratch)
    settle(scratch)
    assert (tmp_path / "old").exists()
    assert not (tmp_path / "new").exists()


def test_a_model_that_came_takes_the_old_data_along(tmp_path, scratch):
    Journal(placed(tmp_path, "new"), placed(tmp_path, "old")).write(scratch)
    settle(scratch)
    assert (tmp_path / "new").exists()
    assert not (tmp_path / "old").exists()
    placed(tmp_path, "old")
    settle(scratch)
    assert (tmp_path / "old").exists(), "settled once is settled"


def test_what_is_another_file_by_now_or_is_named_stays(tmp_path, scratch):
    was, named = placed(tmp_path, "was"), placed(tmp_path, "named")
    (tmp_path / "other").write_text("x")
    (tmp_path / "other").replace(tmp_path / "was")
    (tmp_path / "notes.json").write_text('{"weights": "named"}')
    Journal({}, {**was, **named, "../far": 1}).write(scratch)
    settle(scratch)
    assert (tmp_path / "was").exists()
    assert (tmp_path / "named").exists()


@pytest.mark.parametrize(
    "note", ["", "{", "[]", "{}", '{"placed": 1, "replaced": 2}', '{"placed": {"a": []}}']
)
def test_a_note_that_is_cut_off_says_nothing(tmp_path, scratch, note):
    placed(tmp_path, "a")
    (scratch / "journal").write_text(note)
    settle(scratch)
    assert (tmp_path / "a").exists()


@pytest.mark.parametrize("length", [1, 2, 127, 128, 200, 300])
def test_locations_are_found_by_their_bytes(tmp_path, length):
    name = "é" * (length // 2) + "x" * (length % 2)
    tensor = onnx.TensorProto(name="t", data_location=1)
    tensor.external_data.add(key="location", value=name)
    tensor.external_data.add(key="offset", value="location")
    graph = onnx.GraphProto(initializer=[tensor], doc_string="location")
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx.ModelProto(graph=graph).SerializeToString())
    assert locations_in(path) == {name}


def test_no_model_has_no_locations(tmp_path):
    assert locations_in(tmp_path / "none") == set()
    (tmp_path / "empty").touch()
    assert locations_in(tmp_path / "empty") == set()


def test_numbers_of_a_model_beside_are_not_searched(tmp_path, monkeypatch):
    path = tmp_path / "other.onnx"
    onnx.save(conv_bn(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").write_bytes(b"name" * 10_000)
    assert not is_named_in(tmp_path, "name")
    monkeypatch.setattr("bnfold.files.mentions._MOST_BYTES", 10_000)
    assert not is_named_in(tmp_path, "name")
    assert is_named_in(tmp_path, "w.bin")


def test_a_file_system_that_cannot_sync_is_written_to(tmp_path, monkeypatch):
    def refused(_):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refused)
    fold_unchecked(conv_bn()).save(tmp_path / "m.onnx")
    assert names(tmp_path / "m.onnx") == ["m.onnx"]


def test_what_cannot_be_read_may_name_anything(tmp_path, monkeypatch):
    (tmp_path / "big").write_text("x" * 100)
    assert not is_named_in(tmp_path, "name")
    monkeypatch.setattr("bnfold.files.mentions._MOST_BYTES", 10)
    assert is_named_in(tmp_path, "name")
    assert is_named_in(tmp_path / "none", "name")


def test_whoever_holds_a_folder_for_ever_does_not_stop_others(tmp_path, monkeypatch):
    monkeypatch.setattr("bnfold.files.locks._PATIENCE_S", 0.05)
    with alone_in(tmp_path), alone_in(tmp_path):
        pass


def test_several_data_files_go_again_if_the_model_cannot_come_to_its_place(
    folded, out, monkeypatch
):
    def fails(*_):
        raise OSError(5, "Input/output error")

    folded(0).save(out)
    before = names(out)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fails)
        with pytest.raises(OutputError):
            folded(1).save(out, external_data="per-tensor", size_threshold=0)
    assert names(out) == before
    assert len(folded(1).save(out, external_data="per-tensor", size_threshold=0).files) > 1


def test_a_data_file_is_flushed_before_it_has_its_name(folded, out, monkeypatch):
    told = []
    fsync, link = os.fsync, Path.hardlink_to
    monkeypatch.setattr(
        os, "fsync", lambda one: told.append(os.fstat(one).st_ino) or fsync(one)
    )

    def linked(path, other):
        assert other.stat().st_ino in told
        told.append("linked")
        link(path, other)

    monkeypatch.setattr(Path, "hardlink_to", linked)
    folded(0).save(out, external_data="per-tensor", size_threshold=0)
    assert told.count("linked") > 1
