"""Rows put into arrays: order of names, row groups, damage."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from voxplain.errors import RecordError
from voxplain.study.cube import Filler


def rows_of(cases, targets, regions, channels=("x",), seed=0):
    rng = np.random.default_rng(seed)
    index = pd.MultiIndex.from_product(
        [cases, targets, regions, channels], names=["case", "target", "region", "channel"]
    )
    frame = pd.DataFrame(index=index).reset_index()
    return frame.assign(share=rng.random(len(frame)), n_voxels=rng.integers(1, 99))


def fill(tmp_path, frames, cases, targets=(), regions=(), values=("share",), **how):
    filler = Filler(cases, targets, regions, values)
    for i, frame in enumerate(frames):
        file = tmp_path / f"{i}.parquet"
        frame.to_parquet(file, index=False, **how)
        filler.add(file, set(frame["case"]) & set(cases))
    return filler.finish()


def test_against_a_pivot_table(tmp_path):
    frame = rows_of(["p", "q", "r"], ["heart", "aorta"], ["ribs", "heart", "air"], ("t1", "t2"))
    shuffled = frame.sample(frac=1, random_state=1)
    parts = [shuffled[shuffled["case"] == case] for case in ("q", "r", "p")]
    targets, regions, arrays = fill(tmp_path, parts, ["r", "p", "q"], ("aorta",), ("heart", "lung"))
    assert targets == ("aorta", "heart")  # known ones first, others sorted
    assert regions == ("heart", "air", "ribs")  # what occurs nowhere is left out
    sums = frame.pivot_table("share", "case", ["target", "region"], aggfunc="sum")
    order = pd.MultiIndex.from_product([targets, regions])
    expected = sums.loc[["r", "p", "q"], order].to_numpy().reshape(3, 2, 3)
    np.testing.assert_allclose(arrays["share"], expected, rtol=1e-14)


@pytest.mark.parametrize("how", [{}, {"row_group_size": 5}, {"use_dictionary": False}])
def test_row_groups_and_dictionaries_do_not_matter(tmp_path, how):
    cases = [f"c{i}" for i in range(7)]
    frame = rows_of(cases, ["b", "a"], ["x", "y"])
    plain = fill(tmp_path, [frame], cases, values=("share", "n_voxels"))
    other = fill(tmp_path, [frame], cases, values=("share", "n_voxels"), **how)
    assert plain[:2] == other[:2] == (("a", "b"), ("x", "y"))
    for name in ("share", "n_voxels"):
        np.testing.assert_array_equal(plain[2][name], other[2][name])


def test_categories_and_float32(tmp_path):
    frame = rows_of(["c", "d"], ["a"], ["x", "y"])
    coded = frame.astype({"case": "category", "target": "category", "region": "category"})
    small = coded.assign(share=coded["share"].astype(np.float32))
    expected = fill(tmp_path, [frame], ["d", "c"])[2]["share"]
    found = fill(tmp_path, [small], ["d", "c"])[2]["share"]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_rows_of_other_cases_are_left(tmp_path):
    frame = rows_of(["c", "old", "d"], ["a"], ["x"])
    _, _, arrays = fill(tmp_path, [frame], ["d", "c"])
    expected = frame.set_index("case")["share"][["d", "c"]].to_numpy()
    np.testing.assert_array_equal(arrays["share"][:, 0, 0], expected)


def test_nan_of_one_channel_and_no_rows(tmp_path):
    frame = rows_of(["c"], ["a"], ["x", "y"], ("t1", "t2"))
    frame.loc[0, "share"] = np.nan
    _, _, arrays = fill(tmp_path, [frame], ["c", "none"])
    assert np.isnan(arrays["share"][0, 0, 0])
    assert arrays["share"][0, 0, 1] == pytest.approx(frame["share"][2:].sum())
    assert np.isnan(arrays["share"][1]).all()


def test_nothing_at_all():
    targets, regions, arrays = Filler(["c"], ("a",), ("x",), ("share",)).finish()
    assert (targets, regions, arrays["share"].shape) == ((), (), (1, 0, 0))


def test_a_file_without_a_column(tmp_path):
    file = tmp_path / "r.parquet"
    pq.write_table(pa.table({"case": ["c"], "target": ["a"], "share": [0.5]}), file)
    with pytest.raises(RecordError, match=r"r\.parquet is damaged"):
        Filler(["c"], (), (), ("share",)).add(file, {"c"})
