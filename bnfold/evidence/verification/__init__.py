"""The end-to-end judge: any two models with one interface, on any inputs and providers."""

from bnfold.evidence.verification.end_to_end import Wishes, judge_end_to_end
from bnfold.inputs.samples import Inputs, read_samples

__all__ = ["Inputs", "Wishes", "judge_end_to_end", "read_samples"]
