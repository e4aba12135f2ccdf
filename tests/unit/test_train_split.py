from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxplain.data import Case, Cohort
from voxplain.train import TrainingError
from voxplain.train.split import case_sha256, divide


def cohort_of(*cases: Case) -> Cohort:
    return Cohort(Path(), "manifest", cases, ("ct",), {1: "heart"})


def case_of(name: str, **more) -> Case:
    return Case(name, (Path(f"{name}.nii.gz"),), Path(f"{name}_labels.nii.gz"), **more)


@given(
    n_patients=st.integers(2, 12),
    scans=st.integers(1, 4),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
)
def test_a_patient_is_in_one_part_only(n_patients, scans, share, seed):
    cases = [case_of(f"p{p}_{s}", patient=f"p{p}") for p in range(n_patients) for s in range(scans)]
    parts = divide(cohort_of(*cases), share, seed)
    training, validation = (
        {c.patient for c in part} for part in (parts.training, parts.validation)
    )
    assert not training & validation
    assert len(parts.training) + len(parts.validation) == len(cases)
    assert len(validation) == min(max(1, round(share * n_patients)), n_patients - 1)
    assert parts == divide(cohort_of(*cases), share, seed)


def test_another_seed_draws_other_patients():
    cases = [case_of(f"c{i:02d}") for i in range(20)]
    parts = [divide(cohort_of(*cases), 0.3, seed).validation for seed in range(5)]
    assert len({tuple(case.name for case in part) for part in parts}) == 5


def test_the_data_say_which_cases_are_validated():
    cases = [
        case_of("a", split="train"), case_of("b", split="validation"), case_of("c", split="test"),
        case_of("d", split="train"),
    ]  # fmt: skip
    parts = divide(cohort_of(*cases), 0.5, 0)
    assert [c.name for c in parts.training] == ["a", "d"]
    assert [c.name for c in parts.validation] == ["b"]


def test_test_cases_are_left_out_of_a_draw():
    cases = [case_of(f"c{i}", split="train") for i in range(4)]
    unlabelled = Case("t", (Path("t.nii.gz"),), None, "test")
    parts = divide(cohort_of(*cases, unlabelled), 0.25, 0)
    assert {c.name for c in (*parts.training, *parts.validation)} == {f"c{i}" for i in range(4)}


def test_all_faults_are_told():
    cases = [
        Case("a", (Path("a.nii.gz"),), None, "train", "p"),
        case_of("b", split="validation", patient="p"),
    ]
    with pytest.raises(TrainingError) as error:
        divide(cohort_of(*cases), 0.5, 0)
    assert "a has no labels" in str(error.value)
    assert "1 patients are in the training and in the validation cases" in str(error.value)
    with pytest.raises(TrainingError, match="got 0 and 0"):
        divide(cohort_of(), 0.5, 0)
    with pytest.raises(TrainingError, match="got 1 and 0"):
        divide(cohort_of(case_of("a")), 0.5, 0)


def test_the_hash_of_a_case_is_of_its_bytes_and_not_of_its_place(tmp_path):
    hashes = []
    for folder, content in (("one", b"x"), ("two", b"x"), ("three", b"y")):
        place = tmp_path / folder
        (place / "series").mkdir(parents=True)
        (place / "series" / "slice").write_bytes(content)
        (place / "labels.nii").write_bytes(b"l")
        hashes.append(case_sha256(Case("a", (place / "series",), place / "labels.nii")))
    assert hashes[0] == hashes[1] != hashes[2]
    with pytest.raises(TrainingError, match="cannot be read"):
        case_sha256(case_of("missing"))
