"""Region tables: matrix, order, groups, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from voxplain.errors import LabelError, OutputError, RecordError, TargetError
from voxplain.records import COLUMNS, RegionTable

REGIONS = {"background": 50, "zeta": 10, "alpha": 30, "empty": 0}
TARGETS = ("second", "first")


def frame(case: str = "c", n_channels: int = 2) -> pd.DataFrame:
    """Rows in the order of targets and labels, neither of which is alphabetical."""
    rng = np.random.default_rng(0)
    rows = []
    for target in TARGETS:
        for region, n_voxels in REGIONS.items():
            for channel in range(n_channels):
                positive, negative = rng.random(2) * [1, -2] * (n_voxels > 0)
                mean = (positive - negative) / n_voxels if n_voxels else np.nan
                rows.append((case, "m", "g", target, region, f"ch{channel}", 0.0, mean,
                             positive, negative, n_voxels))  # fmt: skip
    made = pd.DataFrame(rows, columns=list(COLUMNS))
    absolute = made["positive"] - made["negative"]
    made["share"] = absolute / absolute.groupby(made["target"]).transform("sum")
    return made


def test_matrix_keeps_the_order_and_sums_channels() -> None:
    table = RegionTable(frame())
    matrix = table.matrix()
    assert tuple(matrix.index) == TARGETS == table.targets
    assert tuple(matrix.columns) == tuple(REGIONS) == table.regions
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0)
    rows = frame().query("target == 'first' and region == 'alpha'")
    assert matrix.loc["first", "alpha"] == pytest.approx(rows["share"].sum())
    mean = table.matrix("mean")
    assert mean.loc["first", "alpha"] == pytest.approx(rows["mean"].sum())
    assert np.isnan(mean["empty"]).all()
    assert table.matrix("n_voxels").loc["first"].to_dict() == REGIONS


def test_matrix_of_a_zero_map_is_nan_and_not_zero() -> None:
    own = frame()
    own.loc[own["target"] == "first", "share"] = np.nan
    matrix = RegionTable(own).matrix()
    assert matrix.loc["first"].isna().all()
    assert matrix.loc["second"].notna().all()


def test_matrix_refuses_what_it_cannot_show() -> None:
    both = pd.concat([frame("a"), frame("b")], ignore_index=True)
    with pytest.raises(LabelError, match="one case, model and method, the table holds 2"):
        RegionTable(both).matrix()
    with pytest.raises(LabelError, match="did you mean 'share'"):
        RegionTable(frame()).matrix("shares")  # type: ignore[arg-type]


def test_top_is_sorted_by_share() -> None:
    table = RegionTable(frame())
    top = table.top("first", n=2)
    shares = table.matrix().loc["first"].sort_values(ascending=False)
    assert list(top.index) == list(shares.index[:2])
    np.testing.assert_allclose(top["share"], shares[:2])
    assert list(top.columns) == ["share", "mean", "positive", "negative", "n_voxels"]
    assert top["n_voxels"].tolist() == [REGIONS[region] for region in top.index]
    assert len(table.top("first", n=99)) == len(REGIONS)
    with pytest.raises(TargetError, match="did you mean 'first'"):
        table.top("frist")


def test_group_closed_form() -> None:
    table = RegionTable(frame())
    joined = table.group({"organs": ["alpha", "empty", "background"]})
    assert joined.regions == ("organs", "zeta")  # takes the place of its first region
    assert joined.targets == TARGETS
    assert list(joined.frame.columns) == list(COLUMNS)
    own = frame().query("target == 'first' and channel == 'ch1'").set_index("region")
    members = own.loc[["background", "alpha"]]
    row = joined.frame.query("target == 'first' and channel == 'ch1'").set_index("region")
    for value in ("share", "positive", "negative", "n_voxels"):
        assert row.loc["organs", value] == pytest.approx(members[value].sum())
    weighted = (members["mean"] * members["n_voxels"]).sum() / members["n_voxels"].sum()
    assert row.loc["organs", "mean"] == pytest.approx(weighted)
    pd.testing.assert_series_equal(row.loc["zeta"], own.loc["zeta"])
    np.testing.assert_allclose(joined.matrix().sum(axis=1), 1.0)


def test_group_of_empty_regions_nothing_and_several_cases() -> None:
    only_empty = RegionTable(frame()).group({"none": ["empty"]})
    assert np.isnan(only_empty.matrix("mean")["none"]).all()
    assert (only_empty.matrix()["none"] == 0).all()
    pd.testing.assert_frame_equal(RegionTable(frame()).group({}).frame, frame())
    both = RegionTable(pd.concat([frame("a"), frame("b")]))  # repeated row labels
    joined = both.group({"zeta": ["zeta", "alpha"]})
    assert len(joined.frame) == len(both.frame) * 3 // 4
    assert joined.frame["case"].unique().tolist() == ["a", "b"]


def test_group_of_a_zero_map_has_no_share() -> None:
    own = frame()
    own["share"] = np.nan
    assert RegionTable(own).group({"g": ["zeta", "alpha"]}).frame["share"].isna().all()


def test_group_keeps_further_columns_of_single_regions() -> None:
    own = frame().assign(share_se=0.25)
    joined = RegionTable(own).group({"g": ["zeta", "alpha"]}).frame.set_index("region")
    assert joined.loc["g", "share_se"].isna().all()
    assert (joined.loc["background", "share_se"] == 0.25).all()


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"g": ["alfa"]}, "did you mean 'alpha'"),
        ({"g": ["alpha"], "h": ["zeta", "alpha"]}, "'alpha' is given twice: in group 'g' and"),
        ({"g": ["alpha", "alpha"]}, "given twice"),
        ({"g": "alpha"}, "needs a list of regions"),
        ({"g": []}, "needs a list of regions"),
        ({"zeta": ["alpha"]}, "name of a region that is not in it"),
    ],
)
def test_group_errors(groups: dict[str, list[str]], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        RegionTable(frame()).group(groups)


def test_errors_of_the_shares_stand_in_their_rows() -> None:
    errors = np.arange(16.0).reshape(2, 4, 2)
    made = RegionTable(frame()).with_errors(errors).frame
    row = made.query("target == 'first' and region == 'alpha' and channel == 'ch1'")
    assert row["share_error"].item() == errors[1, 2, 1]
    with pytest.raises(LabelError, match=r"\(2, 4, 2\) for 16 rows, got \(4, 2, 2\)"):
        RegionTable(frame()).with_errors(errors.reshape(4, 2, 2))


def test_a_table_is_checked() -> None:
    with pytest.raises(LabelError, match="missing: share, n_voxels"):
        RegionTable(frame().drop(columns=["share", "n_voxels"]))
    with pytest.raises(LabelError, match=r"16 rows .* came twice, .*'region': 'background'"):
        RegionTable(pd.concat([frame(), frame()]))


def test_saved_and_loaded_equal(tmp_path: Path) -> None:
    table = RegionTable(frame())
    table.save(tmp_path / "out")
    pd.testing.assert_frame_equal(
        RegionTable.load(tmp_path / "out").frame, table.frame, check_exact=True
    )
    text = pd.read_csv(tmp_path / "out" / "regions.csv")
    pd.testing.assert_frame_equal(text, table.frame, check_exact=True, check_dtype=False)


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"regions.parquet is not a saved region table"):
        RegionTable.load(tmp_path)
    (tmp_path / "regions.parquet").write_text("not a table")
    with pytest.raises(RecordError, match=r"regions.parquet is not a saved region table"):
        RegionTable.load(tmp_path)
    with pytest.raises(OutputError):
        RegionTable(frame()).save(tmp_path / "regions.parquet")


def test_html_is_escaped() -> None:
    own = frame().replace("zeta", "<script>alert(1)</script>")
    html = RegionTable(own)._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert f"{RegionTable(own).matrix().iloc[0, 0]:.3f}" in html
    several = pd.concat([frame("a"), frame("<b>")])
    assert "&lt;b&gt;" in RegionTable(several)._repr_html_()
