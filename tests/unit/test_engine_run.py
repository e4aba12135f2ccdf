"""A study in one process: faults are told and mended, a stopped run goes on, memory stays."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.cohort_studies import model_folder, rows_of, study, trivial, without_model

from voxplain.attribution import SmoothGrad, explain
from voxplain.engine import Study, run_study
from voxplain.engine import run as run_module
from voxplain.engine.run import Here, State, _Recorder, state_of
from voxplain.engine.work import Task, _loaded, run_task, sha256_of
from voxplain.errors import DataError, ModelError, OutputError
from voxplain.space import read_image
from voxplain.space.nifti import write_nifti
from voxplain.study.store import CaseResult, Store


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return study(tmp_path_factory.mktemp("small"), 4)


def test_the_store_holds_what_explain_says(small: Study, tmp_path: Path) -> None:
    states: list[State] = []
    end = run_study(small, tmp_path / "s", progress=states.append)
    assert end == State(4, 0, 0)
    assert [one.n_left for one in states] == [4, 3, 2, 1, 0]
    store = Store(tmp_path / "s")
    assert state_of(small, store) == end
    table = store.table("tiny", "smoothgrad")
    case = small.cases[2]
    model = small.models["tiny"].load()
    direct = explain(
        model,
        case.read_image(["ct"]),
        small.targets_of(model.answers),
        SmoothGrad(n=2),
        compute=small.compute,
    )
    for target in table.targets:
        own = direct.table.frame.query("target == @target").set_index("region")["share"]
        found = table.of_target(target).loc[case.name]
        assert found.tolist() == own[found.index].tolist()
    assert store.cases()["sex"].isna().tolist() == [False, True, False, True]
    assert store.cases()["patient"].tolist() == ["p0", "p0", "p1", "p1"]


def test_order_of_cases_changes_nothing(small: Study, tmp_path: Path) -> None:
    run_study(small, tmp_path / "a")
    run_study(replace(small, cases=small.cases[::-1]), tmp_path / "b")
    forward = rows_of(tmp_path / "a")
    pd.testing.assert_frame_equal(forward, rows_of(tmp_path / "b").loc[forward.index])


class Stopping(Here):
    """Stops after some cases, as a person would."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def results(self, study: Study, tasks: Any) -> Iterator[CaseResult | None]:
        for i, result in enumerate(super().results(study, tasks)):
            if i == self.n:
                raise KeyboardInterrupt
            yield result


def test_a_stopped_run_goes_on(small: Study, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_study(small, tmp_path / "s", Stopping(2))
    assert len(Store(tmp_path / "s").runs()) == 2
    done: list[str] = []

    def counted(study: Study, task: Task) -> CaseResult:
        done.append(task.case.name)
        return run_task(study, task)

    assert run_study(small, tmp_path / "s", Here(counted)) == State(4, 0, 0)
    assert done == ["c002", "c003"]
    run_study(small, tmp_path / "whole")
    pd.testing.assert_frame_equal(
        rows_of(tmp_path / "s"), rows_of(tmp_path / "whole"), check_exact=True
    )


def test_faults_are_told_and_mended(tmp_path: Path) -> None:
    asked = study(tmp_path, 10, n_classes=3)
    broken, truth = asked.cases[3].images[0], asked.cases[5].label_files[0]
    whole = {path: path.read_bytes() for path in (broken, truth)}
    broken.write_bytes(whole[broken][:200])
    truth.unlink()
    folder = tmp_path / "s"
    assert run_study(asked, folder) == State(8, 2, 0)
    runs = Store(folder).runs().set_index("case")
    assert runs.index[runs["status"] == "failed"].tolist() == ["c003", "c005"]
    assert broken.name in runs.loc["c003", "reason"]
    assert truth.name in runs.loc["c005", "reason"]
    assert runs.loc["c003", "reason"].startswith("ImageError: ")
    # not tried again unless asked for
    blocks = sorted((folder / "runs").rglob("*.parquet"))
    assert run_study(asked, folder) == State(8, 2, 0)
    assert sorted((folder / "runs").rglob("*.parquet")) == blocks
    assert run_study(asked, folder, retry=True) == State(8, 2, 0)
    assert len(sorted((folder / "runs").rglob("*.parquet"))) > len(blocks)
    # a mended file has another stamp and needs no retry
    for path, content in whole.items():
        path.write_bytes(content)
    assert run_study(asked, folder) == State(10, 0, 0)
    run_study(asked, tmp_path / "whole")
    pd.testing.assert_frame_equal(rows_of(folder), rows_of(tmp_path / "whole"), check_exact=True)


def test_an_absent_class_has_no_share(small: Study, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    run_study(replace(small, targets=("class:organ_1", "class:organ_2")), folder)
    table = Store(folder).table("tiny", "smoothgrad")
    model = small.models["tiny"].load()
    for i, case in enumerate(small.cases):
        predicted = explain(model, case.read_image(["ct"]), "class:organ_1", "gradient").prediction
        present = {predicted.names[k] for k in np.unique(predicted.layers) if k}  # type: ignore[union-attr]
        for j, target in enumerate(table.targets):
            assert np.isnan(table.values["share"][i, j]).all() == (
                target.removeprefix("class:") not in present
            )


def test_an_unexpected_fault_is_told(small: Study, tmp_path: Path, monkeypatch: Any) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("of the model's code")

    monkeypatch.setattr("voxplain.engine.work.explain", fails)
    assert run_study(small, tmp_path / "s") == State(0, 4, 0)
    reason = Store(tmp_path / "s").runs()["reason"][0]
    assert reason.startswith("unexpected ZeroDivisionError: of the model's code (test_engine_run")


def test_another_model_is_refused(tmp_path: Path) -> None:
    asked = study(tmp_path, 2)
    run_study(replace(asked, cases=asked.cases[:1]), tmp_path / "s")
    model_folder(tmp_path / "model", seed=1)
    _loaded.cache_clear()
    # the same study: refused where it is run
    with pytest.raises(ModelError, match="are not those that the study began with"):
        run_study(asked, tmp_path / "s")
    # planned anew: refused by the store
    new = replace(asked, sha256={"tiny": sha256_of(asked.models["tiny"].load())})
    with pytest.raises(OutputError, match="another models"):
        run_study(new, tmp_path / "s")


def test_a_full_disk_stops_cleanly(tmp_path: Path, monkeypatch: Any) -> None:
    asked = without_model(6, 3)
    monkeypatch.setattr(run_module, "FLUSH_CASES", 2)
    real = pd.DataFrame.to_parquet
    n_written = 0

    def full(frame: pd.DataFrame, path: Any, **kwargs: Any) -> None:
        nonlocal n_written
        n_written += 1
        if n_written == 7:  # the runs of the third block, after its regions
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(frame, path, **kwargs)

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    folder = tmp_path / "s"
    with pytest.raises(OutputError, match="no space is left"):
        run_study(asked, folder, Here(trivial))
    assert 0 < len(Store(folder).runs()) < 6
    monkeypatch.undo()
    assert run_study(asked, folder, Here(trivial)) == State(6, 0, 0)
    run_study(asked, tmp_path / "whole", Here(trivial))
    pd.testing.assert_frame_equal(rows_of(folder), rows_of(tmp_path / "whole"))
    assert not [path for path in folder.rglob("*") if ".part-" in path.name]


def test_names_come_once() -> None:
    asked = without_model(3)
    with pytest.raises(DataError, match="cases of one name: case_000000"):
        replace(asked, cases=[*asked.cases, asked.cases[0]])


def test_what_waits_is_written_when_nothing_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(run_module.time, "monotonic", lambda: now[0])
    asked = without_model(1, 2)
    store = Store.create(tmp_path, asked.plan(), asked.cases_frame())
    recorder = _Recorder(store)
    result = trivial(asked, Task(asked.cases[0], "m", "gradient", "", ()))

    def n_written() -> int:
        return len(list((tmp_path / "runs").rglob("*.parquet")))

    recorder.take(result)
    assert n_written() == 0
    now[0] = 1.0
    recorder.write_if_due()
    assert n_written() == 1
    now[0] = 1000.0  # from here on a hundredth of the time since the start
    recorder.take(replace(result, run={**result.run, "created": "2"}))
    now[0] = 1009.0
    recorder.take(replace(result, run={**result.run, "created": "3"}))
    assert n_written() == 2
    now[0] = 1011.0
    recorder.write_if_due()
    assert n_written() == 3


def test_slow_cases_are_written_at_once_while_blocks_are_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(run_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(run_module, "SLOW_BLOCKS", 30)
    asked = without_model(1, 2)
    store = Store.create(tmp_path, asked.plan(), asked.cases_frame())
    quick = trivial(asked, Task(asked.cases[0], "m", "gradient", "", ()))

    def take(recorder: _Recorder, created: str, seconds: float) -> int:
        recorder.take(replace(quick, run={**quick.run, "created": created, "seconds": seconds}))
        return store.n_blocks()

    # a hundred thousand cases of a minute, in small: 30 blocks at once, then few
    recorder = _Recorder(store)
    counts = []
    for i in range(200):
        now[0] += 60.0
        counts.append(take(recorder, f"a{i}", 60.0))
    assert counts[:30] == [*range(1, 31)]
    assert 30 < counts[-1] < 200
    assert counts[-1] <= 30 + run_module.most_blocks(now[0])
    # what is there from before counts too
    now[0] += 60.0
    resumed = _Recorder(store)
    now[0] += 1000.0
    before = take(resumed, "b0", 60.0)
    now[0] += 2.0
    assert take(resumed, "b1", 60.0) == before
    # many workers: not more than a block a second; quick cases wait for longer
    monkeypatch.setattr(run_module, "SLOW_BLOCKS", 20_000)
    third = _Recorder(store)
    now[0] += 1000.0
    before = take(third, "c0", 0.5)
    now[0] += 0.5
    assert take(third, "c1", 2.0) == before
    now[0] += 0.5
    third.write_if_due()
    assert store.n_blocks() == before + 1
    now[0] += 2.0
    assert take(third, "c2", 0.5) == before + 1


def masked(folder: Path, n_cases: int) -> Study:
    """Study with two masks: of c000 the first one, of c001 none."""
    asked = study(folder, n_cases)
    masks = {name: str(folder / "masks" / f"{{case}}_{name}.nii.gz") for name in ("node", "cyst")}
    (folder / "masks").mkdir()
    image = read_image(asked.cases[0].images)
    inside = np.zeros((1, *image.grid.shape), np.uint8)
    inside[:, 2:5, 2:5, 2:5] = 1
    write_nifti(folder / "masks" / "c000_node.nii.gz", inside, image.grid, np.uint8)
    return replace(asked, masks=masks)


def test_a_case_without_mask_files_has_empty_regions(tmp_path: Path) -> None:
    asked = masked(tmp_path, 2)
    assert run_study(asked, tmp_path / "s") == State(2, 0, 0)
    table = Store(tmp_path / "s").table("tiny", "smoothgrad", ("share", "n_voxels"))
    assert table.extra_regions == ("node", "cyst")
    for case, region, n in (
        ("c000", "node", 27), ("c000", "cyst", 0), ("c001", "node", 0), ("c001", "cyst", 0),
    ):  # fmt: skip
        row, column = table.cases.index.get_loc(case), table.regions.index(region)
        share = table.values["share"][row, :, column]
        present = np.isfinite(table.values["share"][row, :, 0])
        assert present.any()
        assert np.isfinite(share[present]).all()
        assert (share[present] > 0).all() if n else (share[present] == 0).all()
        assert (table.values["n_voxels"][row, :, column] == n).all()


def test_a_mask_that_a_worker_does_not_see_fails_the_case(tmp_path: Path) -> None:
    asked = masked(tmp_path, 2)
    gone = tmp_path / "masks" / "c000_node.nii.gz"

    def elsewhere(study: Study, task: Task) -> CaseResult:
        gone.unlink(missing_ok=True)
        return run_task(study, task)

    assert run_study(asked, tmp_path / "s", Here(elsewhere)) == State(1, 1, 0)
    runs = Store(tmp_path / "s").runs().set_index("case")
    assert runs.loc["c000", "status"] == "failed"
    reason = runs.loc["c000", "reason"]
    assert reason.startswith(f"DataError: mask 'node': {gone} was there when the case was sent")


def test_other_names_of_labels_are_another_study(tmp_path: Path) -> None:
    asked = study(tmp_path, 1)
    run_study(asked, tmp_path / "s")
    assert Store(tmp_path / "s").plan["labels"]["1"] == "organ_1"
    with pytest.raises(OutputError, match="another labels"):
        run_study(replace(asked, labels={**asked.labels, 1: "liver"}), tmp_path / "s")
    # names that lie beside a map, or are those of masks, are the case's own
    (case,) = asked.cases
    unnamed = replace(asked, labels={})
    before = unnamed.stamp(case)
    assert isinstance(case.labels, Path)
    case.labels.with_name("labels.json").write_text('{"1": "liver"}')
    assert unnamed.stamp(case) != before
    stamps = {
        unnamed.stamp(replace(case, labels={name: case.labels})) for name in ("liver", "spleen")
    }
    assert len(stamps) == 2


_GROWTH = """
import resource, sys
from tests.cohort_studies import trivial, without_model
from voxplain.engine.run import Here, run_study
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
run_study(without_model(10), sys.argv[1] + "/few", Here(trivial))
before = peak()
run_study(without_model(1000), sys.argv[1] + "/many", Here(trivial))
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_cases(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _GROWTH, str(tmp_path)]
    root = Path(__file__).parents[2]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert float(run.stdout) < 30, f"grew by {run.stdout} MB"
