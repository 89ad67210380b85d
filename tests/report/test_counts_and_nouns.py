"""Counts have their nouns, and where nothing folds that is said in words."""

from __future__ import annotations

import onnx
import pytest

import bnfold
from bnfold.report.to_terminal import print_sites
from bnfold.report.to_text import fold_to_text
from bnfold.report.verify_text import verify_to_text
from tests.battery.graphs import Net
from tests.small import conv_bn


def test_nothing_to_fold_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """A table without rows said it, below "0 maps would go, 0 would stay"."""
    net = Net("plain")
    net.output(net.node("Relu", [net.input([1, 4])]))
    print_sites(bnfold.fold(net.model(), verify=False).report, "m.onnx")
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "m.onnx",
        "nothing to fold: no affine map to be moved, no operators that are cheaper as one",
    ]


def test_one_map_goes(capsys: pytest.CaptureFixture[str]) -> None:
    report = bnfold.fold(conv_bn(), verify=False).report
    print_sites(report, "m.onnx")
    assert "1 map would go, 0 would stay" in capsys.readouterr().out
    assert fold_to_text(report, None, "m.onnx", None).startswith("m.onnx: 1 fold, 0 maps stay")


def test_one_node_and_one_segment() -> None:
    model: onnx.ModelProto = conv_bn()
    result = bnfold.fold(model, verify=False)
    report = bnfold.verify(model, result.to_proto(), run=False)
    said = verify_to_text(report, "a.onnx", "b.onnx")
    assert "1 node the same, 1 segment evaluated, " in said
    assert "1 nodes" not in said
    assert "1 segments" not in said
