"""The table of rules: one file per operator kind, one line here."""

from __future__ import annotations

from typing import Final

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
from bnfold.rules.depth_to_space import DepthToSpace, SpaceToDepth
from bnfold.rules.dequantize import DequantizeLinear
from bnfold.rules.einsum import Einsum
from bnfold.rules.expand import Expand, Tile
from bnfold.rules.gather import Gather, Slice
from bnfold.rules.gemm import Gemm
from bnfold.rules.group_norm import GroupNormalization, InstanceNormalization
from bnfold.rules.identity import Dropout, Identity
from bnfold.rules.layer_norm import LayerNormalization, RMSNormalization
from bnfold.rules.matmul import MatMul
from bnfold.rules.mul_add import Add, Div, Mul, Neg, Sub
from bnfold.rules.pad import Pad
from bnfold.rules.pool import AveragePool, MaxPool
from bnfold.rules.reduce import ReduceMax, ReduceMean, ReduceSum
from bnfold.rules.relu import Relu
from bnfold.rules.reshape import Reshape
from bnfold.rules.resize import Resize
from bnfold.rules.sum_mean import Sum
from bnfold.rules.transpose import Transpose

RULES: Final[dict[str, Rule]] = {
    "Add": Add(),
    "AveragePool": AveragePool(),
    "BatchNormalization": BatchNormalization(),
    "Cast": Cast(),
    "Clip": Clip(),
    "Concat": Concat(),
    "Conv": Conv(),
    "ConvTranspose": ConvTranspose(),
    "DepthToSpace": DepthToSpace(),
    "DequantizeLinear": DequantizeLinear(),
    "Div": Div(),
    "Dropout": Dropout(),
    "Einsum": Einsum(),
    "Expand": Expand(),
    "Flatten": Reshape(),
    "Gather": Gather(),
    "Gemm": Gemm(),
    "GlobalAveragePool": AveragePool(),
    "GlobalMaxPool": MaxPool(),
    "GroupNormalization": GroupNormalization(),
    "HardSigmoid": HardSigmoid(),
    "Identity": Identity(),
    "If": If(),
    "InstanceNormalization": InstanceNormalization(),
    "LayerNormalization": LayerNormalization(),
    "LeakyRelu": Relu(),
    "LogSoftmax": Softmax(),
    "Loop": Loop(),
    "MatMul": MatMul(),
    "Max": Max(),
    "MaxPool": MaxPool(),
    "Mean": Sum(),
    "Min": Max(),
    "Mul": Mul(),
    "Neg": Neg(),
    "PRelu": Relu(),
    "Pad": Pad(),
    "RMSNormalization": RMSNormalization(),
    "ReduceMax": ReduceMax(),
    "ReduceMean": ReduceMean(),
    "ReduceMin": ReduceMax(),
    "ReduceSum": ReduceSum(),
    "Relu": Relu(),
    "Reshape": Reshape(),
    "Resize": Resize(),
    "Scan": Scan(),
    "Slice": Slice(),
    "Softmax": Softmax(),
    "SpaceToDepth": SpaceToDepth(),
    "Split": Split(),
    "Squeeze": Reshape(),
    "Sub": Sub(),
    "Sum": Sum(),
    "Tile": Tile(),
    "Transpose": Transpose(),
    "Unsqueeze": Reshape(),
    "Upsample": Resize(),
    "Where": Where(),
}
"""What each operator of the default domain does with a map."""

NO_RULE: Final = Rule()
"""What every other operator does: stop it."""

__all__ = ["NO_RULE", "RULES"]
