"""A store grows by whole blocks: what counts, in which order, and what damage looks like."""

from __future__ import annotations

import errno
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from voxplain.errors import OutputError, RecordError
from voxplain.study.store import (
    CLASS_COLUMNS,
    RUN_COLUMNS,
    CaseResult,
    Store,
    done_run,
    failed_run,
)

PLAN = {
    "models": {"m": {}, "n": {}}, "methods": {"g": {}}, "targets": ["b", "a"],
    "regions": ["background", "b", "a"], "extra_regions": [],
}  # fmt: skip
CASES = tuple(f"c{i}" for i in range(8))


def region_rows(case, model, method, share, *, targets=("b", "a"), channels=("ct",)):
    return pd.DataFrame([
        {"case": case, "model": model, "method": method, "target": target, "region": region,
         "channel": channel, "share": share / len(channels), "mean": 2.0, "positive": 3.0,
         "negative": -1.0, "n_voxels": 7}
        for target in targets for region in PLAN["regions"] for channel in channels
    ])  # fmt: skip


def done(
    case, share=0.5, *, model="m", method="g", created="2026-01-01T00:00:00", dice=None, **how
):
    classes = pd.DataFrame([] if dice is None else [
        {"case": case, "model": model, "method": method, "class": "a", "dice": dice}
    ]).reindex(columns=[*CLASS_COLUMNS])  # fmt: skip
    return CaseResult(
        done_run(case, model, method, created=created),
        region_rows(case, model, method, share, **how),
        classes,
    )


def failed(case, created, reason="no image", **known):
    return CaseResult(failed_run(case, "m", "g", reason, created=created, **known))


def listing(names=CASES):
    ages = [40.0 + i for i in range(len(names))]
    return pd.DataFrame({"patient": [f"of {n}" for n in names], "age": ages},
                        index=pd.Index(names, name="case"))  # fmt: skip


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "s", PLAN, listing())


def share_of(store, case, model="m", method="g"):
    return store.table(model, method).of_target("a").loc[case, "b"]


def parquet_files(store, dataset):
    return sorted((store.folder / dataset).rglob("*.parquet"))


@pytest.mark.parametrize("seed", range(4))
def test_nothing_depends_on_the_order_of_finishing_or_on_blocks(store, tmp_path, seed):
    rng = np.random.default_rng(seed)
    results = {
        case: done(case, i / 10, dice=0.1 * i, channels=("t1", "t2", "t3"),
                   created=f"2026-01-01T00:00:0{i}")
        for i, case in enumerate(CASES)
    }  # fmt: skip
    store.add(list(results.values()))
    other = Store.create(tmp_path / "other", PLAN, listing())
    order = rng.permutation(CASES).tolist()
    while order:
        n = int(rng.integers(1, 4))
        other.add([results[case] for case in order[:n]])
        order = order[n:]
    one, two = (
        store.table("m", "g", ("share", "n_voxels")),
        other.table("m", "g", ("share", "n_voxels")),
    )
    assert (one.targets, one.regions) == (two.targets, two.regions)
    assert one.targets == ("b", "a")
    assert one.regions == ("background", "b", "a")
    assert tuple(one.cases.index) == CASES
    for name, array in one.values.items():
        np.testing.assert_array_equal(array, two.values[name])
    pd.testing.assert_frame_equal(one.cases, two.cases)
    pd.testing.assert_frame_equal(one.dice, two.dice)
    pd.testing.assert_frame_equal(store.classes("m", "g"), other.classes("m", "g"))
    dropped = ["block", "written"]
    pd.testing.assert_frame_equal(
        store.runs().drop(columns=dropped), other.runs().drop(columns=dropped)
    )


def test_a_case_that_ran_again_counts_once_in_its_latest_run(store):
    store.add(
        [done("c1", 0.9, created="2026-01-02", dice=0.8), done("c0", 0.3, created="2026-01-02")]
    )
    store.add([done("c1", 0.1, created="2026-01-01", dice=0.2)])  # a worker's clock is late
    assert share_of(store, "c1") == 0.1
    assert share_of(store, "c0") == 0.3
    assert store.classes("m", "g")[["case", "dice"]].to_numpy().tolist() == [["c1", 0.2]]
    assert store.runs()["case"].tolist() == ["c0", "c1"]
    store.add([done("c1", 0.2, created="2026-01-03")])
    assert share_of(store, "c1") == 0.2
    assert share_of(store, "c0") == 0.3
    assert store.classes("m", "g").empty  # the latest run of c1 knows no truth


def test_one_result_written_twice_is_one_block(store):
    store.add([done("c1", 0.9)])
    store.add([done("c1", 0.9)])
    assert len(parquet_files(store, "runs")) == 1


def test_failed_then_done_then_failed(store):
    store.add([failed("c2", "2026-01-01", "unreadable"), done("c3")])
    runs = store.runs().set_index("case")
    assert runs.loc["c2", ["status", "reason"]].tolist() == ["failed", "unreadable"]
    assert [*store.table("m", "g").cases.index] == ["c3"]
    store.add([done("c2", 0.4, created="2026-01-02")])
    assert [*store.table("m", "g").cases.index] == ["c2", "c3"]
    store.add([failed("c2", "2026-01-03", "a worker died")])  # of the same files
    assert [*store.table("m", "g").cases.index] == ["c2", "c3"]
    assert share_of(store, "c2") == 0.4
    store.add([failed("c2", "2026-01-04", "changed", stamp="other files")])
    assert [*store.table("m", "g").cases.index] == ["c3"]
    assert store.runs().set_index("case").loc["c2", "reason"] == "changed"
    assert store.partitions() == [("m", "g")]


def test_the_drivers_order_counts_though_its_clock_goes_back(store, monkeypatch):
    monkeypatch.setattr("voxplain.study.store.time.time_ns", lambda: 2000)
    store.add([done("c0", 0.1, created="1")])
    store.add([done("c0", 0.2, created="2")])
    monkeypatch.setattr("voxplain.study.store.time.time_ns", lambda: 5)
    again = Store(store.folder)  # another driver, on a machine that is late
    again.add([done("c0", 0.3, created="0"), failed("c1", "0")])
    again.add([failed("c1", "1", "again")])
    runs = store.runs().set_index("case")
    assert runs["written"].tolist() == [2002, 2003]
    assert share_of(store, "c0") == 0.3
    assert runs.loc["c1", "reason"] == "again"


def test_rows_of_another_plan_do_not_count(store):
    before = Store(store.folder)
    store.add([done("c0", 0.1)])
    Store.clear(store.folder)
    new = Store.create(store.folder, {**PLAN, "seed": 1}, listing())
    assert new.runs().empty
    before.add([done("c0", 0.2, created="2"), done("c1", 0.3)])  # a driver that goes on meanwhile
    assert new.runs().empty
    new.add([done("c1", 0.4, created="3")])
    assert [*new.table("m", "g").cases.index] == ["c1"]
    assert share_of(new, "c1") == 0.4


def test_what_cannot_be_cleared_is_told(store, monkeypatch):
    store.add([done("c0", 0.1)])

    def busy(path):
        raise OSError(errno.EBUSY, "Device or resource busy", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("voxplain.study.store.shutil.rmtree", busy)
        with pytest.raises(OutputError, match=r"runs cannot be removed \(.*busy"):
            Store.clear(store.folder)
    assert share_of(Store(store.folder), "c0") == 0.1  # still a study
    Store.clear(store.folder)
    assert [*store.folder.iterdir()] == []


def test_hashes_of_images_are_with_the_cases(store):
    store.add([done("c1", 0.1), done("c0", 0.2, model="n"), done("c3", 0.3, model="n")])
    assert "image_sha256" not in store.table("m", "g").cases  # imported: not known
    for case in ("c1", "c0"):
        one = done(case, 0.1, created="2")
        store.add([replace(one, run={**one.run, "image_sha256": f"hash of {case}"})])
    cases = store.table("m", "g").cases
    assert cases["image_sha256"].to_dict() == {"c0": "hash of c0", "c1": "hash of c1"}


def test_planes_of_cases_with_long_and_odd_names(store):
    planes = {"picture": np.arange(6, dtype=np.uint8).reshape(2, 3)}
    names = ["肺部扫描" * 15, "ä" * 80, "a b%"]
    for i, name in enumerate(names):
        store.add([replace(done(name), planes={"picture": planes["picture"] + i})])
    for i, name in enumerate(names):
        np.testing.assert_array_equal(
            store.planes("m", "g", name)["picture"], planes["picture"] + i
        )
    assert store.planes("m", "g", "unknown") == {}


def test_a_store_of_failures_only(store):
    store.add([failed("c0", "2026-01-01")])
    assert not parquet_files(store, "regions")
    assert store.partitions() == []
    with pytest.raises(RecordError, match="no finished case of m · g"):
        store.table("m", "g")


def test_a_block_without_its_runs_file_does_not_count(store):
    store.add([done("c0", 0.3)])
    store.add([done("c1", 0.9, dice=0.5)])
    last = max(parquet_files(store, "runs"), key=lambda file: pd.read_parquet(
        file, partitioning=None)["case"].iloc[0])  # fmt: skip
    last.unlink()  # as if the process had been killed just before it
    assert [*store.table("m", "g").cases.index] == ["c0"]
    assert len(store.classes("m", "g")) == 0
    store.add([done("c1", 0.2, created="2026-02-01")])
    assert share_of(store, "c1") == 0.2


@pytest.mark.parametrize("dataset", ["regions", "classes", "runs"])
@pytest.mark.parametrize("how", ["cut", "text", "empty"])
def test_a_damaged_file_is_named(store, dataset, how):
    store.add([done("c0", dice=0.5)])
    (file,) = parquet_files(store, dataset)
    whole = file.read_bytes()
    file.write_bytes({"cut": whole[: len(whole) // 2], "text": b"hello" * 9, "empty": b""}[how])
    with pytest.raises(RecordError, match="is damaged") as caught:
        store.table("m", "g")
    assert str(file) in str(caught.value)


def test_lost_region_sums_are_told(store):
    store.add([done("c0")])
    (file,) = parquet_files(store, "regions")
    file.unlink()
    with pytest.raises(RecordError, match="is missing: its cases are told to be done") as caught:
        store.table("m", "g")
    assert str(file) in str(caught.value)


def test_a_damaged_list_of_cases(store):
    (store.folder / "cases.parquet").unlink()
    with pytest.raises(RecordError, match=r"cases\.parquet is damaged or missing"):
        store.cases()


@pytest.mark.parametrize(
    "label", ["a/b", "two words", "x=y", "größer", "50%", "../up", "a%2Fb", "*", "[ab]", "."]
)
def test_labels_of_models_and_methods(tmp_path, label):
    store = Store.create(tmp_path / "s", PLAN, listing())
    store.add([done("c0", 0.3, model=label, method="g"), done("c0", 0.4, model="m", method=label)])
    store.add([done("c1", 0.5, model=label, method="g", created="2026-01-02")])
    assert sorted(store.partitions()) == sorted([("m", label), (label, "g")])
    assert share_of(store, "c0", label, "g") == 0.3
    assert share_of(store, "c1", label, "g") == 0.5
    assert share_of(store, "c0", "m", label) == 0.4
    assert {file.parent.parent.parent.parent for file in parquet_files(store, "regions")} == {
        store.folder
    }


def test_models_come_in_the_order_of_the_plan(store):
    for model in ("z", "n", "m"):
        store.add([done("c0", model=model)])
    assert store.partitions() == [("m", "g"), ("n", "g"), ("z", "g")]


def test_channels_are_summed_and_voxels_are_not(store):
    store.add([done("c0", 0.6, channels=("t1", "t2", "flair"))])
    table = store.table("m", "g", ("share", "mean", "positive", "negative", "n_voxels"))
    found = {name: array[0, 0, 1] for name, array in table.values.items()}
    assert found == pytest.approx(
        {"share": 0.6, "mean": 6.0, "positive": 9.0, "negative": -3.0, "n_voxels": 7}
    )


def test_an_absent_class_and_missing_rows_are_nan(store):
    absent = done("c0", np.nan, channels=("t1", "t2"))
    one_target = done("c1", 0.5, targets=("a",))
    store.add([absent, one_target, done("c2", 0.25)])
    table = store.table("m", "g", ("share", "n_voxels"))
    assert np.isnan(table.values["share"][0]).all()
    assert (table.values["n_voxels"][0] == 7).all()
    assert np.isnan(table.of_target("b").loc["c1"]).all()
    assert (table.of_target("a").loc["c1"] == 0.5).all()
    assert (table.values["share"][2] == 0.25).all()


def test_a_shorter_list_of_cases_hides_results_and_a_longer_one_shows_them(store):
    store.add([done("c0", 0.1), done("c5", 0.2)])
    short = Store.create(store.folder, PLAN, listing(("c5", "new")))
    assert [*short.table("m", "g").cases.index] == ["c5"]
    assert [*short.runs()["case"]] == ["c5"]
    turned = Store.create(store.folder, PLAN, listing(("c5", "c0")))
    assert [*turned.table("m", "g").cases.index] == ["c5", "c0"]
    assert turned.table("m", "g").cases["age"].tolist() == [40.0, 41.0]


def test_another_plan_is_refused_and_changes_nothing(store):
    store.add([done("c0", 0.1)])
    with pytest.raises(OutputError, match="another targets"):
        Store.create(store.folder, {**PLAN, "targets": ["a"]}, listing(("c9",)))
    assert [*Store(store.folder).cases().index] == [*CASES]
    assert share_of(store, "c0") == 0.1


def test_no_study(tmp_path):
    with pytest.raises(RecordError, match=r"holds no study \(no plan\.json\)"):
        Store(tmp_path)


@pytest.mark.parametrize("n_written", [0, 1, 2])
def test_a_full_disk_leaves_nothing_half_written(store, monkeypatch, n_written):
    store.add([done("c0", 0.1)])
    written = pd.DataFrame.to_parquet
    n_calls = []

    def full(self, path, **kwargs):
        if len(n_calls) == n_written:
            path.write_bytes(b"PAR1")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        n_calls.append(path)
        written(self, path, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(pd.DataFrame, "to_parquet", full)
        with pytest.raises(OutputError, match="no space is left on the disk"):
            store.add([done("c1", 0.2, dice=0.5)])
    assert [*store.table("m", "g").cases.index] == ["c0"]
    assert len(parquet_files(store, "runs")) == 1
    assert not list(store.folder.rglob(".*"))
    store.add([done("c1", 0.2, dice=0.5)])  # the disk has space again
    assert [*store.table("m", "g").cases.index] == ["c0", "c1"]


def test_columns_of_a_run():
    for run in (done_run("c", "m", "g", seconds=2.0), failed_run("c", "m", "g", "why")):
        assert tuple(run) == RUN_COLUMNS
    assert failed_run("c", "m", "g", "why")["reason"] == "why"
