"""The user's own inputs: every source is read, and what does not fit is said in full."""

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from bnfold.errors import DataError, UsageError
from bnfold.inputs.samples import read_samples
from bnfold.inputs.signature import Slot
from bnfold.inputs.sizes import sized


def slot(name="x", dims=("n", 3, 4), kind=ir.DataType.FLOAT):
    return Slot(name, ir.TensorType(kind), dims)


X, Y = slot("x"), slot("y", ("n", 2))
ONE = np.arange(12, dtype=np.float32).reshape(1, 3, 4)


def test_npz_by_name_and_a_single_array_under_any_name(tmp_path):
    np.savez(tmp_path / "both.npz", y=np.ones((1, 2), np.float32), x=ONE)
    np.savez(tmp_path / "one.npz", images=ONE)
    (found,) = read_samples([tmp_path / "both.npz"], [X, Y])
    assert list(found) == ["x", "y"]
    (found,) = read_samples([str(tmp_path / "one.npz")], [X])
    assert np.array_equal(found["x"], ONE)


def test_npy_folders_are_one_set_by_name_or_one_set_per_file(tmp_path):
    named, many = tmp_path / "named", tmp_path / "many"
    for folder in (named, many):
        folder.mkdir()
    np.save(named / "x.npy", ONE)
    np.save(named / "y.npy", np.ones((1, 2), np.float32))
    for index in range(3):
        np.save(many / f"{index}.npy", ONE + index)
    (found,) = read_samples([named], [X, Y])
    assert np.array_equal(found["x"], ONE)
    found = read_samples([many], [X])
    assert [one["x"][0, 0, 0] for one in found] == [0, 1, 2]
    assert np.array_equal(read_samples([many / "1.npy"], [X])[0]["x"], ONE + 1)


def test_onnx_test_sets_go_by_number(tmp_path):
    for index in range(2):
        folder = tmp_path / f"test_data_set_{index}"
        folder.mkdir()
        given = {"input_0": ONE + index, "input_1": np.ones((1, 2), np.float32)}
        for name, array in given.items():
            (folder / f"{name}.pb").write_bytes(
                numpy_helper.from_array(array).SerializeToString()
            )
        (folder / "output_0.pb").write_bytes(b"")
    found = read_samples([tmp_path], [X, Y])
    assert [float(one["x"].min()) for one in found] == [0.0, 1.0]
    pb = tmp_path / "test_data_set_1" / "input_0.pb"
    assert np.array_equal(read_samples([pb], [X])[0]["x"], ONE + 1)
    with pytest.raises(DataError, match="more inputs than the model has") as error:
        read_samples([tmp_path], [X])
    assert "input_1.pb" in error.value.where


def test_code_yields_dicts_or_arrays(tmp_path, monkeypatch):
    (tmp_path / "my_inputs.py").write_text(
        "import numpy as np\n"
        "def some():\n"
        "    for k in range(2):\n"
        "        yield {'x': np.full((1, 3, 4), k, np.float32)}\n"
        "def broken():\n"
        "    raise ValueError('no data today')\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    found = read_samples(["my_inputs:some"], [X])
    assert [one["x"].max() for one in found] == [0, 1]
    assert len(read_samples([lambda: ONE], [X])) == 1
    assert len(read_samples([lambda: [ONE, ONE]], [X])) == 2
    with pytest.raises(DataError, match="ValueError: no data today"):
        read_samples(["my_inputs:broken"], [X])
    with pytest.raises(DataError, match="not a callable"):
        read_samples(["my_inputs:number"], [X])
    with pytest.raises(DataError, match="cannot import the inputs"):
        read_samples(["my_inputs:nothing"], [X])
    with pytest.raises(DataError, match="it is a object"):
        read_samples([lambda: object()], [X])


def test_samples_beyond_a_fixed_batch_are_cut(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((6, 3, 4), np.float32))
    assert len(read_samples([tmp_path / "x.npy"], [slot(dims=(2, 3, 4))])) == 3
    assert len(read_samples([tmp_path / "x.npy"], [X])) == 1


def test_bfloat16_comes_as_numpy_can_store_it(tmp_path):
    half = slot(kind=ir.DataType.BFLOAT16)
    for index, array in enumerate((ONE, ONE.astype(ml_dtypes.bfloat16))):
        np.save(tmp_path / f"{index}.npy", array)
        (found,) = read_samples([tmp_path / f"{index}.npy"], [half])
        assert found["x"].dtype == ml_dtypes.bfloat16
        assert found["x"][0, 2, 3] == 11


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"z": ONE}, ["input 'x' is missing", "it has 'z'", "the model reads 'x', 'y'"]),
        ({"x": ONE, "y": ONE[0, :1, :2], "z": ONE}, ["no input is 'z'"]),
        (
            {"x": ONE.astype(np.float64), "y": ONE[0, :1, :2]},
            ["reads float32, given is float64", "array.astype('float32')"],
        ),
        (
            {"x": ONE[:, :2], "y": ONE[0, :1, :2]},
            ["input 'x' has another shape", "reads n×3×4, given is 1×2×4"],
        ),
        ({"x": ONE[0], "y": ONE[0, :1, :2]}, ["reads n×3×4, given is 3×4"]),
        (
            {"x": ONE, "y": ONE[0, :2, :2]},
            ["inputs 'x' and 'y' do not go together", "'n' is 1 in one and 2 in the other"],
        ),
    ],
)
def test_what_does_not_fit_names_file_input_and_shapes(tmp_path, arrays, words):
    path = tmp_path / "given.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError) as error:
        read_samples([path], [X, Y])
    assert error.value.exit_code == 3
    assert str(path) in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_what_cannot_be_read_names_the_file(tmp_path):
    for name in ("a.npz", "a.npy", "a.pb"):
        (tmp_path / name).write_bytes(b"\xff\xff nothing of the kind")
        with pytest.raises(DataError, match="cannot be read") as error:
            read_samples([tmp_path / name], [X])
        assert name in error.value.where
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"a \.npz, \.npy or \.pb file"):
        read_samples([tmp_path / "a.jpg"], [X])
    with pytest.raises(DataError, match="there is no such file"):
        read_samples([tmp_path / "none.npz"], [X])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there are no inputs"):
        read_samples([tmp_path / "empty"], [X])
    np.save(tmp_path / "one.npy", ONE)
    with pytest.raises(DataError, match="not said which input"):
        read_samples([tmp_path / "one.npy"], [X, Y])


def test_sizes_go_through_ranges_and_bind_symbols():
    shapes = [tuple(one.dims for one in turn) for turn in sized([X, Y], ["x=1..5x3x4"])]
    assert shapes == [((n, 3, 4), (n, 2)) for n in (1, 3, 5)]
    assert sized([X], ["2x3x4"])[0][0].dims == (2, 3, 4)
    assert [turn[0].dims for turn in sized([X], ["x=2x3x4", "x=7x3x4"])] == [
        (2, 3, 4),
        (7, 3, 4),
    ]
    assert sized([X, Y], {"x": (2, 3, 4)})[0][1].dims == (2, 2)
    assert sized([X, Y], ()) == ((X, Y),)


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ("x=axb", "not a list of sizes"),
        ("x=5..2x3x4", "not a list of sizes"),
        ("z=1x3", "the model's inputs are 'x', 'y'"),
        ("x=1x5x4", "the model reads n×3×4, not 1×5×4"),
        ("x=1x3", "the model reads n×3×4, not 1×3"),
    ],
)
def test_sizes_that_make_no_sense_are_said(shape, why):
    with pytest.raises(UsageError, match="this shape cannot be used") as error:
        sized([X, Y], [shape])
    assert why in str(error.value)
