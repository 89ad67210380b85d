"""Recipes are followed by code of the checker's own; here it is held against the folder's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.evidence.proof.recipes import RecipeError, derive
from bnfold.folding.merging.taps import Form, Window, compose, embed


def nothing(name):
    return {"w": np.float32([[1, 2], [3, 4]])}.get(name)


@st.composite
def forms(draw, inputs, outputs, rank):
    groups = draw(st.sampled_from([g for g in (1, 2, 4) if inputs % g == 0 == outputs % g]))
    windows = tuple(
        Window.of(draw(st.sampled_from([1, 3])), draw(st.sampled_from([1, 2])), 1, (1, 1))
        for _ in range(rank)
    )
    return Form(outputs, inputs, groups, windows)


def numbers(form, seed):
    return np.random.default_rng(seed).standard_normal(form.shape)


@given(st.data(), st.integers(1, 2))
def test_a_sum_of_convolutions(data, rank):
    first = data.draw(forms(4, 4, rank))
    other = Form(
        4,
        4,
        data.draw(st.sampled_from([1, 2, 4])),
        tuple(Window(0, 1, 1, w.stride, w.extent) for w in first.windows),
    )
    whole = first.joined(other)
    a, b = numbers(first, 1), numbers(other, 2)
    recipe = {
        "made": "sum of convolutions",
        "settings": {
            "form": whole.as_data(),
            "parts": [
                {"sign": 1.0, "form": first.as_data()},
                {"sign": -1.0, "form": other.as_data()},
            ],
        },
        "of": [{"numbers": a}, {"numbers": b}],
    }
    expected = embed(a, first, whole) - embed(b, other, whole)
    np.testing.assert_allclose(derive(recipe, nothing), expected, atol=1e-12)


@given(st.data(), st.integers(1, 2))
def test_one_convolution_behind_another(data, rank):
    first, second = data.draw(forms(4, 8, rank)), data.draw(forms(8, 4, rank))
    a, b = numbers(first, 1), numbers(second, 2)
    recipe = {
        "made": "convolution behind convolution",
        "settings": {
            "form": first.then(second).as_data(),
            "first": first.as_data(),
            "second": second.as_data(),
        },
        "of": [{"numbers": a}, {"numbers": b}],
    }
    expected = compose(a, first, b, second)
    np.testing.assert_allclose(derive(recipe, nothing), expected, atol=1e-12)


def test_products_of_matrices():
    a, b = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    side = {"transposed": False, "factor": 2.0}
    behind = {
        "made": "product behind product",
        "settings": {"first": side, "second": side, "transposed": True},
        "of": [{"numbers": a}, {"numbers": b}],
    }
    np.testing.assert_array_equal(derive(behind, nothing), (4 * a @ b).T)
    outer = np.array([1.0, -1.0])
    added = {
        "made": "sum of products",
        "settings": {
            "constant_is_left": False,
            "transposed": False,
            "parts": [
                {"sign": 1.0, "outer": outer, "product": side},
                {"sign": -1.0, "outer": outer, "product": None},
            ],
        },
        "of": [{"value": "w"}],
    }
    expected = 2 * np.array([[1, 2], [3, 4]]) * outer - np.diag(outer)
    np.testing.assert_array_equal(derive(added, nothing), expected)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"value": "nobody"}, "no constant 'nobody'"),
        ({"made": "magic", "of": [], "settings": {}}, "magic"),
        ({"made": "map", "of": [{"value": "w"}], "settings": {}}, "make no sense"),
        ({"product": {"value": "w"}, "factors": [np.ones((3, 2, 2))]}, "changes the shape"),
    ],
)
def test_nonsense_is_an_error(recipe, said):
    with pytest.raises(RecipeError, match=said):
        derive(recipe, nothing)
