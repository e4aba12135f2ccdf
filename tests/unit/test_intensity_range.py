"""Whether intensities are of a window, against ranges by hand."""

from __future__ import annotations

import numpy as np
import pytest

from voxplain.space.intensity_range import foreign_range

HU = np.concatenate([np.full(50, -1024.0), np.linspace(-100.0, 300.0, 1001)])


def test_percentiles_are_of_what_lies_above_the_background() -> None:
    found = foreign_range(HU, 2000.0, 3000.0)
    assert found == pytest.approx((-96.0, 296.0), abs=0.5)


@pytest.mark.parametrize(
    ("low", "high", "is_foreign"),
    [
        (-200.0, 300.0, False),  # the window holds them
        (0.0, 100.0, False),  # they hold the window
        (289.0, 1000.0, True),  # 7 of 1096 in common
        (250.0, 1000.0, False),  # 46 of 1096
        (0.0, 1.0, True),  # inside, and of another kind
    ],
)
def test_two_percent_in_common_are_enough(low: float, high: float, is_foreign: bool) -> None:
    assert (foreign_range(HU, low, high) is not None) == is_foreign


@pytest.mark.parametrize(("value", "is_foreign"), [(5.0, False), (11.0, True)])
def test_one_value_must_lie_in_the_window(value: float, is_foreign: bool) -> None:
    for values in (np.full(9, value), np.array([0.0, value, value])):
        assert (foreign_range(values, 0.0, 10.0) is not None) == is_foreign


def test_nothing_is_not_foreign() -> None:
    assert foreign_range(np.zeros(0), 0.0, 1.0) is None
