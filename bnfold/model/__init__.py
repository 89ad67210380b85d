"""The ONNX model: read it, write it, ask it for facts; the only hands that edit it."""
