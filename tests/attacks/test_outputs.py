"""No output is a file that is read, or another output; only regular files are replaced."""

from __future__ import annotations

import itertools
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bnfold
from bnfold.cli.main import main
from bnfold.errors import ModelError, OutputError, UsageError
from bnfold.files.replacing import write_text
from tests.small import conv_bn, operators

OTHERWISE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def external(path, location, seed=0):
    onnx.save(
        conv_bn(seed), path, save_as_external_data=True, location=location, size_threshold=0
    )


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with everything that a command may read."""
    monkeypatch.chdir(tmp_path)
    external(tmp_path / "model.onnx", "model.bin")
    external(tmp_path / "folded.onnx", "folded.bin", 1)
    external(tmp_path / "more.onnx", "more.bin", 2)
    (tmp_path / "inputs").mkdir()
    for name in ("x.npz", "inputs/x.npz"):
        np.savez(tmp_path / name, x=np.ones((1, 3, 8, 8), np.float32))
    for name in ("labels.txt", "c.json", "weights.pt"):
        (tmp_path / name).write_text("1")
    (tmp_path / "nets.py").write_text("raise SystemExit('this must not be imported')")
    (tmp_path / "nets_of").mkdir()
    (tmp_path / "nets_of" / "one.py").write_text("raise SystemExit('nor this')")
    return tmp_path


@pytest.fixture
def call(monkeypatch, capsys):
    """The command in this process, where none of its work may begin: code and stderr."""

    def begun(*_, **__):
        pytest.fail("the work has begun")

    def called(*arguments, works=False):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["bnfold", *map(str, arguments)])
            if not works:
                patch.setattr("bnfold.checked.fold_into", begun)
                patch.setattr("bnfold.verified.verify", begun)
                patch.setattr("bnfold.benchmarked.benchmark", begun)
                patch.setattr("bnfold.exporting.sources.source_named", begun, raising=False)
            with pytest.raises(SystemExit) as stop:
                main()
        return stop.value.code, capsys.readouterr().err

    return called


def snapshot(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "by-another-name"
    }


FOLD = ("fold", "model.onnx")
VERIFY = (
    "verify", "model.onnx", "folded.onnx", "--certificate", "c.json", "--labels", "labels.txt",
    "--inputs", "x.npz", "--inputs", "inputs", "--inputs", "nets:inputs",
)  # fmt: skip
BENCH = ("bench", "model.onnx", "folded.onnx", "more.onnx", "--inputs", "nets_of.one:inputs")
EXPORT = ("export", "nets:net", "--weights", "weights.pt")

READS = {
    FOLD: ("model.onnx", "model.bin"),
    VERIFY: ("model.onnx", "model.bin", "folded.onnx", "folded.bin", "c.json", "labels.txt",
             "x.npz", "inputs/x.npz", "nets.py"),
    BENCH: ("model.onnx", "model.bin", "folded.onnx", "folded.bin", "more.onnx", "more.bin",
            "nets_of/one.py"),
    EXPORT: ("nets.py", "weights.pt"),
}  # fmt: skip
DOCUMENTS = ("--report", "--markdown")
WRITES = {
    FOLD: ("-o", "--certificate", *DOCUMENTS),
    VERIFY: DOCUMENTS,
    BENCH: DOCUMENTS,
    EXPORT: ("-o", "--unfolded", "--certificate", *DOCUMENTS),
}
CASES = [
    pytest.param(command, option, read, id=f"{command[0]} {option} {read}")
    for command in READS
    for option in WRITES[command]
    for read in READS[command]
]


def with_output(command, option, path):
    """The command with one output, and those that it does not do without."""
    words = [*command, option, str(path)]
    if command in (FOLD, EXPORT) and option != "-o":
        words += ["-o", "new.onnx"]
    if command is EXPORT and option != "--unfolded":
        words += ["--unfolded", "unfolded.onnx"]
    return words


@pytest.mark.parametrize(("command", "option", "read"), CASES)
def test_no_output_is_a_file_that_is_read(here, call, command, option, read):
    if command is EXPORT:
        pytest.importorskip("torch")
    before = snapshot(here)
    code, said = call(*with_output(command, option, read))
    assert code == 2, said
    assert "the output would overwrite the input" in said
    assert said.count(read) >= 2 or f"{option} {read}" in said
    assert snapshot(here) == before


def by_symlink(folder, read):
    (folder / "by-another-name").symlink_to(folder / read)
    return "by-another-name"


def by_hard_link(folder, read):
    os.link(folder / read, folder / "by-another-name")
    return "by-another-name"


def by_dots(_, read):
    return f"inputs/../{read}"


def by_its_absolute_path(folder, read):
    return folder / read


def by_a_link_to_its_folder(folder, read):
    (folder / "inputs" / "back").symlink_to(folder)
    return f"inputs/back/{read}"


WAYS = (by_symlink, by_hard_link, by_dots, by_its_absolute_path, by_a_link_to_its_folder)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("option", WRITES[FOLD])
@pytest.mark.parametrize("read", READS[FOLD])
def test_a_file_is_known_by_any_name(here, call, way, option, read):
    path = way(here, read)
    before = snapshot(here)
    code, said = call(*with_output(FOLD, option, path))
    assert code == 2, said
    assert read in said
    assert str(path) in said
    assert snapshot(here) == before


def test_what_the_input_is_called_does_not_matter(here, call):
    by_symlink(here, "model.onnx")
    for option in WRITES[FOLD]:
        code, said = call(*with_output(("fold", "by-another-name"), option, "model.onnx"))
        assert code == 2, said


def test_an_input_in_another_case_is_another_file_where_case_counts(here, call):
    if (here / "MODEL.onnx").exists():
        code, _ = call("fold", "model.onnx", "-o", "MODEL.onnx")
        assert code == 2
        return
    code, said = call("fold", "model.onnx", "-o", "MODEL.onnx", "--no-verify", works=True)
    assert code == 0, said
    assert operators(onnx.load("MODEL.onnx")) == ["Conv", "Relu"]


def test_the_data_of_an_output_is_an_output(here, call):
    """The first attack: the original's weights lie where the output's would go."""
    external(here / "model.onnx", "out.onnx.data")
    before = snapshot(here)
    code, said = call("fold", "model.onnx", "-o", "out.onnx")
    assert code == 2
    assert "the data of -o" in said
    assert "which MODEL model.onnx reads its data from" in said
    with pytest.raises(UsageError, match="overwrite the input"):
        bnfold.fold("model.onnx", verify=False).save("out.onnx")
    assert snapshot(here) == before


def test_data_anywhere_in_a_model_counts(here, call):
    """In functions, attributes and subgraphs, whether or not anything reads it."""
    tensor = onnx.TensorProto(name="t", data_type=1, dims=[1], data_location=1)
    tensor.external_data.add(key="location", value="far.bin")
    (here / "far.bin").write_bytes(b"1234")
    constant = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    branch = onnx.helper.make_graph([constant], "branch", [], [])
    function = onnx.helper.make_function(
        "d", "f", [], [], [constant], [onnx.helper.make_opsetid("", 17)]
    )
    inside = onnx.helper.make_node("If", ["c"], [], then_branch=branch, else_branch=branch)
    for nodes, functions in (([constant], []), ([inside], []), ([], [function])):
        graph = onnx.helper.make_graph(nodes, "g", [], [])
        model = onnx.helper.make_model(graph, functions=functions)
        Path("m.onnx").write_bytes(model.SerializeToString())
        code, said = call("fold", "m.onnx", "-o", "o.onnx", "--report", "far.bin")
        assert code == 2, said
        assert (here / "far.bin").read_bytes() == b"1234"


OUTPUTS = ("-o", "--certificate", "--report", "--markdown")
PAIRS = list(itertools.combinations(OUTPUTS, 2))


@pytest.mark.parametrize("pair", PAIRS, ids=" ".join)
@pytest.mark.parametrize("there", [False, True], ids=["new", "there"])
def test_no_two_outputs_are_one_file(here, call, pair, there):
    if there:
        (here / "one").write_text("before")
    (here / "link").symlink_to("one")
    before = snapshot(here)
    outputs = {"-o": "new.onnx", pair[0]: "one", pair[1]: "inputs/../link"}
    code, said = call("fold", "model.onnx", *itertools.chain(*outputs.items()))
    assert code == 2, said
    assert "two outputs would be written to one file" in said
    assert all(option in said for option in pair)
    assert snapshot(here) == before


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("option", OUTPUTS[1:])
def test_no_output_is_the_data_of_another(call, option):
    for name in ("new.onnx.data", "new.onnx.0123456789abcdef.data"):
        code, said = call("fold", "model.onnx", "-o", "new.onnx", option, name)
        assert code == 2, said
        assert "the data of -o" in said
    code, said = call("fold", "model.onnx", "--in-place", option, "model.onnx.data")
    assert code == 2, said


def test_outputs_of_an_export_in_python_are_apart(here):
    torch = pytest.importorskip("torch")
    net = torch.nn.Linear(2, 2).eval()
    (here / "link.onnx").symlink_to("a.onnx")
    for path, unfolded in (("a.onnx", "link.onnx"), ("a.onnx", "a.onnx.data")):
        with pytest.raises(UsageError, match="two outputs"):
            bnfold.export(net, torch.ones(1, 2), path, unfolded=unfolded, verify=False)


def test_what_the_shell_redirects_to_is_an_output(here, call):
    before = snapshot(here)
    words = f"{sys.executable} -m bnfold inspect model.onnx >> model.bin"
    done = subprocess.run(words, shell=True, capture_output=True, check=False, env=paths())
    assert done.returncode == 2, done.stderr
    assert snapshot(here) == before
    code, said = call("fold", "model.onnx", "-o", "/dev/stdout", "--json")
    assert code == 2, said


def paths():
    return {**os.environ, "PYTHONPATH": str(Path(bnfold.__file__).parents[1])}


@pytest.mark.usefixtures("here")
def test_json_and_markdown_do_not_mix_on_stdout(call):
    code, said = call("fold", "model.onnx", "--dry-run", "--json", "--markdown", "-")
    assert code == 2
    assert "both go to stdout" in said


@given(
    kinds=st.lists(st.sampled_from(["plain", "symlink", "hard link", "new"]), min_size=2),
    data=st.data(),
)
@OTHERWISE
def test_two_paths_conflict_exactly_if_they_are_one_file(tmp_path_factory, kinds, data):
    """Whatever links there are: files apart are let through, files that are one never."""
    from bnfold.files.apart import Read, Write, check_apart

    folder = tmp_path_factory.mktemp("drawn")
    made: list[Path] = []
    for index, kind in enumerate(kinds):
        path = folder / f"f{index}"
        others = [one for one in made if kind == "symlink" or one.exists()]
        other = data.draw(st.sampled_from(others)) if others else None
        if kind == "symlink" and other is not None:
            path.symlink_to(other)
        elif kind == "hard link" and other is not None:
            os.link(other.resolve(), path)
        elif kind != "new":
            path.write_text(str(index))
        made.append(path)
    one, other = data.draw(st.sampled_from(made)), data.draw(st.sampled_from(made))
    same = one.resolve() == other.resolve() or (
        one.exists() and other.exists() and one.samefile(other)
    )
    for writes, reads in (([one, other], []), ([one], [other])):
        clash = same and (bool(writes[1:]) or other.exists())
        named = [Write(path, "output") for path in writes]
        if clash:
            with pytest.raises(UsageError):
                check_apart(named, [Read(path, "input") for path in reads])
        else:
            check_apart(named, [Read(path, "input") for path in reads])


def test_a_folder_a_socket_and_a_block_device_are_refused_before_the_work(here, call):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(here / "s"))
        for path, why in (("inputs", "it is a folder"), ("s", "it is a socket")):
            for option in OUTPUTS:
                code, said = call(*with_output(FOLD, option, path))
                assert code == 3, said
                assert why in said
    disks = [path for path in Path("/dev").iterdir() if path.is_block_device()]
    for path in disks[:1]:
        code, said = call("fold", "model.onnx", "-o", path)
        assert code == 3
        assert "block device" in said


def test_devices_are_written_into_and_stay(here, call):
    model = here / "whole.onnx"
    onnx.save(conv_bn(), model)
    before = Path("/dev/null").stat()
    words = ("-o", "/dev/null", "--certificate", "/dev/null", "--markdown", "/dev/null")
    code, said = call("fold", model, *words, "--no-verify", works=True)
    assert code == 0, said
    after = Path("/dev/null").stat()
    assert stat.S_ISCHR(after.st_mode)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


@pytest.mark.usefixtures("here")
def test_a_pipe_gets_what_a_file_would():
    result = bnfold.fold(conv_bn(), verify=False)
    os.mkfifo("pipe")
    got: list[bytes] = []
    for write in (lambda: result.save("pipe"), lambda: write_text("pipe", "text")):
        reader = threading.Thread(target=lambda: got.append(Path("pipe").read_bytes()))
        reader.start()
        write()
        reader.join()
    result.save("file.onnx")
    assert got == [Path("file.onnx").read_bytes(), b"text"]
    assert Path("pipe").is_fifo()


@pytest.mark.usefixtures("here")
def test_a_pipe_that_nobody_reads_is_an_error(monkeypatch):
    monkeypatch.setattr("bnfold.files.streams._PATIENCE_S", 0.1)
    os.mkfifo("pipe")
    with pytest.raises(OutputError, match="cannot write the model"):
        bnfold.fold(conv_bn(), verify=False).save("pipe")


@pytest.mark.usefixtures("here")
def test_an_open_file_is_written_to_at_its_place():
    """What ``/dev/stdout`` and ``>(command)`` stand for."""
    result = bnfold.fold(conv_bn(), verify=False)
    result.save("file.onnx")
    expected = Path("file.onnx").read_bytes()
    descriptor = os.open("out", os.O_WRONLY | os.O_CREAT)
    Path("link").symlink_to(f"/dev/fd/{descriptor}")
    os.write(descriptor, b"before")
    result.save(f"/dev/fd/{descriptor}")
    write_text("link", "after")
    os.close(descriptor)
    assert Path("out").read_bytes() == b"before" + expected + b"after"
    reading, writing = os.pipe()
    result.save(f"/proc/self/fd/{writing}" if Path("/proc/self/fd").exists() else "/dev/null")
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() in (expected, b"")


@pytest.mark.usefixtures("here")
def test_a_model_with_a_data_file_does_not_fit_into_a_pipe():
    result = bnfold.fold("model.onnx", verify=False)
    os.mkfifo("pipe")
    for path in ("pipe", "/dev/null"):
        with pytest.raises(OutputError) as error:
            result.save(path)
        assert "a file beside it" in error.value.why


def access(path):
    found = path.lstat()
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


@pytest.mark.parametrize("name", ["model.onnx", "whole.onnx"])
def test_mode_owner_and_links_stay(here, name):
    onnx.save(conv_bn(), "whole.onnx")
    result = bnfold.fold(name, verify=False)
    (here / "real").mkdir()
    target = here / "out.onnx"
    target.write_text("before")
    target.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(target, 4321, 1234)
    before = access(target)
    (here / "link.onnx").symlink_to("out.onnx")
    saved = result.save("link.onnx")
    assert (here / "link.onnx").readlink() == Path("out.onnx")
    assert access(target) == before
    assert operators(onnx.load(target)) == ["Conv", "Relu"]
    assert operators(onnx.load(here / "link.onnx")) == ["Conv", "Relu"]
    if saved.data is not None:
        assert access(saved.data) == before
    write_text("link.onnx", "text")
    assert access(target) == before
    assert target.read_text() == "text"


@pytest.mark.usefixtures("here")
def test_new_weights_are_no_more_open_than_the_old_ones():
    bnfold.fold("model.onnx", verify=False).save("out.onnx")
    Path("out.onnx.data").chmod(0o600)
    saved = bnfold.fold("folded.onnx", verify=False).save("out.onnx")
    assert saved.data.name != "out.onnx.data"
    assert stat.S_IMODE(saved.data.stat().st_mode) == 0o600


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("mask", [0o077, 0o022, 0o027])
def test_the_umask_is_respected(mask):
    before = os.umask(mask)
    try:
        bnfold.fold("model.onnx", verify=False).save("out.onnx")
        write_text("text", "text")
    finally:
        os.umask(before)
    for name in ("out.onnx", "out.onnx.data", "text"):
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o666 & ~mask


def test_a_link_into_another_folder_cannot_have_its_data_beside_it(here):
    (here / "inputs" / "real.onnx").write_text("before")
    (here / "link.onnx").symlink_to("inputs/real.onnx")
    with pytest.raises(OutputError) as error:
        bnfold.fold("model.onnx", verify=False).save("link.onnx")
    assert "beside the link" in error.value.why
    onnx.save(conv_bn(), "whole.onnx")
    bnfold.fold("whole.onnx", verify=False).save("link.onnx")
    assert (here / "link.onnx").is_symlink()
    assert operators(onnx.load("inputs/real.onnx")) == ["Conv", "Relu"]


def test_a_link_to_nothing_is_followed(here):
    (here / "link").symlink_to("inputs/new")
    write_text("link", "text")
    assert (here / "link").is_symlink()
    assert (here / "inputs" / "new").read_text() == "text"
    (here / "circle").symlink_to("circle")
    with pytest.raises(OutputError):
        write_text("circle", "text")


def test_a_read_only_file_is_not_replaced(here, call, monkeypatch):
    (here / "out.onnx").write_text("before")
    (here / "out.onnx").chmod(0o444)
    if os.geteuid() == 0:  # root may write anything: ask as somebody else would
        real = os.access
        refused = ("out.onnx", os.W_OK)
        monkeypatch.setattr(
            os, "access", lambda path, m: real(path, m) and (Path(path).name, m) != refused
        )
    code, said = call("fold", "model.onnx", "-o", "out.onnx")
    assert code == 3
    assert "read-only" in said


def test_a_file_of_somebody_else_stays_theirs(here, call, monkeypatch):
    (here / "out.onnx").write_text("before")
    if os.geteuid() == 0:
        monkeypatch.setattr(os, "geteuid", lambda: 4321)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    code, said = call("fold", "model.onnx", "-o", "out.onnx")
    assert code == 3
    assert "another user" in said


def test_in_place_replaces_the_model_and_its_own_data(here, call):
    external(here / "own.onnx", "own.onnx.data")
    folded = bnfold.fold("own.onnx", verify=False).to_proto()
    code, said = call("fold", "own.onnx", "--in-place", "--no-verify", works=True)
    assert code == 0, said
    (data,) = here.glob("own.onnx.*.data")
    assert str(data) in said
    assert not (here / "own.onnx.data").exists()
    found = onnx.load("own.onnx")
    assert operators(found) == operators(folded)
    assert same_numbers(found, folded)


def test_in_place_leaves_data_of_other_names_and_says_so(here, call):
    before = (here / "model.bin").read_bytes()
    code, said = call("fold", "model.onnx", "--in-place", "--no-verify", works=True)
    assert code == 0, said
    assert (here / "model.bin").read_bytes() == before
    assert "left: " in said
    assert "model.bin" in said
    assert operators(onnx.load("model.onnx")) == ["Conv", "Relu"]


@pytest.mark.usefixtures("here")
def test_in_place_and_an_output_are_one_too_many(call):
    code, said = call("fold", "model.onnx", "--in-place", "-o", "out.onnx")
    assert code == 2
    assert "not both" in said


def test_in_place_refuses_a_file_that_has_changed_since(here):
    result = bnfold.fold("model.onnx", verify=False)
    external(here / "model.onnx", "other.bin", 5)
    before = snapshot(here)
    with pytest.raises(UsageError, match="cannot be replaced") as error:
        result.save_in_place()
    assert "changed since" in error.value.why
    with pytest.raises(UsageError, match="cannot be replaced"):
        bnfold.fold(conv_bn(), verify=False).save_in_place()
    assert snapshot(here) == before


def test_what_was_saved_in_place_goes_on_with_the_new_files(here):
    external(here / "own.onnx", "own.onnx.data")
    result = bnfold.fold("own.onnx", verify=False)
    expected = result.to_proto()
    for _ in range(2):
        result.save_in_place()
        assert same_numbers(onnx.load("own.onnx"), expected)
        result.save("copy.onnx")
        assert same_numbers(onnx.load("copy.onnx"), expected)


def same_numbers(one, other):
    def numbers(model):
        return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}

    found, expected = numbers(one), numbers(other)
    return found.keys() == expected.keys() and all(
        np.array_equal(found[name], expected[name]) for name in found
    )


def test_a_model_in_memory_still_protects_its_files(here):
    first = bnfold.fold("model.onnx", verify=False)
    again = bnfold.fold(first.model, verify=False)
    before = snapshot(here)
    for path in ("model.onnx", "model.bin"):
        with pytest.raises(UsageError, match="overwrite the input"):
            again.save(path)
    proto = onnx.load("model.onnx", load_external_data=False)
    with pytest.raises(ModelError, match="not said where"):  # no folder, so no data
        bnfold.fold(proto, verify=False)
    assert snapshot(here) == before


def test_a_relative_path_means_the_folder_of_its_time(here, monkeypatch):
    result = bnfold.fold("model.onnx", verify=False)
    monkeypatch.chdir(here / "inputs")
    with pytest.raises(UsageError, match="overwrite the input"):
        result.save("../model.onnx")
    result.save("model.onnx")
    assert operators(onnx.load(here / "inputs" / "model.onnx")) == ["Conv", "Relu"]
