"""Write a torch network as ONNX with each of torch's exporters, and count what they keep.

``python -m models.exporting`` prints how many BatchNormalization nodes each setting leaves in
each recipe: the table of ``models/README.md``. Whatever an exporter says about the machine it
ran on (stack traces with file names in the metadata of nodes) is removed, so that the files
are the same wherever they were made.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Final

import onnx
import torch
from torch import Tensor, nn
from torch.onnx import TrainingMode

from bnfold.exporting.tidy import forget_the_machine
from models.recipes import RECIPES, build, example

_OPSET_OF_TORCHSCRIPT: Final = 18


def _by_torchscript(net: nn.Module, inputs: Tensor, **settings: object) -> onnx.ModelProto:
    """Export through tracing, the older exporter."""
    file = io.BytesIO()
    torch.onnx.export(
        net,
        (inputs,),
        file,
        dynamo=False,
        opset_version=_OPSET_OF_TORCHSCRIPT,
        input_names=["input"],
        output_names=["output"],
        dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
        **settings,
    )
    return onnx.load_from_string(file.getvalue())


def _by_dynamo(net: nn.Module, inputs: Tensor, **settings: object) -> onnx.ModelProto:
    """Export through torch.export, the default exporter of today."""
    program = torch.onnx.export(
        net,
        (inputs,),
        dynamo=True,
        verbose=False,
        input_names=["input"],
        output_names=["output"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        **settings,
    )
    return program.model_proto


#: Name of a setting -> how to export with it.
SETTINGS: Final[dict[str, Callable[[nn.Module, Tensor], onnx.ModelProto]]] = {
    "torchscript-preserve": lambda net, x: _by_torchscript(
        net, x, training=TrainingMode.PRESERVE
    ),
    "torchscript-eval": _by_torchscript,
    "torchscript-eval-unfolded": lambda net, x: _by_torchscript(
        net, x, do_constant_folding=False
    ),
    "dynamo": _by_dynamo,
    "dynamo-unoptimized": lambda net, x: _by_dynamo(net, x, optimize=False),
}


def export(net: nn.Module, inputs: Tensor, setting: str) -> onnx.ModelProto:
    """Export ``net``, in eval mode, with one of ``SETTINGS``; the batch size stays open."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own remarks about their future
        model = SETTINGS[setting](net.eval(), inputs)
    forget_the_machine(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def count_kept(name: str, setting: str) -> int:
    """Return how many BatchNormalization nodes a recipe has after an export."""
    model = export(build(name), example(name), setting)
    return sum(node.op_type == "BatchNormalization" for node in model.graph.node)


def main() -> None:
    """Print the table of recipes by settings in Markdown."""
    print("| recipe | in torch |", *(f"{setting} |" for setting in SETTINGS))
    print("|---|--:|" + "--:|" * len(SETTINGS))
    for name, recipe in RECIPES.items():
        counts = (f"{count_kept(name, setting)} |" for setting in SETTINGS)
        print(f"| {name} | {recipe.batch_norms} |", *counts, flush=True)


if __name__ == "__main__":
    main()
