from __future__ import annotations

import functools

import numpy as np
import pytest

from voxplain.data import check, read_data
from voxplain.demo.cohort import (
    CLASSES,
    MARKER,
    MODELS,
    SHAPE,
    CoarsePatient,
    finished,
    marker_mask,
    models_path,
    write_cohort,
)
from voxplain.errors import DataError
from voxplain.models.load import load_model
from voxplain.space.read import read_labels

drawn = functools.cache(CoarsePatient.draw)
LIVER, LUNG = CLASSES.index("liver"), CLASSES.index("lung")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort") / "data", n=8)


def test_patient_has_every_structure():
    assert set(np.unique(drawn(3000).labels)) == set(range(len(CLASSES) - 2))
    assert drawn(3000).labels.shape == SHAPE


def test_lesion_is_in_the_liver_and_its_class_is_its_density():
    base = drawn(3000)
    cyst, tumour = (finished(base, 1, is_tumour=one, has_marker=False) for one in (False, True))
    lesion = cyst[1] == CLASSES.index("cyst")
    assert lesion.sum() >= 20
    assert (base.labels[lesion] == LIVER).all()
    assert np.array_equal(lesion, tumour[1] == CLASSES.index("tumour"))
    np.testing.assert_allclose(tumour[0][lesion] - cyst[0][lesion], 24, atol=1)
    assert np.array_equal(cyst[0][~lesion], tumour[0][~lesion])


def test_marker_is_outside_of_every_patient_and_inside_its_mask():
    for seed in (3000, 3001, 3002):
        base = drawn(seed)
        without, with_marker = (
            finished(base, 1, is_tumour=True, has_marker=one)[0] for one in (False, True)
        )
        changed = without != with_marker
        assert changed.sum() == 54
        assert (without[changed] < -850).all()
        assert marker_mask()[changed].all()
        assert not base.labels[marker_mask() > 0].any()


def test_fluid_takes_lung_and_nothing_else():
    base = drawn(3000)
    dry, wet = (
        finished(base, 1, is_tumour=True, has_marker=False, has_fluid=one) for one in (False, True)
    )
    changed = dry[0] != wet[0]
    assert (dry[1][changed] == LUNG).all()
    assert 0.3 < changed.sum() / (dry[1] == LUNG).sum() < 0.8
    assert not wet[1][changed].any()
    assert wet[0][changed].mean() == pytest.approx(15, abs=3)


def test_cohort_is_read_without_a_fault(cohort):
    cases = read_data(cohort.manifest)
    assert len(cases) == 8
    assert {*cases.cases[0].metadata} == {"sex", "age", "scanner"}
    assert not check(cases).faults
    assert cohort.anomaly in {case.name for case in cases}


def test_masks_are_on_the_grid_of_the_images(cohort):
    case = read_data(cohort.manifest).cases[0]
    mask = read_labels(cohort.masks[MARKER].replace("{case}", case.name), names={})
    assert mask.grid.matches(case.read_image(["ct"]).grid)
    assert np.array_equal(mask.layers[0], marker_mask())


def test_the_same_again(cohort, tmp_path):
    again = write_cohort(tmp_path / "data", n=8)
    assert again.manifest.read_text() == cohort.manifest.read_text()
    first, second = (
        read_data(one.manifest).case("chest_003").read_image(["ct"]) for one in (cohort, again)
    )
    assert first.sha256() == second.sha256()


def test_too_few_patients_are_refused(tmp_path):
    with pytest.raises(DataError, match="n=7"):
        write_cohort(tmp_path / "data", n=7)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", MODELS)
def test_shipped_models_fit_the_cohort(cohort, name):
    model = load_model(cohort.models[name])
    assert model.info.class_names == CLASSES
    assert {target.removeprefix("class:") for target in cohort.targets} <= set(CLASSES)
    size = sum(path.stat().st_size for path in (models_path() / name).iterdir())
    assert size < 300_000
