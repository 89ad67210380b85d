"""Train networks on the handwritten digits, then export → fold → verify: ``make train``.

``python -m models.train --net cnn`` takes half a minute on one CPU core. Everything it writes
goes to a folder of the network in ``runs/`` (``--output``): a checkpoint after every epoch, a
log with a JSON object per epoch, the network as ONNX, the same folded, and what came out.
"""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack

import click

from bnfold.errors import BnfoldError, MissingDependencyError, UsageError

if TYPE_CHECKING:
    from models.digits import Digits
    from models.shipping import Shipped
    from models.training import Epoch, Settings, Training

NETS: Final = ("mlp", "cnn")
_INTERRUPTED: Final = 130
_RESULT: Final = "result.json"


class _Choices(TypedDict):
    """What goes to `models.training.Settings` as it is."""

    batch_norm: str
    epochs: int
    seed: int
    batch_size: int
    lr: float
    bfloat16: bool
    channels_last: bool
    recompute: bool
    threads: int


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    epilog="Exit codes: 0 trained, folded and verified; 1 the check failed; 2 usage; 3 the"
    " checkpoint cannot be used, or the training diverged; 4 something is missing on this"
    " machine; 130 interrupted, --resume goes on.",
)
@click.option("--net", type=click.Choice([*NETS, "all"]), default="all")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu")
@click.option("--epochs", type=click.IntRange(min=1), default=80)
@click.option("--seed", type=click.IntRange(min=0), default=0)
@click.option("--batch-size", type=click.IntRange(2, 1297), default=64)
@click.option(
    "--lr",
    type=click.FloatRange(0, min_open=True),
    default=4e-3,
    help="The highest learning rate of the one-cycle schedule.",
)
@click.option(
    "--batch-norm",
    type=click.Choice(["bnfold", "torch"]),
    default="bnfold",
    help="Whose modules to train with.",
)
@click.option("--bfloat16", is_flag=True, help="Compute under autocast.")
@click.option("--channels-last", is_flag=True, help="Keep channels together in memory.")
@click.option("--recompute", is_flag=True, help="Save less for backward, compute it again.")
@click.option("--threads", type=click.IntRange(min=1), default=1, help="Of the CPU.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    help="Where the networks' folders go.",
)
@click.option(
    "--resume", is_flag=True, help="Go on from the checkpoints, where there are any."
)
@click.option("--overwrite", is_flag=True, help="Start anew where there are checkpoints.")
@click.option(
    "--publish",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="When all is verified, copy the networks to this folder, with digits.json.",
)
def command(
    net: str,
    device: str,
    output: Path,
    publish: Path | None,
    *,
    resume: bool,
    overwrite: bool,
    **choices: Unpack[_Choices],
) -> None:
    """Train networks on handwritten digits, then export, fold and verify them."""
    check_machine(device)
    from models import checkpoints, digits
    from models.training import Settings, reproducible

    folders = {name: output / name for name in (NETS if net == "all" else (net,))}
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other")
    for folder in folders.values():
        if checkpoints.exists(folder) and not (resume or overwrite):
            raise UsageError(
                "there is a checkpoint already",
                where=str(folder),
                remedy="--resume goes on from it, --overwrite starts anew; or choose another"
                " --output",
            )
    for folder in folders.values():
        make(folder)
    data = digits.load()
    with reproducible(device, choices["threads"]):
        for name, folder in folders.items():
            settings = Settings(net=name, **choices)
            train_one(settings, data, device, folder, resume=resume)
    if publish is not None:
        copy_results(folders, publish)


def check_machine(device: str) -> None:
    """Find out before the work whether it can be done here.

    Raises:
        MissingDependencyError: If a package or the device is missing.
    """
    from bnfold.exporting.presence import require_torch
    from bnfold.runtime import require

    require_torch("torchscript")
    require("verify the trained network")
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        built = torch.version.cuda
        without = f"torch {torch.__version__} is built without CUDA"
        raise MissingDependencyError(
            "cannot train on a GPU",
            where="--device cuda",
            why=f"torch finds no CUDA device (it is built for {built})" if built else without,
            remedy="--device cpu takes less than a minute; or install torch with CUDA",
        )


def make(folder: Path) -> None:
    """Make the folder of a run.

    Raises:
        UsageError: If that cannot be done.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(
            "cannot make a folder",
            where=str(folder),
            why=why,
            remedy="name another --output: a folder that you may write to",
        ) from error


def train_one(
    settings: Settings, data: Digits, device: str, folder: Path, *, resume: bool
) -> None:
    """Train one network, with a checkpoint after every epoch, and ship it."""
    from bnfold.report.progress import progress
    from models import checkpoints
    from models.shipping import ship
    from models.training import Training

    training = Training(settings, data, device)
    if resume and checkpoints.exists(folder):
        checkpoints.resume(training, folder)
    else:
        for result in (folder / _RESULT, *folder.glob("digits_*.onnx")):
            result.unlink(missing_ok=True)  # of the run that is overwritten
        checkpoints.save(training, folder)
    run(training, folder)
    with progress() as tell:
        shipped = ship(training.net, settings.net, data, folder, tell)
    result = described(training, shipped)
    text = json.dumps(result, indent=2) + "\n"
    checkpoints.write_whole(folder / _RESULT, text.encode())
    print(summary(result, shipped), flush=True)


def run(training: Training, folder: Path) -> None:
    """Train what epochs are left; say how it goes on stderr, with a bar on a terminal."""
    from bnfold.report.progress import bar
    from models import checkpoints

    settings, done = training.settings, len(training.history)
    after = f", going on after {done}" if done else ""
    say(f"{settings.net}: {settings.epochs} epochs on {training.device}{after}")
    with bar() as show:
        while not training.done:
            show(f"{settings.net}: epoch {len(training.history) + 1}", share_done(training))
            epoch = training.run_epoch()
            checkpoints.save(training, folder)
            say(line(epoch))


def share_done(training: Training) -> float:
    """Return how much of a training is behind us."""
    return len(training.history) / training.settings.epochs


def say(text: str) -> None:
    """Tell people something."""
    print(text, file=sys.stderr, flush=True)


def line(epoch: Epoch) -> str:
    """Say in a line how an epoch went."""
    return (
        f"  epoch {epoch.epoch:3d}  loss {epoch.loss:.4f}  train {epoch.train_accuracy:7.2%}"
        f"  test {epoch.test_accuracy:7.2%}  lr {epoch.lr:.1e}"
    )


def summary(result: dict[str, Any], shipped: Shipped) -> str:
    """Say in a few lines what came out."""
    report, labels = shipped.report, shipped.report.labels
    worst = max(report.outputs, key=lambda one: one.ratio)
    lines = [
        f"{result['settings']['net']}: {result['parameters']} parameters",
        f"  BatchNormalization: {shipped.before} → {shipped.after}",
        f"  verify: {report.verdict}; the largest difference is {worst.ratio:.2g} times the"
        f" original's own rounding noise (limit {worst.limit:g})",
    ]
    if labels is not None:
        lines.append(
            f"  {labels.samples} test images in ONNX Runtime: {labels.accuracy_original:.2%}"
            f" right before, {labels.accuracy_folded:.2%} after, {labels.agreement:.2%} alike"
        )
    return "\n".join([*lines, f"  written: {shipped.original}, {shipped.folded}"])


def described(training: Training, shipped: Shipped) -> dict[str, Any]:
    """Return what is known of a trained network, for ``result.json``."""
    last, images = training.history[-1], training.digits.test_labels
    return {
        "file": shipped.original.name,
        "parameters": sum(one.numel() for one in training.net.parameters()),
        "batch_norms": shipped.before,
        "batch_norms_folded": shipped.after,
        "test_accuracy": last.test_accuracy,
        "test_errors": round((1 - last.test_accuracy) * len(images)),
        "verdict": shipped.report.verdict,
        "device": training.device,
        "settings": asdict(training.settings),
    }


def copy_results(folders: dict[str, Path], place: Path) -> None:
    """Copy networks that were verified, and write ``digits.json``, which describes them."""
    import onnx
    import torch

    from models import checkpoints, digits

    path = place / "digits.json"
    nets = json.loads(path.read_text(encoding="utf-8"))["nets"] if path.exists() else {}
    for name, folder in folders.items():
        nets[name] = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
        file = nets[name]["file"]
        checkpoints.write_whole(place / file, (folder / file).read_bytes())
    record = {
        "data": "scikit-learn load_digits",
        "split": {
            "test_images": digits.TEST_IMAGES,
            "seed": digits.SPLIT_SEED,
            "stratified": True,
        },
        "exporter": "torchscript",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
        },
        "nets": nets,
    }
    checkpoints.write_whole(path, (json.dumps(record, indent=2) + "\n").encode())


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    try:
        command.main(arguments, prog_name="python -m models.train", standalone_mode=False)
    except (KeyboardInterrupt, click.exceptions.Abort):
        say("interrupted: --resume goes on after the last epoch that was finished")
        sys.exit(_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BnfoldError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
