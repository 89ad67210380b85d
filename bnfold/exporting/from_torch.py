"""From a torch module to a folded ONNX file that was verified: what `bnfold.export` does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bnfold.errors import refused_by_disk
from bnfold.exporting.presence import require_torch
from bnfold.files.apart import Write, check_apart
from bnfold.files.pairs import data_path
from bnfold.files.scratch import scratch_folder
from bnfold.files.targets import check_writable, target_of
from bnfold.model.layout import Layout
from bnfold.runtime import require

if TYPE_CHECKING:
    from torch import nn

    from bnfold.exporting.axes import Dynamic
    from bnfold.exporting.result import ExportResult


@np.errstate(all="ignore")  # what overflows is found and named, not warned of
def export(
    model: nn.Module,
    args: object,
    path: str | Path,
    *,
    kwargs: Mapping[str, Any] | None = None,
    fold: bool = True,
    verify: bool = True,
    exporter: str = "dynamo",
    opset: int | None = None,
    dynamic: Dynamic = (),
    dynamic_batch: bool = False,
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
    eval_mode: bool = False,
    unfolded: str | Path | None = None,
    certificate: bool = False,
    external_data: str = "keep",
    size_threshold: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> ExportResult:
    """Write a torch module as ONNX, fold it, and verify it against torch.

    The module is left as it was: its weights, its buffers, and what is in train mode.

    Args:
        model: A module in eval mode.
        args: What it is called with: a tensor, a tuple of arguments, or arguments by name.
        path: Where to write the model. The file appears whole or not at all.
        kwargs: Arguments by name.
        fold: Fold BatchNormalization and other affine maps into the weights.
        verify: Run the file that is to be written on ONNX Runtime, and judge its error by
            torch's own; and the fold against the export without it.
        exporter: ``dynamo`` or ``torchscript``.
        opset: Version of ONNX's operators; None for the exporter's choice.
        dynamic: Sizes that stay open: ``"x.0=batch,x.2=height"``, several of these, or
            ``{"x": {0: "batch"}}``. Inputs are named after the parameters of ``forward``.
        dynamic_batch: Leave the first size of every input open, as ``batch``.
        input_names: Names of the inputs, the first first.
        output_names: Names of the outputs, the first first.
        eval_mode: Export a module in train mode as it is in eval mode.
        unfolded: Where to write the model as it was before the fold, too.
        certificate: Also write down what the fold did: `ExportResult.certificate`.
        external_data: Where weights go: ``keep``, as the exporter lays them; ``one`` file
            beside the model; ``per-tensor``, a file for each; ``inline``, into the model.
        size_threshold: Tensors of fewer bytes go into the model; None for as they lay.
        seed: Of inputs and noise.
        progress: Told in words what is being done.

    Raises:
        MissingDependencyError: If torch is not installed, or no runtime to verify with.
        ModelError: If the module is in train mode, does not run, or cannot be exported.
        UsageError: If arguments, names, axes or the layout make no sense.
        CheckFailedError: If the model computes something else; nothing is written then.
        OutputError: If the file cannot be written.
    """
    layout = Layout.of(external_data, size_threshold)
    require_torch(exporter)
    if verify:
        require("verify the export (verify=False and --no-verify go without)")
    places = [Path(path), *([] if unfolded is None else [Path(unfolded)])]
    for place in places:
        check_writable(place)
    check_apart(list(_writes(*places)), ())
    from bnfold.exporting.working import Wishes, carried_out

    wishes = Wishes(
        path=places[0],
        unfolded=None if unfolded is None else places[1],
        fold=fold,
        verify=verify,
        exporter=exporter,
        opset=opset,
        dynamic=dynamic,
        dynamic_batch=dynamic_batch,
        input_names=tuple(input_names),
        output_names=tuple(output_names),
        eval_mode=eval_mode,
        certificate=certificate,
        layout=layout,
        seed=seed,
        tell=progress or _silent,
    )
    try:
        with scratch_folder("export") as folder:
            return carried_out(model, args, kwargs, wishes, folder)
    except OSError as error:
        raise refused_by_disk(error) from error


def _writes(*places: Path) -> Iterator[Write]:
    """Both models, and the data files that they may have."""
    for place, what in zip(places, ("the model", "the unfolded model"), strict=False):
        yield Write(place, what)
        target = target_of(place)
        if not target.is_stream:
            yield Write(data_path(target.path), f"the data of {what}")


def _silent(_: str) -> None:
    """Tell nobody."""
