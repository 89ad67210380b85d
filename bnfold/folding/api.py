"""`bnfold.fold`: from a file or a model to a folded model, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import onnx
import onnx_ir as ir

from bnfold.files.pairs import Saved
from bnfold.folding.fold import fold_in_place
from bnfold.folding.selection import Selection
from bnfold.model.io import UNSORTED, Openable, opened, to_proto
from bnfold.model.layout import Layout
from bnfold.model.save import save, save_over_source
from bnfold.model.validity import models_blamed
from bnfold.records import FoldReport, Permissions, VerifyReport


class Document(Protocol):
    """Something that can be written down."""

    def to_json(self) -> str:
        """Return it as JSON."""
        ...


@dataclass(frozen=True, slots=True)
class FoldResult:
    """A folded model and what was done to it.

    Attributes:
        model: The folded model. New weights are evaluated whenever they are read.
        report: What folded where, what stayed and why, operator counts.
        check: The comparison with the original; None when it was not asked for, or no
            runtime is installed.
        certificate: What the fold did, as data that `bnfold.verify` checks; None when it was
            not asked for.
    """

    model: ir.Model
    report: FoldReport
    check: VerifyReport | None = None
    certificate: Document | None = None

    def to_proto(self) -> onnx.ModelProto:
        """Return the folded model as a protobuf message."""
        return to_proto(self.model)

    def save(
        self,
        path: str | Path,
        *,
        external_data: str = "keep",
        size_threshold: int | None = None,
    ) -> Saved:
        """Write the folded model; the file appears whole or not at all.

        Args:
            path: Where its ``.onnx`` file goes.
            external_data: Where its weights go: ``keep``, as the original's lay; ``one`` file
                beside it; ``per-tensor``, a file for each; ``inline``, into the model. More
                than the 2 GB that a model file holds go beside it: see `Saved`.
            size_threshold: Tensors of fewer bytes go into the model; None for as they lay.

        Raises:
            UsageError: If that would overwrite a file that the model was read from, or there
                is no such layout.
            OutputError: If it cannot be written.
        """
        return save(self.model, path, Layout.of(external_data, size_threshold))

    def save_in_place(
        self, *, external_data: str = "keep", size_threshold: int | None = None
    ) -> Saved:
        """Replace the file that the model was read from, and its data.

        At every moment the file is the old model or the new one, with its own weights. The
        original is gone then: nothing can be compared with it any more.

        Args:
            external_data: As of `save`.
            size_threshold: As of `save`.

        Raises:
            UsageError: If it was not read from a file, or that has changed since, or there is
                no such layout.
            OutputError: If it cannot be written; the original is as it was then.
        """
        return save_over_source(self.model, Layout.of(external_data, size_threshold))


def fold_unchecked(
    model: Openable,
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    assume_constant_inputs: bool = False,
    assume_inference: bool = False,
    norms: bool = False,
    requantize_bias: bool = False,
    strict: bool = False,
) -> FoldResult:
    """Fold every affine map of a model into neighbouring weights, without checking the result.

    `bnfold.fold` is this and the check. ``model`` is left as it was.

    Args:
        model: Path of an ``.onnx`` file, an onnx.ModelProto or an onnx_ir.Model.
        only: Fold only sites whose operator kind or node name matches (shell wildcards).
        skip: Leave nodes alone whose operator kind or name matches.
        assume_constant_inputs: Treat initializers that are also graph inputs as constants.
        assume_inference: Read normalisations that were exported in training mode by their
            running statistics.
        norms: Move the affine tails of layer, RMS, group and instance normalisations too,
            though the normalisation stays and no operator is saved.
        requantize_bias: Allow a bias stored as integers to be rounded to new integers.
        strict: Make a variance that is negative or not finite an error. Otherwise its
            BatchNormalization stays, with a warning, and the rest is folded.

    Raises:
        ModelError: If the model cannot be read or makes no sense.
    """
    permissions = Permissions(
        constant_inputs=assume_constant_inputs,
        inference=assume_inference,
        norms=norms,
        requantized_bias=requantize_bias,
        strict=strict,
    )
    with models_blamed(model):
        return _folded(model, Selection(tuple(only), tuple(skip)), permissions)


def _folded(model: Openable, selection: Selection, permissions: Permissions) -> FoldResult:
    target = opened(model)
    report = fold_in_place(target, selection, permissions)
    warnings = list(report.warnings)
    if target.graph.meta.get(UNSORTED):
        warnings.append("the graph was not in topological order; it was sorted")
    return FoldResult(target, replace(report, warnings=tuple(warnings)))
