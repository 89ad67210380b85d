"""The table of rules: one file per operator kind, one line here."""

from __future__ import annotations

from typing import Final

from bnfold.rules.base import Rule
from bnfold.rules.batch_norm import BatchNormalization
from bnfold.rules.cast import Cast
from bnfold.rules.conv import Conv
from bnfold.rules.conv_transpose import ConvTranspose
from bnfold.rules.gemm import Gemm
from bnfold.rules.identity import Dropout, Identity
from bnfold.rules.matmul import MatMul
from bnfold.rules.mul_add import Add, Div, Mul, Neg, Sub
from bnfold.rules.reshape import Reshape
from bnfold.rules.transpose import Transpose

RULES: Final[dict[str, Rule]] = {
    "Add": Add(),
    "BatchNormalization": BatchNormalization(),
    "Cast": Cast(),
    "Conv": Conv(),
    "ConvTranspose": ConvTranspose(),
    "Div": Div(),
    "Dropout": Dropout(),
    "Flatten": Reshape(),
    "Gemm": Gemm(),
    "Identity": Identity(),
    "MatMul": MatMul(),
    "Mul": Mul(),
    "Neg": Neg(),
    "Reshape": Reshape(),
    "Squeeze": Reshape(),
    "Sub": Sub(),
    "Transpose": Transpose(),
    "Unsqueeze": Reshape(),
}
"""What each operator of the default domain does with a map."""

NO_RULE: Final = Rule()
"""What every other operator does: stop it."""

__all__ = ["NO_RULE", "RULES"]
