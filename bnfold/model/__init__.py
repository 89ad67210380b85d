"""The ONNX model: reading and writing it, asking it for facts, and the only hands that edit it."""
