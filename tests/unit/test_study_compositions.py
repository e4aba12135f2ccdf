"""Compositions: closed forms, inverses, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import gmean

from voxplain.errors import DataError
from voxplain.study.compositions import closed, clr, replace_zeros, smallest_shares

POSITIVE = arrays(np.float64, (4, 5), elements=st.floats(1e-6, 1e6))


def test_closed_form_of_log_ratios():
    x = np.array([1.0, 2.0, 4.0])
    assert closed(x) == pytest.approx([1 / 7, 2 / 7, 4 / 7], rel=1e-15)
    assert clr(x) == pytest.approx([-np.log(2), 0, np.log(2)], abs=1e-15)
    assert clr(x) == pytest.approx(np.log(x / gmean(x)), abs=1e-15)


@given(POSITIVE)
def test_log_ratios_have_an_inverse_and_no_scale(x):
    assert clr(x).sum(axis=1) == pytest.approx(np.zeros(4), abs=1e-9)
    np.testing.assert_allclose(closed(np.exp(clr(x))), closed(x), rtol=1e-9)
    np.testing.assert_allclose(clr(x), clr(closed(x)), atol=1e-9)


def test_zeros_are_replaced_and_other_ratios_kept():
    x = np.array([[0.0, 0.2, 0.8], [0.5, 0.1, 0.4], [0.0, 0.0, 1.0]])
    delta = smallest_shares(x)
    np.testing.assert_array_equal(delta, [0.25, 0.05, 0.2])
    found = replace_zeros(x, delta)
    np.testing.assert_allclose(
        found, [[0.25, 0.15, 0.6], [0.5, 0.1, 0.4], [0.25, 0.05, 0.7]], rtol=1e-15
    )
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-15)
    assert found[0, 1] / found[0, 2] == pytest.approx(0.25, rel=1e-15)


def test_a_part_that_is_never_there_takes_the_least_of_the_others():
    np.testing.assert_array_equal(
        smallest_shares(np.array([[0.0, 0.2, 0.8], [0.0, 0.6, 0.4]])), [0.1, 0.1, 0.2]
    )


def test_missing_rows_stay_missing():
    x = np.array([[np.nan, np.nan], [0.0, 1.0]])
    found = clr(replace_zeros(closed(x), np.array([0.1, 0.1])))
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: closed(np.array([[0.5, -0.5]])), "-0.5"),
        (lambda: closed(np.zeros((2, 3))), "2 compositions"),
        (lambda: clr(np.array([0.0, 1.0])), "replace_zeros first"),
        (lambda: smallest_shares(np.zeros((2, 3))), "no share is above 0"),
        (lambda: replace_zeros(np.array([[0.0, 1.0]]), np.array([0.0, 0.1])), "above 0"),
        (lambda: replace_zeros(np.array([[0.0, 0.0, 1]]), np.array([0.5, 0.5, 0.1])), "below 1"),
    ],
)
def test_what_is_no_composition_is_refused(call, told):
    with pytest.raises(DataError, match=told):
        call()
