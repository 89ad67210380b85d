"""A reference that computes ONNX models in float64."""

from bnfold.evidence.reference.arrays import NoKernelError, widen
from bnfold.evidence.reference.evaluator import Evaluator, Fallback
from bnfold.evidence.reference.fallback import runtime_fallback
from bnfold.evidence.reference.nodes import evaluate_node

__all__ = [
    "Evaluator",
    "Fallback",
    "NoKernelError",
    "evaluate_node",
    "runtime_fallback",
    "widen",
]
