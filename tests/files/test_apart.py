"""Files that are one though their names differ, where the file system says so."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from bnfold.errors import UsageError
from bnfold.files.apart import Read, Write, check_apart
from bnfold.files.identity import identity_of

ACCENT = "café"


@pytest.fixture
def careless(monkeypatch):
    """A file system that takes names for one that differ by case or by accents."""
    real = Path.exists

    def exists(path):
        wanted = unicodedata.normalize("NFKC", path.name).casefold()
        return real(path) or any(
            unicodedata.normalize("NFKC", entry.name).casefold() == wanted
            for entry in path.parent.iterdir()
        )

    monkeypatch.setattr(Path, "exists", exists)


PAIRS = [("out.onnx", "OUT.onnx"), (ACCENT, unicodedata.normalize("NFD", ACCENT))]


@pytest.mark.parametrize(("one", "other"), PAIRS)
@pytest.mark.usefixtures("careless")
def test_two_new_outputs_that_will_be_one_file_are_refused(tmp_path, one, other):
    with pytest.raises(UsageError, match="two outputs"):
        check_apart([Write(tmp_path / one, "-o"), Write(tmp_path / other, "--report")], [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_where_they_are_two_they_are_let_through(tmp_path, one, other):
    check_apart([Write(tmp_path / one, "-o"), Write(tmp_path / other, "--report")], [])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_yet_has_its_files_apart_too(tmp_path):
    one, other = tmp_path / "new" / "a", tmp_path / "new" / "x" / ".." / "a"
    assert identity_of(one) == identity_of(other)
    assert identity_of(one) != identity_of(tmp_path / "new" / "b")
    with pytest.raises(UsageError, match="two outputs"):
        check_apart([Write(one, "-o"), Write(other, "--report")], [])


def test_what_is_read_is_not_looked_at_while_every_output_is_new(tmp_path):
    def looked():
        pytest.fail("it was looked at")
        yield Read(tmp_path, "")

    check_apart(
        [Write(tmp_path / "new", "-o"), Write(Path("/dev/null"), "--report")], looked()
    )
