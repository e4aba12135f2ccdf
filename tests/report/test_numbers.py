"""Colours, scales and wording: small functions with known answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxplain.report import colours, scale, wording
from voxplain.space.grid import Grid
from voxplain.space.volume import Volume


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (1234.4, "1234"),
        (12.345, "12.3"),
        (-0.012345, "−0.0123"),
        (0.00101, "0.00101"),
        (4.56e-7, "4.56 × 10⁻⁷"),
        (-7.8912e9, "−7.89 × 10⁹"),
        (float("nan"), "–"),
        (None, "–"),
        (float("-inf"), "−∞"),
    ],
)
def test_number(value: float | None, expected: str) -> None:
    if value == 1234.4:
        assert wording.number(value, 4) == expected
    else:
        assert wording.number(value) == expected


@given(st.floats(-1e12, 1e12, allow_nan=False).filter(lambda v: abs(v) > 1e-12))
def test_number_keeps_three_digits(value: float) -> None:
    text = wording.number(value).replace("−", "-").replace(" × 10", "e")
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    assert float(text.translate(digits)) == pytest.approx(value, rel=5.1e-3)


def test_units() -> None:
    assert wording.percent(0.6812) == "68.1 %"
    assert wording.seconds(0.4231) == "0.423 s"
    assert wording.seconds(192) == "3 min 12 s"
    assert wording.seconds(7500) == "2 h 5 min"
    assert wording.storage(1_920_000_000) == "1.92 GB"
    assert wording.storage(12_340_000) == "12.3 MB"
    assert wording.short(3.0e-5) == "3 × 10⁻⁵"
    assert wording.short(0.50) == "0.5"
    assert wording.short(120.0) == "120"


def test_limit_is_the_high_percentile_of_what_is_not_zero() -> None:
    values = np.zeros(50_000)
    values[:10_000] = np.linspace(-1, 1, 10_000) * 3.14e-8
    values[0] = 99.0  # one outlier does not take all the colour
    assert scale.limit(values) == pytest.approx(3.2e-8)
    assert scale.limit(np.zeros(7)) == 0
    assert scale.limit(np.array([0.0, -2.0])) == 2.0


def test_windows_of_ct_and_of_anything_else() -> None:
    grid = Grid((3, 4, 5), np.eye(4))
    ct = np.linspace(-1000, 900, 60).reshape(1, 3, 4, 5)
    assert scale.intensity_window(Volume(ct, grid)) == (-160.0, 240.0)
    other = np.linspace(0, 1000, 60).reshape(1, 3, 4, 5)
    assert scale.intensity_window(Volume(other, grid)) == pytest.approx((5, 995), rel=1e-3)
    low, high = scale.intensity_window(Volume(np.ones((1, 3, 4, 5)), grid))
    assert high > low


def test_colours_are_symmetric_around_nothing() -> None:
    values = np.array([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
    drawn = colours.diverging(values, 1.0)
    assert np.array_equal(drawn[0], drawn[1])  # beyond the limit: like the limit
    assert np.allclose(drawn[:, 3], drawn[::-1, 3])
    assert drawn[3, 3] == 0
    assert (drawn[:3, 2] > drawn[:3, 0]).all()  # against: blue over red
    assert (drawn[4:, 0] > drawn[4:, 2]).all()  # for: red over blue
    assert not colours.diverging(values, 0.0).any()


def test_viewer_tables_are_the_same_colours() -> None:
    table = colours.viewer_map(-1)
    rgba = np.array([table[c] for c in "RGBA"]).T / 255
    assert rgba[0, 3] == 0
    assert table["I"][0] == 0
    assert table["I"][-1] == 255
    expected = colours.diverging(-np.asarray(table["I"]) / 255, 1.0)
    assert np.abs(rgba - expected).max() < 0.01


def test_label_colours_differ() -> None:
    assert len(set(colours.label_colours(100))) == 100
