"""The backend suite of the onnx package: every model as it is, and with maps around it."""
