"""Laws of the algebra, over drawn maps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.affine import Affine
from tests.strategies import affines, numbers


def close(left: Affine, right: Affine) -> bool:
    if left.axis != right.axis:
        return False
    return np.allclose(left.scale, right.scale, rtol=1e-9, atol=1e-9) and np.allclose(
        left.shift, right.shift, rtol=1e-9, atol=1e-6
    )


@given(affines(channels=4, axis=1), affines(channels=4, axis=1), affines(channels=4, axis=1))
def test_composition_is_associative(a, b, c):
    assert close(a.then(b).then(c), a.then(b.then(c)))


@given(affines(channels=3, axis=1), affines(channels=3, axis=1))
def test_composition_is_application_after_application(a, b):
    x = np.linspace(-2, 2, 24).reshape(2, 3, 4)
    assert np.allclose(a.then(b)(x), b(a(x)), atol=1e-9)


@given(affines())
def test_the_identity_changes_nothing(a):
    assert close(a.then(Affine.uniform()), a)
    assert close(Affine.uniform().then(a), a)


@given(affines())
def test_the_inverse_undoes(a):
    there_and_back = a.then(a.inverse())
    assert np.allclose(there_and_back.scale, 1.0)
    assert np.allclose(there_and_back.shift, 0.0, atol=1e-6)


@given(affines(channels=3, axis=1))
def test_a_map_and_its_inverse_leave_nothing(a):
    """1 + 2e-16 would be a factor that is stored, as 1, and that the next fold finds."""
    if a.is_invertible:
        assert a.then(a.inverse()).is_identity


def test_numbers_next_to_one_and_nothing_stay_where_they_are_meant():
    near = np.nextafter(1.0, 2.0)
    assert Affine.uniform(near).then(Affine.uniform(1.0, 0.0)).scale[0] == near
    off = Affine.uniform(1.0, 1.0).then(Affine.uniform(1.0, -np.float32(1 + 2**-23)))
    assert off.shift[0] == -(2.0**-23)


def test_a_zero_scale_has_no_inverse():
    with pytest.raises(ZeroDivisionError):
        Affine.per_channel(1, [1.0, 0.0]).inverse()


@given(affines(axis=1), st.integers(1, 3), st.integers(1, 3))
def test_repeat_spreads_as_a_reshape_does(a, inner, outer):
    channels = a.channels or 1
    x = np.arange(float(outer * channels * inner)).reshape(outer, channels, inner)
    spread = a.repeat(inner, outer).on_axis(0)
    assert np.allclose(spread(x.reshape(-1)), a.on_axis(1)(x).reshape(-1))


@given(affines(channels=5, axis=1), st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_take_chooses_channels(a, indices):
    x = np.linspace(-1, 1, 10).reshape(2, 5)
    assert np.allclose(a.take(indices)(x[:, indices]), a(x)[:, indices])


@given(affines(channels=3, axis=1), affines(channels=2, axis=1), numbers)
def test_concat_joins_maps_of_joined_values(a, b, number):
    x, y, z = np.ones((2, 3)), np.full((2, 2), 2.0), np.full((2, 1), 3.0)
    uniform = Affine.uniform(shift=number)
    joined = Affine.concat(1, [(a, 3), (b, 2), (uniform, 1)])
    whole = np.concatenate([x, y, z], axis=1)
    assert np.allclose(joined(whole), np.concatenate([a(x), b(y), uniform(z)], axis=1))


@given(affines(channels=3, axis=1), st.permutations(range(3)))
def test_permute_follows_a_transpose(a, perm):
    x = np.arange(24.0).reshape(2, 3, 4)
    assert np.allclose(a.permute(perm)(x.transpose(perm)), a(x).transpose(perm))


@given(affines(channels=3, axis=1))
def test_the_parts_make_the_whole(a):
    assert close(a.scale_only().then(a.shift_only()), a)
    assert close(a.shift_before_scale().then(a.scale_only()), a)


def test_equal_entries_are_one_entry_without_an_axis():
    assert Affine.per_channel(1, [2.0, 2.0], [1.0, 1.0]).axis is None
    assert Affine.per_channel(None, 2.0).scale.tolist() == [2.0]


def test_maps_on_two_axes_have_no_product():
    left, right = Affine.per_channel(1, [1.0, 2.0]), Affine.per_channel(2, [1.0, 2.0])
    assert not left.composes_with(right)
    with pytest.raises(ValueError, match="axes 1 and 2"):
        left.then(right)


def test_a_map_of_other_length_does_not_fit():
    with pytest.raises(ValueError, match="2 channels does not fit 3"):
        Affine.per_channel(1, [1.0, 2.0]).entries(3)


def test_several_entries_need_an_axis():
    with pytest.raises(ValueError, match="non-negative axis"):
        Affine.per_channel(None, [1.0, 2.0])


def test_values_cannot_be_changed_from_outside():
    affine = Affine.per_channel(1, [1.0, 2.0])
    with pytest.raises(ValueError, match="read-only"):
        affine.scale[0] = 5.0


def test_a_map_of_no_elements_is_the_identity():
    """A Gather of no index takes no entry of a map: that ended in an IndexError once."""
    taken = Affine.per_channel(1, [2.0, 3.0], [1.0, 0.0]).take(np.array([], np.int64))
    assert taken.is_identity
