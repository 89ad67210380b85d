"""`python -m models.train`: from the digits to a folded network, stopped and resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import bnfold  # noqa: E402  behind what skips the file
from models import checkpoints, digits, train  # noqa: E402
from models.training import Settings, Training  # noqa: E402

ROOT = Path(__file__).parents[2]


def operators(path):
    return [node.op_type for node in onnx.load(path).graph.node]


def run(*arguments):
    """Run the command in this process; return its exit code."""
    try:
        train.main([str(one) for one in arguments])
    except SystemExit as exit_:
        return exit_.code
    return 0


def saved(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def same(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        return all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        assert len(one) == len(other)
        return all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def without_seconds(state):
    history = [{**epoch, "seconds": 0} for epoch in state["history"]]
    return {**state, "history": history}


@pytest.fixture
def stop_at(monkeypatch):
    """Have somebody press Ctrl-C before a step, the first being 1."""
    step = Training.step

    def stop(count):
        done = []

        def counted(training, images, labels):
            done.append(1)
            if len(done) == count:
                raise KeyboardInterrupt
            return step(training, images, labels)

        monkeypatch.setattr(Training, "step", counted)

    return stop


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The convolutional network after two epochs."""
    output = tmp_path_factory.mktemp("runs")
    assert run("--net", "cnn", "--epochs", 2, "--output", output) == 0
    return output


def test_a_run_ends_with_a_folded_network(trained):
    folder = trained / "cnn"
    names = ["digits_cnn.onnx", "digits_cnn.folded.onnx"]
    files = {*names, "checkpoint.pt", "log.jsonl", "result.json"}
    assert {one.name for one in folder.iterdir()} == files
    before, after = (operators(folder / name) for name in names)
    assert before.count("BatchNormalization") == 3
    assert after.count("BatchNormalization") == 0
    assert bnfold.verify(*(folder / name for name in names)).passed
    result = json.loads((folder / "result.json").read_text())
    assert (result["batch_norms"], result["batch_norms_folded"]) == (3, 0)
    assert result["verdict"] == "passed"
    assert result["settings"]["epochs"] == 2


def test_every_epoch_is_logged(trained):
    lines = (trained / "cnn" / "log.jsonl").read_text().splitlines()
    log = [json.loads(line) for line in lines]
    assert [one["epoch"] for one in log] == [1, 2]
    assert log[1]["loss"] < log[0]["loss"]
    assert log[1]["test_accuracy"] > 0.9
    assert log[1]["train_accuracy"] > 0.9
    assert all(one["seconds"] > 0 and one["lr"] > 0 for one in log)


def test_the_answer_goes_to_stdout_and_the_way_there_to_stderr(tmp_path, capsys):
    assert run("--net", "mlp", "--epochs", 1, "--output", tmp_path) == 0
    said = capsys.readouterr()
    assert "BatchNormalization: 2 → 0" in said.out
    assert "verify: passed" in said.out
    assert "500 test images in ONNX Runtime" in said.out
    assert "epoch   1  loss" in said.err
    assert "\x1b" not in said.out + said.err, "no terminal: no bar, no colour"


def test_a_network_trained_in_other_ways_folds_too(tmp_path):
    done = run(
        *("--net", "cnn", "--epochs", 1, "--batch-norm", "torch"),
        *("--bfloat16", "--channels-last", "--recompute", "--output", tmp_path),
    )
    assert done == 0
    settings = saved(tmp_path / "cnn")["settings"]
    assert settings["bfloat16"]
    assert settings["channels_last"]
    assert settings["recompute"]
    assert "BatchNormalization" not in operators(tmp_path / "cnn" / "digits_cnn.folded.onnx")


def test_a_finished_run_can_be_published_without_training(trained, tmp_path, capsys):
    (tmp_path / "digits.json").write_text(json.dumps({"nets": {"mlp": "stays"}}))
    done = run(
        *("--net", "cnn", "--epochs", 2, "--output", trained, "--resume"),
        *("--publish", tmp_path),
    )
    assert done == 0
    assert "epoch" not in capsys.readouterr().err.split("going on after 2")[1]
    assert {one.name for one in tmp_path.iterdir()} == {"digits.json", "digits_cnn.onnx"}
    record = json.loads((tmp_path / "digits.json").read_text())
    assert record["nets"]["mlp"] == "stays"
    assert record["nets"]["cnn"]["batch_norms"] == 3
    (original,) = trained.glob("cnn/digits_cnn.onnx")
    assert (tmp_path / "digits_cnn.onnx").read_bytes() == original.read_bytes()


THREE_EPOCHS = ("--net", "mlp", "--epochs", 3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of the fully connected network that nobody interrupted."""
    output = tmp_path_factory.mktemp("whole")
    assert run(*THREE_EPOCHS, "--output", output) == 0
    return output


@pytest.mark.parametrize("stopped_before", [1, 27, 41])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    stopped_before, whole, stop_at, tmp_path, capsys, monkeypatch
):
    """20 steps an epoch: stopped before anything was done, within epoch 2, after epoch 2."""
    parted = tmp_path
    stop_at(stopped_before)
    assert run(*THREE_EPOCHS, "--output", parted) == 130
    assert capsys.readouterr().err.endswith(
        "interrupted: --resume goes on after the last epoch that was finished\n"
    )
    monkeypatch.undo()
    assert len(saved(parted / "mlp")["state"]["history"]) == (stopped_before - 1) // 20
    assert run(*THREE_EPOCHS, "--output", parted, "--resume") == 0
    found, wanted = (saved(one / "mlp")["state"] for one in (parted, whole))
    assert same(without_seconds(found), without_seconds(wanted))
    assert len((parted / "mlp" / "log.jsonl").read_text().splitlines()) == 3
    for name in ("digits_mlp.onnx", "digits_mlp.folded.onnx"):
        assert (parted / "mlp" / name).read_bytes() == (whole / "mlp" / name).read_bytes()


def test_ctrl_c_leaves_a_checkpoint_and_no_traceback(tmp_path):
    with subprocess.Popen(
        [
            *(sys.executable, "-u", "-m", "models.train", "--net", "mlp"),
            *("--epochs", "5000", "--output", str(tmp_path)),
        ],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A shell without job control starts what it puts in the background deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        for line in process.stderr:
            if line.startswith("  epoch   2"):
                process.send_signal(signal.SIGINT)
                break
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "interrupted" in said
    assert "Traceback" not in said
    assert len(saved(tmp_path / "mlp")["state"]["history"]) >= 2
    assert {one.name for one in (tmp_path / "mlp").iterdir()} == {"checkpoint.pt", "log.jsonl"}


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--epochs", 3), "epochs is 2 in it, and 3 here"),
        (("--seed", 1), "seed is 0 in it, and 1 here"),
        (("--batch-size", 32), "batch_size is 64 in it, and 32 here"),
        (("--lr", 0.001), "lr is 0.004 in it, and 0.001 here"),
        (("--batch-norm", "torch"), "batch_norm is bnfold in it, and torch here"),
        (("--threads", 2), "threads is 1 in it, and 2 here"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(trained, option, said, capsys):
    before = (trained / "cnn" / "checkpoint.pt").read_bytes()
    done = run("--net", "cnn", "--epochs", 2, "--output", trained, "--resume", *option)
    assert done == 2
    error = capsys.readouterr().err
    assert said in error
    assert "next:" in error
    assert (trained / "cnn" / "checkpoint.pt").read_bytes() == before


def test_a_checkpoint_of_another_network_is_refused(trained, tmp_path, capsys):
    (tmp_path / "mlp").mkdir()
    data = (trained / "cnn" / "checkpoint.pt").read_bytes()
    (tmp_path / "mlp" / "checkpoint.pt").write_bytes(data)
    assert run("--net", "mlp", "--epochs", 2, "--output", tmp_path, "--resume") == 2
    assert "net is cnn in it, and mlp here" in capsys.readouterr().err


def replaced(**parts):
    def spoil(path):
        torch.save({**saved(path.parent), **parts}, path)

    return spoil


SPOILS = {
    "text": lambda path: path.write_text("hello"),
    "other text": lambda path: path.write_text("junk"),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "of another program": lambda path: torch.save({"weights": 1}, path),
    "a list": lambda path: torch.save([1], path),
    "another format": replaced(format=0),
    "without the network": replaced(state={"history": []}),
    "settings of another kind": replaced(settings=1),
    "with code": replaced(extra=Path("/")),
}


@pytest.mark.parametrize("how", SPOILS)
def test_what_is_no_checkpoint_is_said_to_be_none(how, tmp_path, capsys):
    folder = tmp_path / "mlp"
    folder.mkdir()
    checkpoints.save(Training(Settings("mlp", epochs=1), digits.load()), folder)
    SPOILS[how](folder / "checkpoint.pt")
    assert run("--net", "mlp", "--epochs", 1, "--output", tmp_path, "--resume") == 3
    error = capsys.readouterr().err
    assert error.startswith("error: the checkpoint cannot be used\n  where:")
    assert "KeyError: 1" not in error  # what torch.load says to text
    assert "list indices" not in error
    assert ("another program wrote it" in error) == (how in ("of another program", "a list"))
    assert "--overwrite" in error


def test_a_run_is_never_overwritten_unasked(trained, capsys):
    before = (trained / "cnn" / "checkpoint.pt").read_bytes()
    assert run("--epochs", 2, "--output", trained) == 2
    assert "--resume goes on from it, --overwrite starts anew" in capsys.readouterr().err
    assert run("--resume", "--overwrite", "--output", trained) == 2
    assert "exclude each other" in capsys.readouterr().err
    assert (trained / "cnn" / "checkpoint.pt").read_bytes() == before


def test_a_run_is_overwritten_when_asked(stop_at, tmp_path):
    """What the old run came to goes at once: it is not what the new checkpoint is of."""
    (tmp_path / "mlp").mkdir()
    for name in ("checkpoint.pt", "result.json", "digits_mlp.onnx", "notes.txt"):
        (tmp_path / "mlp" / name).write_text("of another run")
    stop_at(21)
    assert run("--net", "mlp", "--epochs", 2, "--output", tmp_path, "--overwrite") == 130
    files = {"checkpoint.pt", "log.jsonl", "notes.txt"}
    assert {one.name for one in (tmp_path / "mlp").iterdir()} == files
    assert len(saved(tmp_path / "mlp")["state"]["history"]) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_said_to_be_missing(tmp_path, capsys):
    assert run("--device", "cuda", "--output", tmp_path) == 4
    error = capsys.readouterr().err
    assert error.startswith("error: cannot train on a GPU\n  where: --device cuda\n  why:")
    assert "--device cpu" in error
    assert not list(tmp_path.iterdir())


def test_an_output_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "mlp").write_text("")
    assert run("--net", "mlp", "--output", tmp_path) == 2
    assert "cannot make a folder" in capsys.readouterr().err


def test_a_training_that_diverges_stops_and_keeps_what_was_good(tmp_path, capsys):
    assert run("--net", "mlp", "--epochs", 2, "--lr", 1e38, "--output", tmp_path) == 3
    error = capsys.readouterr().err
    assert "the training diverged" in error
    assert "lower learning rate" in error
    assert all(
        bool(one.isfinite().all()) for one in saved(tmp_path / "mlp")["state"]["net"].values()
    )


@pytest.mark.parametrize("net", train.NETS)
def test_the_committed_networks_are_what_is_said_of_them(net):
    record = json.loads((ROOT / "models" / "digits.json").read_text())["nets"][net]
    original = ROOT / "models" / record["file"]
    result = bnfold.fold(original)
    assert operators(original).count("BatchNormalization") == record["batch_norms"]
    assert "BatchNormalization" not in result.report.counts_after
    data = digits.load()
    images, labels = data.test_images.numpy(), data.test_labels.numpy()
    report = bnfold.verify(original, result.model, inputs={"input": images}, labels=labels)
    assert report.passed
    assert report.labels.agreement == 1
    assert report.labels.accuracy_original == record["test_accuracy"] >= 0.996
