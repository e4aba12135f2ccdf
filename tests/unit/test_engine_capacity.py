"""What a study will cost: arithmetic, storage, passes; and against a measured run (slow)."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.cohort_studies import study

from voxplain.attribution import Gradient
from voxplain.attribution.estimate import Estimate
from voxplain.data.case import Case
from voxplain.engine import ModelPlace, Study, capacity, run_study
from voxplain.engine.capacity import StudyEstimate, _bytes, estimate_study
from voxplain.engine.run import most_blocks
from voxplain.engine.work import sha256_of, study_names
from voxplain.errors import DataError, MethodError
from voxplain.inference.compute import Compute
from voxplain.study.store import Store


def test_arithmetic() -> None:
    one = StudyEstimate(
        n_tasks=10, n_workers=4, n_forward=1, n_backward=1, is_upper_bound=False, seconds=6.0,
        load_s=2.0, n_blocks=2, n_bytes=100.0, memory_bytes=1,
    )  # fmt: skip
    assert one.worker_s == 10 * 6 + 4 * 2
    assert one.total_s == 2 + 3 * 6
    assert one.total_bytes == 1000
    few = replace(one, n_tasks=2)
    assert (few.worker_s, few.total_s) == (2 * 6 + 2 * 2, 2 + 6)
    assert replace(one, n_tasks=0).total_s == 0


def test_blocks_are_few() -> None:
    assert most_blocks(0) == 0
    assert most_blocks(40) == 40
    assert most_blocks(100 * math.e) == 200
    day = 86_400
    assert most_blocks(10 * day) == math.ceil(100 + 100 * math.log(300) + (10 * day - 30_000) / 300)


def test_passes_and_bytes_are_those_of_the_run(tmp_path: Path) -> None:
    asked = study(tmp_path, 20, n_classes=4)
    found = estimate_study(asked, n_workers=2)
    run_study(asked, tmp_path / "s")
    runs = Store(tmp_path / "s").runs()
    read = runs.iloc[[0, 10, 19]]  # linspace(0, 19, 3): 0, 9.5 to the even 10, 19
    assert found.n_forward == read["n_forward"].mean()
    assert found.n_backward == read["n_backward"].mean()
    assert found.n_tasks == 20
    assert not found.is_upper_bound
    written = [
        path.stat().st_size
        for name in ("regions", "classes", "runs", "planes")
        for path in (tmp_path / "s" / name).rglob("*.*")
    ]
    n_blocks = len(list((tmp_path / "s" / "runs").rglob("*.parquet")))
    model = asked.models["tiny"].load()
    planes = [Store(tmp_path / "s").planes("tiny", "smoothgrad", "c000")]
    a_task, a_block = _bytes(asked, {"tiny": model}, planes)
    assert 20 * a_task + n_blocks * a_block == pytest.approx(sum(written), rel=0.25)
    assert found.n_bytes == pytest.approx(a_task + a_block * found.n_blocks / 20, rel=0.2)
    assert estimate_study(asked, n_left=3, n_read=1).n_tasks == 3


def test_workers_beside_each_other_share_the_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = study(tmp_path, 1)
    monkeypatch.setattr("dask.system.CPU_COUNT", 12)
    before = torch.get_num_threads()
    seen: list[int] = []
    timed = capacity._timed

    def watched(*arguments: Any) -> Any:
        seen.append(torch.get_num_threads())
        return timed(*arguments)

    monkeypatch.setattr(capacity, "_timed", watched)
    for n_workers in (1, 4, 30):
        estimate_study(asked, n_workers=n_workers)
        assert torch.get_num_threads() == before
    assert seen == [before, 3, 1]
    asked.cases[0].images[0].write_bytes(b"no image")
    with pytest.raises(DataError, match="no case could be timed"):
        estimate_study(asked, n_workers=4)
    assert torch.get_num_threads() == before


def test_slow_cases_make_more_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = study(tmp_path, 1)
    for seconds, n_blocks in ((0.5, most_blocks(50_000)), (2.0, 20_000 + most_blocks(200_000))):
        cost = Estimate(1, 1, 1, False, seconds, 1)
        monkeypatch.setattr(
            capacity, "_timed", lambda *_, cost=cost: capacity._Timed(0.0, cost, {})
        )
        found = estimate_study(asked, n_left=100_000)
        assert found.seconds == seconds
        assert found.n_blocks == n_blocks


def test_faults(tmp_path: Path) -> None:
    asked = study(tmp_path, 3)
    asked.cases[0].images[0].write_bytes(b"no image")
    assert estimate_study(asked, n_read=2).n_forward > 0
    for case in asked.cases:
        case.images[0].write_bytes(b"no image")
    with pytest.raises(DataError, match="no case could be timed: c000: "):
        estimate_study(asked)
    for wrong in ({"n_workers": 0}, {"n_read": 0}, {"n_left": -1}):
        with pytest.raises(MethodError, match="got"):
            estimate_study(asked, **wrong)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_within_a_quarter_of_a_measured_run(tmp_path: Path) -> None:
    from voxplain.demo import model_path, write_patients

    torch.set_num_threads(1)
    images = write_patients(tmp_path / "data", range(900, 904))
    place = ModelPlace(str(model_path()))
    model = place.load()
    answers, regions = study_names({"demo": model})
    asked = Study(
        {"demo": place},
        [
            Case(one.name[:11], (one,), one.with_name(one.name.replace(".", "_labels.", 1)))
            for one in images
        ],
        {"gradient": Gradient()},
        ("class:liver", "class:heart", "class:spleen"),
        sha256={"demo": sha256_of(model)},
        class_names=answers,
        region_names=regions,
        compute=Compute(device="cpu"),
    )  # fmt: skip
    before = estimate_study(asked)
    run_study(asked, tmp_path / "s")
    after = estimate_study(asked)  # a busy machine changes meanwhile
    measured = Store(tmp_path / "s").runs()["seconds"].mean()
    ratio = (before.seconds + after.seconds) / 2 / measured
    print(f"estimated / measured: {ratio:.3f} ({before.seconds:.1f}, {after.seconds:.1f} s before "
          f"and after, {measured:.1f} s measured)")  # fmt: skip
    assert 0.75 < ratio < 1.25
