"""BatchNorm's formula in plain torch, its Triton kernels, and how they are launched.

`layout` and `reference` need torch only; `forward`, `backward` and `launch` import triton.
"""
