"""Folders for files on the way: gone with their process, and nobody else's is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bnfold.files import scratch as under_test
from bnfold.files.scratch import remove_all, scratch_folder, sweep

ROOT = Path(__file__).parents[2]


@pytest.fixture
def dead(tmp_path):
    """What a process left that was killed with a folder in use."""
    program = (
        "import os, sys; from pathlib import Path\n"
        "from bnfold.files.scratch import scratch_folder\n"
        "with scratch_folder(within=Path(sys.argv[1])) as folder:\n"
        "    (folder / 'deep' / 'er').mkdir(parents=True)\n"
        "    (folder / 'deep' / 'file').write_text('x')\n"
        f"    os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, cwd=ROOT)
    (folder,) = tmp_path.iterdir()
    return folder


def test_a_folder_goes_with_all_that_is_in_it(tmp_path):
    with scratch_folder(within=tmp_path) as folder:
        assert folder.parent == tmp_path
        assert folder.name.startswith(".bnfold-")
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "a" / "b").mkdir(parents=True)
        (folder / "link").symlink_to(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert tmp_path.exists()


def test_among_temporary_files_its_name_says_what_it_is_for(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch_folder("check") as folder:
        assert folder.parent == tmp_path
        assert folder.name.startswith("bnfold-check-")
    assert list(tmp_path.iterdir()) == []


def test_an_error_removes_it_too(tmp_path):
    with pytest.raises(KeyboardInterrupt), scratch_folder(within=tmp_path):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_process_left_is_removed_by_the_next(dead):
    with scratch_folder(within=dead.parent) as folder:
        assert [entry.name for entry in dead.parent.iterdir()] == [folder.name]


def test_what_is_in_use_stays(tmp_path):
    with scratch_folder(within=tmp_path) as one, scratch_folder(within=tmp_path) as other:
        sweep(tmp_path)
        assert one.exists()
        assert other.exists()


def test_a_folder_without_a_lock_is_removed_only_if_it_is_empty(tmp_path):
    empty, full = tmp_path / ".bnfold-0123456789ab", tmp_path / ".bnfold-0123456789ac"
    empty.mkdir()
    full.mkdir()
    (full / "mine").write_text("x")
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [full]


@pytest.mark.parametrize(
    "name", [".bnfold", "bnfold-results-0123456789ab.d", ".bnfold-0123456789", "x"]
)
def test_other_names_are_not_ours(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / ".lock").touch()
    sweep(tmp_path)
    assert (tmp_path / name / ".lock").exists()


def test_links_and_files_of_our_names_are_left_alone(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / ".lock").touch()
    (tmp_path / ".bnfold-0123456789ab").symlink_to("kept")
    (tmp_path / ".bnfold-0123456789ac").write_text("x")
    sweep(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    assert (tmp_path / "kept" / ".lock").exists()


def test_a_link_in_what_is_removed_is_not_followed(dead, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "kept").write_text("x")
    (dead / "link").symlink_to(elsewhere)
    (dead / "deep" / "link").symlink_to(elsewhere)
    sweep(dead.parent)
    assert not dead.exists()
    assert (elsewhere / "kept").exists()


def test_what_belongs_to_somebody_else_stays(dead, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: dead.stat().st_uid + 1)
    sweep(dead.parent)
    assert dead.exists()


def test_where_nothing_can_be_locked_nothing_is_taken_for_dead(dead, monkeypatch):
    monkeypatch.setattr("bnfold.files.locks.fcntl", None)
    with scratch_folder(within=dead.parent) as folder:
        assert folder.exists()
    assert dead.exists()


def test_a_file_system_without_locks_does_not_tell_who_is_dead(dead, monkeypatch):
    class NoLocks:
        LOCK_EX, LOCK_NB = 2, 4

        @staticmethod
        def flock(*_):
            raise OSError(95, "Operation not supported")

    monkeypatch.setattr("bnfold.files.locks.fcntl", NoLocks)
    with scratch_folder(within=dead.parent) as folder:
        assert folder.exists()
    assert dead.exists()


def test_a_maker_that_was_taken_for_dead_tries_again(tmp_path, monkeypatch):
    """Between its making and its lock, a folder looks like that of a dead process."""
    real, taken = os.open, []

    def swept_before(path, *more, **named):
        if not taken and str(path).endswith(".lock"):
            taken.append(path)
            Path(path).parent.rmdir()
        return real(path, *more, **named)

    monkeypatch.setattr(os, "open", swept_before)
    with scratch_folder(within=tmp_path) as folder:
        assert folder.exists()
        assert taken
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_does_not_remove_what_is_in_use(tmp_path):
    program = (
        "import os, sys; from pathlib import Path\n"
        "from bnfold.files.scratch import remove_all, scratch_folder\n"
        "with scratch_folder(within=Path(sys.argv[1])) as folder:\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        remove_all()\n"
        "        sys.exit(0)\n"
        "    os.waitpid(child, 0)\n"
        "    print(folder.exists())\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
    assert done.stdout == b"True\n"
    assert list(tmp_path.iterdir()) == []


def test_at_the_end_of_the_process_everything_goes(tmp_path):
    made = under_test._made(tmp_path, ".bnfold-")
    (made / "x").touch()
    remove_all()
    assert list(tmp_path.iterdir()) == []
    assert under_test._held == {}


def test_a_folder_that_is_not_there_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError), scratch_folder(within=tmp_path / "none"):
        pass
    assert under_test._held == {}
