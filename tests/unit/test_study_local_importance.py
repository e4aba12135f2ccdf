"""One case against its cohort, against scipy and by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from voxplain.errors import DataError
from voxplain.records.cohort_table import CohortTable
from voxplain.study.local_importance import LOCAL, local_against_global


def _table(share, patients=None):
    n = len(share)
    patients = [f"p{i}" for i in range(n)] if patients is None else patients
    cases = pd.DataFrame({"patient": patients}, pd.Index([f"c{i}" for i in range(n)], name="case"))
    return CohortTable(
        "m", "ig", cases, ("t",), tuple(f"r{i}" for i in range(share.shape[1])),
        {"share": share[:, None]},
    )  # fmt: skip


def test_numbers_are_those_of_scipy():
    share = np.random.default_rng(0).dirichlet(np.ones(4), 30).round(2)  # with ties
    found = local_against_global(_table(share), "c7")
    assert tuple(found.columns) == LOCAL
    others = np.delete(share, 7, axis=0)
    for i, row in found.iterrows():
        y, x = others[:, i], share[7, i]
        assert row["value"] == x
        assert row["mean"] == pytest.approx(y.mean(), abs=1e-14)
        assert row["median"] == pytest.approx(np.median(y), abs=1e-14)
        expected = (
            stats.percentileofscore(y, x, "strict") + stats.percentileofscore(y, x, "weak")
        ) / 2
        assert row["percentile"] == pytest.approx(expected, abs=1e-12)
        mad = stats.median_abs_deviation(y, scale=1) * 1.4826
        assert row["z"] == pytest.approx((x - np.median(y)) / mad, abs=1e-12)
        assert row["n"] == 29
    assert (found["note"] == "").all()


def test_other_cases_of_the_patient_are_left_out():
    share = np.array([[0.9], [0.8], [0.1], [0.2], [0.3]])
    row = local_against_global(_table(share, ["a", "a", "b", "c", "d"]), "c0").iloc[0]
    assert (row["n"], row["percentile"]) == (3, 100)
    assert row["mean"] == pytest.approx(0.2)
    assert row["z"] == pytest.approx(0.7 / (1.4826 * 0.1))


def test_equal_others_have_no_z():
    share = np.full((6, 1), 0.1 + 0.2)
    share[::2] = 0.3  # the same up to rounding
    share[5] = 0.5
    row = local_against_global(_table(share), "c5").iloc[0]
    assert np.isnan(row["z"])
    assert "MAD 0" in row["note"]
    assert row["percentile"] == 100


def test_absent_classes_are_told():
    share = np.array([[np.nan, 0.5], [0.2, np.nan], [0.3, np.nan]])
    own = local_against_global(_table(share), "c0")
    assert own["note"].tolist() == [
        "not in this case", "no case of another patient with this target and region",
    ]  # fmt: skip
    assert own[["percentile", "z"]].isna().all(axis=None)
    assert own["n"].tolist() == [2, 0]
    assert own["mean"].iloc[0] == pytest.approx(0.25)
    assert np.isnan(own["mean"].iloc[1])


def test_order_of_cases_changes_no_bit():
    table = _table(np.random.default_rng(1).dirichlet(np.ones(3), 50))
    mixed = table.take(np.random.default_rng(2).permutation(50))
    pd.testing.assert_frame_equal(
        local_against_global(table, "c3"), local_against_global(mixed, "c3"), check_exact=True
    )


def test_one_case_has_no_others():
    found = local_against_global(_table(np.array([[0.4, 0.6]])), "c0")
    assert found["value"].tolist() == [0.4, 0.6]
    assert found[["mean", "median", "percentile", "z"]].isna().all(axis=None)


def test_an_unknown_case_is_refused():
    with pytest.raises(DataError, match="no case 'c99'"):
        local_against_global(_table(np.ones((3, 1))), "c99")
