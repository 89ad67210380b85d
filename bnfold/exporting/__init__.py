"""From a torch module to a folded ONNX model; with `train` the only part that loads torch."""
