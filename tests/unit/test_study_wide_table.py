"""Wide tables: into a study and out of one; names that can be split, rows that cannot be."""

from __future__ import annotations

import errno
import itertools

import numpy as np
import pandas as pd
import pytest

from voxplain.errors import DataError, LabelError, OutputError
from voxplain.records.cohort_table import CohortTable
from voxplain.records.region_table import COLUMNS as REGION_COLUMNS
from voxplain.study import wide_file
from voxplain.study.store import CLASS_COLUMNS, RUN_COLUMNS
from voxplain.study.wide_table import export_wide, import_wide

NAMES = ("background", "lung_upper_lobe_left", "heart")


def wide(n=5, names=NAMES, seed=0, extra=()):
    """Build a table as Agg²Exp writes it, each target's shares summing to 1."""
    rng = np.random.default_rng(seed)
    columns = {"patient": [f"s{i:04d}" for i in range(n)]}
    for a in names:
        shares = rng.dirichlet(np.ones(len(names)), n)
        for j, b in enumerate(names):
            columns[f"{a}_explanation_in_{b}_mass"] = shares[:, j]
            columns[f"{a}_explanation_in_{b}_mean"] = rng.random(n)
        for mask in extra:
            columns[f"{a}_explanation_in_{mask}_mass"] = rng.random(n) / 5
        columns[f"{a}_explanation_var"] = rng.random(n)
        columns[f"{a}_explanation_mean"] = rng.normal(size=n)
    for end, a in itertools.product(("iou", "dice"), names):
        columns[f"{a}_{end}"] = rng.random(n)
    return pd.DataFrame(columns)


def written(tmp_path, frame, name="wide.csv", **how):
    file = tmp_path / name
    if file.suffix == ".parquet":
        frame.to_parquet(file, **how)
    else:
        frame.to_csv(file, **{"index": False, **how})
    return file


def imported(tmp_path, frame, name="wide.csv", written_how=None, **how):
    file = written(tmp_path, frame, name, **(written_how or {}))
    return import_wide(file, tmp_path / "study", **how)


def cohort(store, values=("share", "mean", "positive", "negative", "n_voxels")):
    return store.table("imported", "imported", values)


@pytest.mark.parametrize("name", ["wide.csv", "wide.tsv", "wide.parquet"])
def test_every_cell_is_where_it_belongs(tmp_path, name):
    frame = wide().assign(age=[61, 7, 33.5, np.nan, 90], sex=["F", "M", "", "F", "M"])
    how = {} if name != "wide.tsv" else {"sep": "\t"}
    store = imported(tmp_path, frame, name, how)
    table = cohort(store)
    assert table.targets == table.regions == NAMES
    assert table.patients == tuple(table.cases.index) == tuple(frame["patient"])
    for (t, a), (r, b) in itertools.product(enumerate(NAMES), enumerate(NAMES)):
        for value, end in (("share", "mass"), ("mean", "mean")):
            expected = frame[f"{a}_explanation_in_{b}_{end}"]
            np.testing.assert_array_equal(table.values[value][:, t, r], expected)
    assert np.isnan(table.values["positive"]).all()
    assert (table.values["n_voxels"] == 0).all()
    for a in NAMES:
        np.testing.assert_array_equal(table.dice[a], frame[f"{a}_dice"])
    iou = store.classes("imported", "imported").pivot(index="case", columns="class", values="iou")
    np.testing.assert_array_equal(iou["heart"], frame["heart_iou"])
    assert list(table.metadata) == ["age", "sex"]
    np.testing.assert_array_equal(table.metadata["age"], frame["age"])
    assert table.metadata["sex"].isna().tolist() == [False, False, True, False, False]
    assert table.extra_regions == ()
    assert any("mean or variance of a whole map" in told for told in store.plan["remarks"])
    assert len(store.plan["remarks"]) == 1


def test_columns_of_the_three_datasets(tmp_path):
    store = imported(tmp_path, wide(), model="paper", method="sg")
    for dataset, columns in (
        ("regions", REGION_COLUMNS), ("classes", CLASS_COLUMNS), ("runs", RUN_COLUMNS),
    ):  # fmt: skip
        (file,) = (store.folder / dataset).rglob("*.parquet")
        assert tuple(pd.read_parquet(file, partitioning=None).columns) == columns
    assert store.partitions() == [("paper", "sg")]


def test_a_table_of_several_stretches(tmp_path, monkeypatch):
    frame = wide(400)
    whole = imported(tmp_path, frame)
    monkeypatch.setattr(wide_file, "BLOCK_BYTES", 30_000)
    seen = []
    file = tmp_path / "wide.csv"
    parts = import_wide(file, tmp_path / "parts", progress=seen.append)
    assert len(seen) > 3
    assert seen[-1] == 400
    assert len(list((parts.folder / "runs").rglob("*.parquet"))) == len(seen)
    one, two = cohort(whole), cohort(parts)
    np.testing.assert_array_equal(one.values["share"], two.values["share"])
    pd.testing.assert_frame_equal(one.dice, two.dice)
    pd.testing.assert_frame_equal(one.cases, two.cases)
    assert whole.plan == parts.plan
    wrong = frame.copy()
    wrong.loc[377, "heart_explanation_in_heart_mass"] = -0.5
    with pytest.raises(DataError, match=r"row 379: heart_explanation_in_heart_mass is -0\.5"):
        import_wide(written(tmp_path, wrong, "wrong.csv"), tmp_path / "wrong")
    twice = frame.copy()
    twice.loc[399, "patient"] = "s0001"
    with pytest.raises(DataError, match="row 401 names the case of row 3 again") as caught:
        import_wide(written(tmp_path, twice, "twice.csv"), tmp_path / "wrong")
    assert "s0001" not in str(caught.value)
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_round_trip(tmp_path, name):
    rng = np.random.default_rng(3)
    shares = rng.dirichlet(np.ones(3), (6, 2))
    shares[1, 0] = np.nan
    on_top = np.concatenate([shares, rng.random((6, 2, 1))], axis=2)
    index = pd.Index([f"case {i}" for i in range(6)], name="case")
    table = CohortTable(
        "m", "g",
        pd.DataFrame({"patient": list("aabbcd"), "age": [1.0, 2.5, np.nan, 4, 5, 6],
                      "code": ["007", "008", "x", "y", None, "z"]}, index=index),
        ("heart", "aorta"), ("background", "heart", "aorta", "effusion"),
        {"share": on_top, "mean": on_top * 2, "positive": on_top * 3, "negative": -on_top},
        pd.DataFrame(rng.random((6, 2)), index=index, columns=["heart", "aorta"]),
        ("effusion",),
    )  # fmt: skip
    store = imported(tmp_path, export_wide(table), name, model="m", method="g")
    found = store.table("m", "g", ("share", "mean", "positive", "negative"))
    assert (found.targets, found.regions) == (table.targets, table.regions)
    assert found.extra_regions == ("effusion",)
    for value, array in table.values.items():
        np.testing.assert_array_equal(found.values[value], array)
    pd.testing.assert_frame_equal(found.cases, table.cases)
    pd.testing.assert_frame_equal(
        found.dice[["heart", "aorta"]], table.dice, check_names=False, check_column_type=False
    )
    again = export_wide(found)
    first = export_wide(table)
    pd.testing.assert_frame_equal(again[first.columns], first)


@pytest.mark.parametrize("kind", ["id", "heart_dice", "a_explanation_in_b_mass"])
def test_a_cohort_that_cannot_be_told_is_not_exported(kind):
    index = pd.Index(["c"], name="case")
    cases = pd.DataFrame({"patient": ["p"], kind: [0.5]}, index=index)
    table = CohortTable(
        "m", "g", cases, ("heart",), ("heart",), {"share": np.ones((1, 1, 1))}
    )  # fmt: skip
    with pytest.raises(LabelError, match="wide table"):
        export_wide(table)


def test_a_cohort_without_shares_is_not_exported():
    cases = pd.DataFrame({"patient": ["p"]}, index=pd.Index(["c"], name="case"))
    table = CohortTable("m", "g", cases, ("heart",), ("heart",), {"mean": np.ones((1, 1, 1))})
    with pytest.raises(LabelError, match="no column"):
        export_wide(table)


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ("a_explanation_in_b_explanation_in_c_mass", "several ways"),
        ("heart_explanation_in_heart_sum", "one of the endings"),
        ("_explanation_in_heart_mass", "one of the endings"),
        ("heart_explanation_in__mass", "no region"),
        ("heart_explanation_in_heart_mass_pos", None),
        ("heart_explanation_in_heart_mass", "columns of one name"),
    ],
)
def test_names_of_columns(tmp_path, column, told):
    frame = wide()
    frame.insert(len(frame.columns), column, 0.5, allow_duplicates=True)
    if told is None:
        store = imported(tmp_path, frame)
        assert (cohort(store).of_target("heart", "positive")["heart"] == 0.5).all()
        assert any("positive or of the negative part alone" in r for r in store.plan["remarks"])
        return
    with pytest.raises(DataError, match=told):
        imported(tmp_path, frame)


def test_a_region_whose_name_ends_like_a_sign(tmp_path):
    frame = wide(names=("background", "x", "x_pos"))
    with pytest.raises(DataError, match=r"could be of 'x_pos' or of 'x'; rename the class"):
        imported(tmp_path, frame)
    store = imported(tmp_path, wide(names=("background", "x_pos")))
    assert cohort(store).regions == ("background", "x_pos")


def test_shares_of_the_negative_part_get_a_minus(tmp_path):
    frame = wide()
    frame["heart_explanation_in_heart_neg_mass"] = [0.1, 0.2, np.nan, 0.4, 0.5]
    found = cohort(imported(tmp_path, frame)).of_target("heart", "negative")["heart"]
    np.testing.assert_array_equal(found, [-0.1, -0.2, np.nan, -0.4, -0.5])


def test_only_one_sign_is_refused(tmp_path):
    frame = wide().rename(columns=lambda name: name.replace("_mass", "_mass_pos"))
    with pytest.raises(DataError, match=r"rename the columns of one sign"):
        imported(tmp_path, frame)


@pytest.mark.parametrize(
    "name", ["case", "id", "Patient", "patient_id", "PatientID", "StudyInstanceUID", "image_id", ""]
)
def test_the_column_of_cases(tmp_path, name):
    frame = wide().rename(columns={"patient": name})
    assert [*imported(tmp_path, frame).cases().index] == [f"s{i:04d}" for i in range(5)]


def test_an_index_without_a_name_is_left_out_beside_a_name(tmp_path):
    store = imported(tmp_path, wide(), written_how={"index": True})
    assert store.cases().index[0] == "s0000"
    assert list(store.cases()) == ["patient"]
    assert any("another name of the case" in told for told in store.plan["remarks"])


def test_several_columns_could_name_the_cases(tmp_path):
    frame = wide().assign(image_id=list("abcde"), id=list("fghij"))
    with pytest.raises(DataError, match="'image_id' and 'id' could each name the cases"):
        imported(tmp_path, frame)
    store = imported(tmp_path, frame, case_column="id")
    assert [*store.cases().index] == list("fghij")
    assert store.cases()["patient"].tolist() == frame["patient"].tolist()
    assert list(store.cases()) == ["patient"]  # image_id would tell whose a row is


def test_no_column_of_cases(tmp_path):
    frame = wide().rename(columns={"patient": "who"})
    with pytest.raises(DataError, match="no column names the cases"):
        imported(tmp_path, frame)
    with pytest.raises(DataError, match="no column 'nobody' to name cases"):
        imported(tmp_path, frame, case_column="nobody")
    assert imported(tmp_path, frame, case_column="who").cases().index[0] == "s0000"


def test_several_rows_of_a_patient(tmp_path):
    frame = wide().assign(patient=["a", "a", "b", "b", "a"], scan=["x", "x", "y", "z", "x"])
    with pytest.raises(DataError, match="row 3 names the case of row 2 again"):
        imported(tmp_path, frame)
    with pytest.raises(DataError, match="names the case of row"):
        imported(tmp_path, frame.drop(columns="scan"), case_column="patient")
    store = imported(tmp_path, frame, case_column="scan")
    assert [*store.cases().index] == ["x", "x_2", "y", "z", "x_3"]
    assert store.cases()["patient"].tolist() == ["a", "a", "b", "b", "a"]
    assert any("2 cases got a number" in told for told in store.plan["remarks"])


def test_a_numbered_name_that_is_taken(tmp_path):
    frame = wide(3).assign(scan=["x", "x_2", "x"])
    with pytest.raises(DataError, match="row 4 names the case of row 3 again"):
        imported(tmp_path, frame, case_column="scan")


def test_a_row_without_a_name(tmp_path):
    frame = wide()
    frame.loc[2, "patient"] = None
    with pytest.raises(DataError, match="row 4 has no name of a case"):
        imported(tmp_path, frame)


def test_missing_cells_and_words_for_them(tmp_path):
    frame = wide(6).astype(object)
    heart = [name for name in frame if name.startswith("heart_explanation_in_")]
    for row, word in enumerate(["", "NA", "NaN", "n/a", "none"]):
        frame.loc[row, heart] = word
    frame["site"] = ["NA", "", "x", "n/a", "y", "nan"]
    store = imported(tmp_path, frame)
    shares = cohort(store).of_target("heart")
    assert shares.isna().all(axis=1).tolist() == [True] * 5 + [False]
    assert store.cases()["site"].isna().tolist() == [True, True, False, True, False, True]
    assert not any("sum to 1" in told or "none in others" in told for told in store.plan["remarks"])


def test_targets_without_columns_of_some_regions(tmp_path):
    frame = wide()
    gone = [name for name in frame if name.startswith("lung") and "_in_heart_" in name]
    store = imported(tmp_path, frame.drop(columns=gone))
    table = cohort(store)
    assert table.of_target("lung_upper_lobe_left")["heart"].isna().all()
    assert table.of_target("heart").notna().all().all()
    assert any("5 of 15 maps" in told and "kept as they are" in told
               for told in store.plan["remarks"])  # fmt: skip


def test_masks_on_top_are_extra_and_other_parts_are_parts(tmp_path):
    store = imported(tmp_path, wide(extra=("effusion", "joined_masks")))
    assert cohort(store).extra_regions == ("effusion", "joined_masks")
    (told,) = [told for told in store.plan["remarks"] if "extra regions" in told]
    assert "sum to 1.000 without" in told
    # some targets of many regions: without the rest, the sums are below 1
    few = wide()
    few = few[[name for name in few if not name.startswith("lung")]]
    table = cohort(import_wide(written(tmp_path, few, "few.csv"), tmp_path / "few"))
    assert table.targets == ("background", "heart")
    assert table.extra_regions == ()
    assert table.parts == NAMES


def test_extra_regions_are_asked_for(tmp_path):
    file = written(tmp_path, wide(extra=("effusion", "nodule")))
    one = import_wide(file, tmp_path / "one", extra=["effusion"])
    assert cohort(one).extra_regions == ("effusion",)
    assert any("do not sum to 1" in told for told in one.plan["remarks"])
    none = import_wide(file, tmp_path / "none", extra=())
    assert cohort(none).extra_regions == ()
    with pytest.raises(DataError, match="no region 'efusion'"):
        import_wide(file, tmp_path / "wrong", extra=["efusion"])


def test_shares_above_1_are_kept_and_told(tmp_path):
    frame = wide()
    frame.loc[1, "heart_explanation_in_heart_mass"] = 1.7
    store = imported(tmp_path, frame)
    assert cohort(store).of_target("heart").loc["s0001", "heart"] == 1.7
    assert any(told.startswith("1 of 15 maps") for told in store.plan["remarks"])
    assert any(told.startswith("1 shares are above 1") for told in store.plan["remarks"])


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("heart_explanation_in_heart_mass", -0.1, "row 3: .* is -0.1, expected 0 or more"),
        ("heart_explanation_in_heart_mean", -0.1, "expected 0 or more"),
        ("heart_explanation_in_heart_mass", np.inf, "is inf"),
        ("heart_explanation_in_heart_negative", 0.1, "expected at most 0"),
        ("heart_dice", 87.0, "row 3: heart_dice is 87, expected 0…1"),
        ("heart_explanation_in_heart_mass", "half", "column 'heart_explanation_in_heart_mass'"),
        ("heart_explanation_in_heart_mass", "0,5", "with points in its numbers"),
    ],
)
def test_impossible_values(tmp_path, column, value, told):
    frame = wide().astype(object)
    if column not in frame:
        frame[column] = 0.0
    frame.loc[1, column] = value
    with pytest.raises(DataError, match=told):
        imported(tmp_path, frame)
    assert not (tmp_path / "study").exists()


def test_files_that_are_no_table(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        import_wide(tmp_path / "none.csv", tmp_path / "s")
    empty = written(tmp_path, wide(0))
    with pytest.raises(DataError, match=r"wide\.csv: "):
        import_wide(empty, tmp_path / "s")
    (tmp_path / "blank.csv").write_text("")
    (tmp_path / "text.parquet").write_text("hello")
    (tmp_path / "image.csv").write_bytes(bytes(range(256)))
    (tmp_path / "other.csv").write_text("id;x\n1;2\n")
    for name in ("blank.csv", "text.parquet", "image.csv", "other.csv"):
        with pytest.raises(DataError, match=name):
            import_wide(tmp_path / name, tmp_path / "s")
    ragged = written(tmp_path, wide(), "ragged.csv")
    ragged.write_text(ragged.read_text() + "secret,1,2\n")
    with pytest.raises(DataError, match=r"got 3\); save it") as caught:
        import_wide(ragged, tmp_path / "s")
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "s").exists()


def test_a_folder_with_another_study_is_refused(tmp_path):
    store = imported(tmp_path, wide())
    same = import_wide(tmp_path / "wide.csv", store.folder)
    assert len(cohort(same)) == 5
    other = written(tmp_path, wide(seed=1), "other.csv")
    with pytest.raises(OutputError, match="holds another study"):
        import_wide(other, store.folder)
    with pytest.raises(OutputError, match="holds another study"):
        import_wide(tmp_path / "wide.csv", store.folder, model="renamed")


@pytest.mark.parametrize("is_there", [True, False])
def test_an_import_that_stops_leaves_nothing(tmp_path, monkeypatch, is_there):
    file = written(tmp_path, wide(400))
    folder = tmp_path / "study"
    if is_there:
        folder.mkdir()
    monkeypatch.setattr(wide_file, "BLOCK_BYTES", 30_000)

    def stop(n_rows):
        if n_rows > 150:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match="no space is left"):
        import_wide(file, folder, progress=stop)
    assert folder.exists() == is_there
    assert sorted(path.name for path in tmp_path.rglob("*")) == (
        ["study", "wide.csv"] if is_there else ["wide.csv"]
    )


def test_dice_of_no_region_is_metadata_and_ids_are_codes(tmp_path):
    frame = wide().assign(mean_dice=0.8, code=["007", "8", "9", "10", "11"], patient=range(5))
    store = imported(tmp_path, frame)
    assert [*store.cases().index] == list("01234")
    assert store.cases()["mean_dice"].tolist() == [0.8] * 5
    assert store.cases()["code"].tolist() == ["007", "8", "9", "10", "11"]
