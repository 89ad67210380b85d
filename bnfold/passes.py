"""bnfold as passes of onnx_ir, for pipelines that have others."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from bnfold.folding.fold import fold_in_place
from bnfold.folding.selection import Selection
from bnfold.records import FoldReport, Permissions


class FoldAffine(ir.passes.InPlacePass):
    """Fold affine maps into neighbouring weights, in place.

    The pass does not check its result; `bnfold.fold` does. The report of the last call is in
    ``report``.
    """

    def __init__(
        self,
        *,
        only: Sequence[str] = (),
        skip: Sequence[str] = (),
        assume_constant_inputs: bool = False,
        assume_inference: bool = False,
        norms: bool = False,
        requantize_bias: bool = False,
        strict: bool = False,
    ) -> None:
        """Take the same choices as `bnfold.fold`."""
        super().__init__()
        self._selection = Selection(tuple(only), tuple(skip))
        self._permissions = Permissions(
            constant_inputs=assume_constant_inputs,
            inference=assume_inference,
            norms=norms,
            requantized_bias=requantize_bias,
            strict=strict,
        )
        self.report: FoldReport | None = None

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold ``model``; ``modified`` tells whether any map moved.

        Raises:
            ModelError: If a BatchNormalization has parameters that make no sense.
        """
        self.report = fold_in_place(model, self._selection, self._permissions)
        return ir.passes.PassResult(model, modified=bool(self.report.steps))
