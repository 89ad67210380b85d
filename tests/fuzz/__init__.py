"""Graphs drawn from the schemas of ONNX, every operator in every version."""
