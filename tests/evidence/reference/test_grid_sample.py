"""AffineGrid and GridSample against torch in float64."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evidence.reference.nodes import close, evaluate

torch = pytest.importorskip("torch")

MODES = {"linear": "bilinear", "nearest": "nearest", "cubic": "bicubic"}


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("size", [(5, 6), (1, 4), (3, 4, 5)])
def test_grid_sample(rng, mode, padding, corners, size):
    rank = len(size)
    if mode == "cubic" and rank == 3:
        pytest.skip("torch has none either")
    x = rng.standard_normal((2, 3, *size))
    grid = rng.uniform(-2.5, 2.5, (2, *(4, 3, 2)[:rank], rank))
    tensors = torch.from_numpy(x), torch.from_numpy(grid)
    wanted = torch.nn.functional.grid_sample(*tensors, MODES[mode], padding, bool(corners))
    attributes = {"mode": mode, "padding_mode": padding, "align_corners": corners}
    close(evaluate("GridSample", x, grid, opset=20, **attributes), wanted)
    if rank == 2:
        older = attributes | {"mode": MODES[mode]}
        close(evaluate("GridSample", x, grid, opset=16, **older), wanted)


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("size", [(5, 6), (2, 4), (3, 4, 5)])
def test_affine_grid(rng, corners, size):
    rank = len(size)
    theta = rng.standard_normal((2, rank, rank + 1))
    whole = (2, 3, *size)
    wanted = torch.nn.functional.affine_grid(
        torch.from_numpy(theta), whole, align_corners=bool(corners)
    )
    sizes = np.array(whole, np.int64)
    close(evaluate("AffineGrid", theta, sizes, opset=20, align_corners=corners), wanted)
