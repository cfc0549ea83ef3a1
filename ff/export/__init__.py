"""A trained network off the training framework: ONNX graphs, int8, the bundle, and whether it answers as torch does.

Needs the optional packages of the extra `edge`, which nothing else of ff imports.
"""
