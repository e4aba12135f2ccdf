"""Cohort table: what it refuses, what it selects."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from voxplain.errors import LabelError, TargetError
from voxplain.records.cohort_table import CohortTable

SHARES = np.arange(3 * 2 * 4, dtype=float).reshape(3, 2, 4)


def listing(names=("c", "a", "b")):
    return pd.DataFrame(
        {"patient": ["p", "q", "p"], "sex": ["F", None, "M"]}, index=pd.Index(names, name="case")
    )


def table(**other):
    given = {
        "model": "m", "method": "g", "cases": listing(), "targets": ("heart", "aorta"),
        "regions": ("background", "heart", "aorta", "effusion"), "values": {"share": SHARES},
        "extra_regions": ("effusion",),
    }  # fmt: skip
    return CohortTable(**{**given, **other})


def test_what_it_tells():
    found = table()
    assert len(found) == 3
    assert found.patients == ("p", "q", "p")
    assert list(found.metadata) == ["sex"]
    marked = table(cases=listing().assign(split="val", image_sha256=list("xyz")))
    assert list(marked.metadata) == ["sex"]
    assert found.parts == ("background", "heart", "aorta")
    of_aorta = found.of_target("aorta")
    np.testing.assert_array_equal(of_aorta.to_numpy(), SHARES[:, 1])
    assert of_aorta.index.tolist() == ["c", "a", "b"]
    parts = found.of_target("aorta", parts_only=True)
    np.testing.assert_array_equal(parts.to_numpy(), SHARES[:, 1, :3])


@pytest.mark.parametrize("chosen", [np.array([True, False, True]), np.array([0, 2])])
def test_take(chosen):
    dice = pd.DataFrame({"heart": [0.1, 0.2, 0.3]}, index=listing().index)
    found = table(dice=dice).take(chosen)
    assert found.cases.index.tolist() == ["c", "b"]
    np.testing.assert_array_equal(found.values["share"], SHARES[[0, 2]])
    assert found.dice["heart"].tolist() == [0.1, 0.3]
    assert found.extra_regions == ("effusion",)


def test_take_in_another_order_and_without_dice():
    found = table().take(np.array([2, 0]))
    assert found.cases.index.tolist() == ["b", "c"]
    assert found.dice.empty


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"values": {"share": SHARES[:2]}}, r"\(3, 2, 4\)"),
        ({"values": {"shares": SHARES}}, "'shares'"),
        ({"cases": listing(("a", "a", "b"))}, "cases .* one name twice"),
        ({"targets": ("heart", "heart")}, "targets .* one name twice"),
        ({"regions": ("a", "b", "c", "a")}, "regions .* one name twice"),
        ({"cases": listing().drop(columns="patient")}, "need the column patient"),
        ({"dice": pd.DataFrame({"heart": [0.1, 0.2, 0.3]}, index=["a", "b", "c"])}, "same order"),
        ({"extra_regions": ("pleura",)}, "not there: pleura"),
    ],
)
def test_refused(wrong, told):
    with pytest.raises(LabelError, match=told):
        table(**wrong)


def test_unknown_target_and_value():
    with pytest.raises(TargetError, match="no target 'hart'"):
        table().of_target("hart")
    with pytest.raises(LabelError, match="no 'mean' here"):
        table().of_target("heart", "mean")
