"""The table of rules: one file per operator kind, one line here."""

from __future__ import annotations

from typing import Final

from bnfold.rules.abs import Abs
from bnfold.rules.activations import HardSigmoid, Softmax
from bnfold.rules.base import Rule
from bnfold.rules.batch_norm import BatchNormalization
from bnfold.rules.cast import Cast
from bnfold.rules.choose import Max, Where
from bnfold.rules.clip import Clip
from bnfold.rules.concat import Concat, Split
from bnfold.rules.control import If, Loop, Scan
from bnfold.rules.conv import Conv
from bnfold.rules.conv_transpose import ConvTranspose
from bnfold.rules.cum_sum import CumSum
from bnfold.rules.depth_to_space import DepthToSpace, SpaceToDepth
from bnfold.rules.dequantize import DequantizeLinear
from bnfold.rules.einsum import Einsum
from bnfold.rules.expand import Expand, Tile
from bnfold.rules.gather import Gather, Slice
from bnfold.rules.gather_elements import GatherElements, GatherND, ReverseSequence
from bnfold.rules.gemm import Gemm
from bnfold.rules.group_norm import GroupNormalization, InstanceNormalization
from bnfold.rules.identity import Dropout, Identity
from bnfold.rules.layer_norm import LayerNormalization, RMSNormalization
from bnfold.rules.matmul import MatMul
from bnfold.rules.mul_add import Add, Div, Mul, Neg, Sub
from bnfold.rules.pad import Pad
from bnfold.rules.pool import AveragePool, MaxPool
from bnfold.rules.quantizing import Quantizing
from bnfold.rules.recurrent import Recurrent
from bnfold.rules.reduce import ReduceMax, ReduceMean, ReduceSum
from bnfold.rules.relu import Relu
from bnfold.rules.reshape import Reshape
from bnfold.rules.resize import Resize
from bnfold.rules.sum_mean import Sum
from bnfold.rules.thresholded_relu import ThresholdedRelu
from bnfold.rules.top_k import TopK
from bnfold.rules.transpose import Transpose
from bnfold.rules.trilu import Trilu

RULES: Final[dict[str, Rule]] = {
    "Abs": Abs(1, 6, 13),
    "Add": Add(1, 6, 7, 13, 14),
    "AveragePool": AveragePool(1, 7, 10, 11, 19, 22),
    "BatchNormalization": BatchNormalization(1, 6, 7, 9, 14, 15),
    "Cast": Cast(6, 9, 13, 19, 21, 23, 24, 25, 28),
    "Clip": Clip(1, 6, 11, 12, 13),
    "Concat": Concat(1, 4, 11, 13),
    "Conv": Conv(1, 11, 22),
    "ConvInteger": Quantizing(10),
    "ConvTranspose": ConvTranspose(1, 11, 22),
    "CumSum": CumSum(11, 14),
    "DepthToSpace": DepthToSpace(1, 11, 13, 28),
    "DequantizeLinear": DequantizeLinear(10, 13, 19, 21, 23, 24, 25, 28),
    "Div": Div(1, 6, 7, 13, 14),
    "Dropout": Dropout(1, 6, 7, 10, 12, 13, 22),
    "DynamicQuantizeLinear": Quantizing(11),
    "Einsum": Einsum(12, 28),
    "Expand": Expand(8, 13),
    "Flatten": Reshape(1, 9, 11, 13, 21, 23, 24, 25),
    "GRU": Recurrent(1, 3, 7, 14, 22),
    "Gather": Gather(1, 11, 13),
    "GatherElements": GatherElements(11, 13),
    "GatherND": GatherND(11, 12, 13),
    "Gemm": Gemm(1, 6, 7, 9, 11, 13),
    "GlobalAveragePool": AveragePool(1, 22),
    "GlobalMaxPool": MaxPool(1, 22),
    "GroupNormalization": GroupNormalization(18, 21),
    "HardSigmoid": HardSigmoid(1, 6, 22),
    "Identity": Identity(1, 13, 14, 16, 19, 21, 23, 24, 25),
    "If": If(1, 11, 13, 16, 19, 21, 23, 24, 25),
    "InstanceNormalization": InstanceNormalization(1, 6, 22),
    "LSTM": Recurrent(1, 7, 14, 22),
    "LayerNormalization": LayerNormalization(17),
    "LeakyRelu": Relu(1, 6, 16),
    "LogSoftmax": Softmax(1, 11, 13),
    "Loop": Loop(1, 11, 13, 16, 19, 21, 23, 24, 25),
    "MatMul": MatMul(1, 9, 13),
    "MatMulInteger": Quantizing(10),
    "Max": Max(1, 6, 8, 12, 13),
    "MaxPool": MaxPool(1, 8, 10, 11, 12, 22),
    "Mean": Sum(1, 6, 8, 13),
    "Min": Max(1, 6, 8, 12, 13),
    "Mul": Mul(1, 6, 7, 13, 14),
    "Neg": Neg(1, 6, 13),
    "PRelu": Relu(1, 6, 7, 9, 16),
    "Pad": Pad(2, 11, 13, 18, 19, 21, 23, 24, 25),
    "QLinearConv": Quantizing(10),
    "QLinearMatMul": Quantizing(10, 21),
    "QuantizeLinear": Quantizing(10, 13, 19, 21, 23, 24, 25, 28),
    "RMSNormalization": RMSNormalization(23),
    "RNN": Recurrent(1, 7, 14, 22),
    "ReduceMax": ReduceMax(1, 11, 12, 13, 18, 20),
    "ReduceMean": ReduceMean(1, 11, 13, 18),
    "ReduceMin": ReduceMax(1, 11, 12, 13, 18, 20),
    "ReduceSum": ReduceSum(1, 11, 13),
    "Relu": Relu(1, 6, 13, 14),
    "Reshape": Reshape(1, 5, 13, 14, 19, 21, 23, 24, 25),
    "Resize": Resize(10, 11, 13, 18, 19),
    "ReverseSequence": ReverseSequence(10, 28),
    "Scan": Scan(9, 11, 16, 19, 21, 23, 24, 25),
    "Slice": Slice(1, 10, 11, 13),
    "Softmax": Softmax(1, 11, 13),
    "SpaceToDepth": SpaceToDepth(1, 13, 28),
    "Split": Split(2, 11, 13, 18),
    "Squeeze": Reshape(1, 11, 13, 21, 23, 24, 25),
    "Sub": Sub(1, 6, 7, 13, 14),
    "Sum": Sum(1, 6, 8, 13),
    "ThresholdedRelu": ThresholdedRelu(10, 22),
    "Tile": Tile(6, 13),
    "TopK": TopK(1, 10, 11, 24),
    "Transpose": Transpose(1, 13, 21, 23, 24, 25),
    "Trilu": Trilu(14),
    "Unsqueeze": Reshape(1, 11, 13, 21, 23, 24, 25),
    "Upsample": Resize(7, 9, 10),
    "Where": Where(9, 16),
}
"""What each operator of the default domain does with a map.

The numbers are the versions that the rule was checked against, named after the operator set
that brought them: all from the first on that it understands. A test compares them with the
schemas of the installed onnx.
"""

NO_RULE: Final = Rule()
"""What every other operator does: stop it."""

__all__ = ["NO_RULE", "RULES"]
