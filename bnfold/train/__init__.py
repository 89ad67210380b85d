"""BatchNorm for training: torch's modules, with activation and residual in the same pass."""

from bnfold.train.convert import convert, fusions, revert
from bnfold.train.functional import batch_norm
from bnfold.train.memory import SavedBytes, recompute, saved_bytes
from bnfold.train.modules import BatchNorm1d, BatchNorm2d, BatchNorm3d, FusedBatchNorm
from bnfold.train.recalibration import Recalibrated, recalibrate
from bnfold.train.synchronised import SyncBatchNorm, convert_sync_batchnorm

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "FusedBatchNorm",
    "Recalibrated",
    "SavedBytes",
    "SyncBatchNorm",
    "batch_norm",
    "convert",
    "convert_sync_batchnorm",
    "fusions",
    "recalibrate",
    "recompute",
    "revert",
    "saved_bytes",
]
