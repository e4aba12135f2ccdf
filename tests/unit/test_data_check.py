"""Every fault of a cohort is found at once, and no other."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from voxplain.data import Case, Cohort, check, read_data
from voxplain.data.header import read_header
from voxplain.errors import ImageError
from voxplain.space import Grid, read_image, read_labels, write_nifti
from voxplain.testing import phantoms
from voxplain.testing.phantoms import SHAPE, oblique_grid

DATA = Path(__file__).parents[3] / "shared" / "data" / "ct_thorax_abdomen"
CLASSES = {0: "background", 1: "liver", 2: "spleen", 3: "lesion"}


@pytest.fixture
def cohort(tmp_path):
    """Five sound training cases of two channels and a test case, all different."""
    cases = []
    for i, name in enumerate("abcdet"):
        grid = oblique_grid(seed=i)
        image, labels = phantoms.volume(grid, 2, seed=i), phantoms.labels(grid, seed=i)
        files = tuple(tmp_path / f"{name}_{channel}.nii.gz" for channel in ("t1", "t2"))
        for file, data in zip(files, image.data, strict=True):
            write_nifti(file, data, grid)
        truth = tmp_path / f"{name}_seg.nii.gz"
        if name != "t":
            write_nifti(truth, labels.layers, grid)
        split = "test" if name == "t" else "train"
        cases.append(Case(name, files, None if name == "t" else truth, split, f"patient {i}"))
    return Cohort(tmp_path, "images", tuple(cases), ("t1", "t2"), CLASSES)


def found(cohort, level="quick"):
    result = check(cohort, level)
    return [str(f) for f in result.faults], [str(f) for f in result.remarks]


def with_case(cohort, name, **changes):
    """The cohort with one case changed."""
    cases = [replace(c, **changes) if c.name == name else c for c in cohort]
    return replace(cohort, cases=tuple(cases))


@pytest.mark.parametrize("level", ["quick", "full"])
def test_nothing_is_wrong(cohort, level):
    told = []
    result = check(cohort, level, lambda done, total: told.append((done, total)))
    assert result.found == ()
    assert told == [(i + 1, 17) for i in range(17)]
    assert [e.grid.spacing for e in result.examined] == [pytest.approx((0.7, 1.1, 2.3))] * 6
    assert {e.n_channels for e in result.examined} == {2}
    counted = {"liver": 5, "spleen": 5, "lesion": 5}
    assert result.n_cases_of_class == (counted if level == "full" else None)


# -- one case ---------------------------------------------------------------------------------
def overwrite(cohort, name, data=None, grid=None):
    """Write a file of the cohort again; of what it is not told it keeps what is there."""
    path = cohort.root / name
    old = read_image(path)
    write_nifti(path, old.data if data is None else data, grid or old.grid)


def moved(grid, mm):
    affine = grid.affine.copy()
    affine[1, 3] += mm
    return Grid(grid.shape, affine)


def break_everything(cohort):
    root = cohort.root
    (root / "a_t1.nii.gz").unlink()
    (root / "a_seg.nii.gz").write_bytes(b"")
    (root / "b_t2.nii.gz").write_bytes((root / "b_t2.nii.gz").read_bytes()[:200])
    overwrite(cohort, "c_seg.nii.gz", grid=moved(read_image(root / "c_seg.nii.gz").grid, 0.5))
    overwrite(cohort, "d_t2.nii.gz", data=phantoms.volume(n_channels=2).data)
    overwrite(cohort, "e_t2.nii.gz", data=np.ones((4, 7, 11)),
              grid=oblique_grid((4, 7, 11), (2, 1, 1)))  # fmt: skip


def test_all_faults_of_headers_and_files_at_once(cohort):
    break_everything(cohort)
    faults, remarks = found(cohort)
    assert remarks == []
    expected = [
        "a, a_t1.nii.gz: the file is missing; add it or remove the case",
        "a, a_seg.nii.gz: the file is empty (0 bytes); copy it again",
        "b, b_t2.nii.gz: cannot be read as NIfTI, the file is damaged, cut short or of another "
        "format (",
        "c, c_seg.nii.gz: labels are on another grid than c_t1.nii.gz: shape (5, 7, 11), spacing "
        "(0.7, 1.1, 2.3) mm, orientation RAS against shape (5, 7, 11), spacing (0.7, 1.1, 2.3) "
        "mm, orientation RAS, up to 0.5 mm apart; resample with voxplain.space.resample_labels(",
        "d: its images hold 3 channels, expected 2 (t1, t2); give each channel once",
        "e, e_t2.nii.gz: image is on another grid than e_t1.nii.gz: shape (4, 7, 11), spacing "
        "(2, 1, 1) mm, orientation RAS against shape (5, 7, 11), spacing (0.7, 1.1, 2.3) mm, "
        "orientation RAS; resample with voxplain.space.resample(image, like=other)",
    ]
    assert len(faults) == len(expected)
    for fault, words in zip(faults, expected, strict=True):
        assert fault.startswith(words)
        assert str(cohort.root) not in fault


def test_all_faults_of_voxels_at_once(cohort):
    root = cohort.root
    image = read_image(root / "a_t1.nii.gz")
    image.data[0, 1, 2, 3] = np.nan
    nib.save(nib.Nifti1Image(image.data[0], image.grid.affine), root / "a_t1.nii.gz")
    raw = gzip.decompress((root / "b_t1.nii.gz").read_bytes())
    (root / "b_t1.nii.gz").write_bytes(gzip.compress(raw[:-40]))
    labels = read_labels(root / "c_seg.nii.gz").layers[0]
    overwrite(cohort, "c_seg.nii.gz", np.where(labels == 1, 7, np.where(labels == 2, 9, 0)))
    overwrite(cohort, "d_seg.nii.gz", np.where(labels == 1, 0.5, 0))
    overwrite(cohort, "e_seg.nii.gz", np.zeros(SHAPE, np.uint8))
    overwrite(cohort, "e_t1.nii.gz", np.full(SHAPE, 4))
    assert found(cohort) == ([], [])
    faults, remarks = found(cohort, "full")
    assert faults[0] == (
        "a, a_t1.nii.gz: 1 of 385 voxels are NaN or infinite; replace them (e.g. by the value of "
        "air) before explaining"
    )
    assert faults[1].startswith("b, b_t1.nii.gz: cannot be read as NIfTI, the file is damaged, cu")
    assert faults[2:] == [
        "c, c_seg.nii.gz: holds labels 7, 9, declared are 0 background, 1 liver, 2 spleen, "
        "3 lesion; declare or change them",
        "d, d_seg.nii.gz: a label map holds whole numbers; this one holds fractions or NaN; "
        "correct or replace the file",
    ]
    assert remarks == [
        "e, e_t1.nii.gz: every voxel is 4; look at it: is it the right file?",
        "e, e_seg.nii.gz: no voxel is labelled; fine if nothing is there to label",
    ]
    result = check(cohort, "full")
    assert result.n_cases_of_class == {
        "liver": 2, "spleen": 2, "lesion": 2, "label_7": 1, "label_9": 1,
    }  # fmt: skip


def test_cases_without_images_or_labels(cohort):
    changed = with_case(with_case(cohort, "a", images=()), "b", labels=None)
    changed = with_case(changed, "c", labels=None, split=None)
    faults, remarks = found(changed)
    assert faults == [
        "a: has no image; add one or remove the case",
        "b: an image for train without labels; add them or remove the case",
    ]
    assert remarks == ["c: an image without labels; add them, or put it into test"]
    for name in "ade":
        changed = with_case(changed, name, labels=None)
    assert not any("without labels" in sentence for part in found(changed) for sentence in part)


def test_masks(tmp_path):
    grid = oblique_grid()
    write_nifti(tmp_path / "ct.nii.gz", phantoms.volume().data, grid)
    files = {name: tmp_path / f"{name}.nii.gz" for name in ("aorta", "heart", "liver", "lung")}
    write_nifti(files["aorta"], np.ones(SHAPE, np.uint8), grid)
    write_nifti(files["heart"], np.zeros(SHAPE, np.uint8), grid)
    write_nifti(files["liver"], phantoms.labels(grid).layers, grid)
    write_nifti(files["lung"], np.ones(SHAPE, np.uint8), moved(grid, 2))
    names = {0: "background", **dict(enumerate(files, 1))}
    cohort = Cohort(tmp_path, "x", (Case("s1", (tmp_path / "ct.nii.gz",), files),), classes=names)
    faults, remarks = found(cohort, "full")
    assert len(faults) == 2
    assert faults[0].startswith("s1, liver.nii.gz: a mask of one structure holds 0 and one other")
    assert faults[1].startswith("s1, lung.nii.gz: labels are on another grid than ct.nii.gz")
    assert remarks == []
    assert check(cohort, "full").n_cases_of_class == {"aorta": 1, "heart": 0, "liver": 0, "lung": 1}
    assert len(found(cohort)[0]) == 1


def test_classes_that_are_not_declared_are_named_by_labels_json(cohort):
    (cohort.root / "labels.json").write_text('{"1": "organ"}')
    result = check(replace(cohort, classes={}), "full")
    assert result.found == ()
    assert result.n_cases_of_class == {"label_2": 5, "label_3": 5, "organ": 5}


def test_folders(tmp_path):
    for name in ("series", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "series" / "IM0").write_bytes(b"\0" * 128 + b"DICM")
    cases = [Case(name, (tmp_path / name,)) for name in ("series", "empty", "series#2", "no#2")]
    faults, _ = found(Cohort(tmp_path, "x", tuple(cases)))
    assert faults == [
        "empty, empty: is a folder without a DICOM series; give an image file",
        "no#2, no#2: the file is missing; add it or remove the case",
    ]


# -- cases beside each other ------------------------------------------------------------------
def test_patients_in_two_splits_are_not_named(cohort):
    changed = with_case(with_case(cohort, "t", patient="Doe"), "b", patient="Doe")
    faults, _ = found(with_case(changed, "c", patient="Doe"))
    assert faults == [
        "cases of one patient are in different splits: b (train), c (train), t (test); put all "
        "cases of a patient into one split"
    ]
    assert "Doe" not in json.dumps(check(changed).to_json())


def test_files_used_twice(cohort):
    a, b = cohort.case("a"), cohort.case("b")
    (cohort.root / "link.nii.gz").symlink_to(b.images[0])
    changed = with_case(cohort, "a", images=(a.images[0], cohort.root / "link.nii.gz"))
    faults, _ = found(with_case(changed, "a", labels=a.images[0]))
    assert [fault for fault in faults if "times" in fault] == [
        "a_t1.nii.gz: the file is used 2 times: by a; use each file once",
        "b_t1.nii.gz: the file is used 2 times: by a, b; use each file once",
    ]


def test_copies_of_an_image(cohort):
    for channel in ("t1", "t2"):
        overwrite(cohort, f"t_{channel}.nii.gz", read_image(cohort.root / "a_t1.nii.gz").data,
                  read_image(cohort.root / "a_t1.nii.gz").grid)  # fmt: skip
    assert found(cohort) == ([], [])
    faults, _ = found(cohort, "full")
    assert faults == ["the same image, voxel for voxel, 3 times: in a, t; remove all but one"]


def test_odd_ones_out(cohort):
    root = cohort.root
    flipped = read_image(root / "b_t1.nii.gz").grid.reorient("LAS")
    for name in ("b_t1", "b_t2", "b_seg"):
        overwrite(cohort, f"{name}.nii.gz", grid=flipped)
    thick = oblique_grid(spacing=(0.7, 1.1, 7.0))
    for name in ("c_t1", "c_t2", "c_seg"):
        overwrite(cohort, f"{name}.nii.gz", grid=thick)
    faults, remarks = found(cohort)
    assert faults == []
    assert remarks == [
        "c: spacing (right, anterior, superior) is (0.7, 1.1, 7) mm, the median of 6 cases "
        "(0.7, 1.1, 2.3) mm; look whether its header is right",
        "b: axes point to LAS, of 5 of 6 cases to RAS; fine where headers are heeded",
    ]
    few = replace(cohort, cases=cohort.cases[:3])
    assert len(found(few)[1]) == 1


def test_pictures_among_volumes_and_other_numbers_of_channels(cohort, tmp_path):
    Image.fromarray(np.arange(63, dtype=np.uint8).reshape(7, 9)).save(tmp_path / "p.png")
    rgb = np.arange(189, dtype=np.uint8).reshape(7, 9, 3)
    Image.fromarray(rgb).save(tmp_path / "q.png")
    odd = [Case(name, (tmp_path / f"{name}.png",), split="test") for name in "pq"]
    faults, _ = found(replace(cohort, cases=(*cohort.cases, *odd), channels=()))
    assert faults == [
        "p: is 2D, 6 of 8 cases are 3D; divide them: a model takes one of both",
        "q: is 2D, 6 of 8 cases are 3D; divide them: a model takes one of both",
        "p: has 1 channels, 6 of 8 cases have 2; give every case the same",
        "q: has 3 channels, 6 of 8 cases have 2; give every case the same",
    ]


def test_json(cohort):
    (cohort.root / "a_t1.nii.gz").unlink()
    case = replace(cohort.case("b"), metadata={"age": 61.0})
    raw = check(with_case(cohort, "b", metadata=case.metadata), "full").to_json()
    raw = json.loads(json.dumps(raw))
    assert raw["splits"] == {"train": 5, "test": 1}
    assert raw["classes"] == {str(label): name for label, name in CLASSES.items()}
    assert raw["metadata"] == ["age"]
    assert raw["cases"][1]["shape"] == list(SHAPE)
    assert raw["cases"][1]["spacing_mm"] == pytest.approx([0.7, 1.1, 2.3])
    assert raw["cases"][1]["classes"] == ["lesion", "liver", "spleen"]
    assert raw["cases"][0]["n_channels"] is None
    assert raw["faults"] == [
        {
            "kind": "fault", "case": "a", "file": "a_t1.nii.gz",
            "what": "the file is missing", "advice": "add it or remove the case",
        }
    ]  # fmt: skip
    assert str(cohort.root) not in json.dumps(raw)


def test_a_cohort_without_cases(tmp_path):
    assert found(Cohort(tmp_path, "images", ())) == ([], [])


# -- headers ----------------------------------------------------------------------------------
@given(
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=5),
    unit=st.sampled_from(["mm", "micron", "meter", "unknown"]),
    seed=st.integers(0, 99),
)
def test_a_header_says_what_the_whole_file_says(shape, unit, seed, tmp_path_factory):
    path = tmp_path_factory.mktemp("h") / "x.nii"
    affine = oblique_grid(seed=seed).affine
    image = nib.Nifti1Image(np.zeros(shape, np.float32), affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    if any(n > 1 for n in shape[4:]):  # time and components
        with pytest.raises(ImageError) as of_file:
            read_image(path)
        with pytest.raises(ImageError) as of_header:
            read_header(path)
        assert str(of_header.value) == str(of_file.value)
        return
    header, whole = read_header(path), read_image(path)
    assert header.grid == whole.grid
    assert header.n_channels == whole.n_channels


def test_headers_of_other_files(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 4, 5)))
    header = read_header(tmp_path / "a.npy")
    assert (header.grid.shape, header.n_channels) == ((3, 4, 5), 2)
    Image.fromarray(np.zeros((3, 4), np.uint8)).convert("P").save(tmp_path / "p.png")
    assert read_header(tmp_path / "p.png").n_channels == 3
    assert read_header(tmp_path / "p.png", is_label=True).n_channels == 1
    (tmp_path / "x.mha").touch()
    with pytest.raises(ImageError, match="unknown image format"):
        read_header(tmp_path / "x.mha")
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.float32), np.eye(4)), tmp_path / "s.nii")
    raw = bytearray((tmp_path / "s.nii").read_bytes())
    raw[280:328] = np.diag([1.0, 0.0, 1.0, 1.0])[:3].astype("<f4").tobytes()  # the affine's rows
    (tmp_path / "s.nii").write_bytes(raw)
    with pytest.raises(ImageError, match=r"s\.nii: the affine is singular .*; repair"):
        read_header(tmp_path / "s.nii")


# -- real -------------------------------------------------------------------------------------
@pytest.mark.real
@pytest.mark.skipif(not DATA.is_dir(), reason="the folder ../shared/data is absent")
def test_real_ct_as_a_manifest(tmp_path):
    (tmp_path / "manifest.csv").write_text(
        f"case,image,label,age\nct,{DATA / 'ct.nii.gz'},{DATA / 'segmentation.nii.gz'},61\n"
    )
    (tmp_path / "labels.json").write_bytes((DATA / "labels.json").read_bytes())
    result = check(read_data(tmp_path), "full")
    assert result.found == ()
    counted = result.n_cases_of_class
    assert sum(counted.values()) == len(np.unique(np.asarray(
        nib.load(DATA / "segmentation.nii.gz").dataobj))) - 1  # fmt: skip
    assert counted["aorta"] == 1


@pytest.mark.real
@pytest.mark.skipif(not DATA.is_dir(), reason="the folder ../shared/data is absent")
def test_real_ct_as_a_plain_folder(tmp_path):
    (tmp_path / "ct.nii.gz").symlink_to(DATA / "ct.nii.gz")
    cohort = read_data(tmp_path)
    assert cohort.layout == "images"
    result = check(cohort)
    assert result.found == ()
    assert result.examined[0].grid.shape == (122, 101, 112)
    assert cohort.case("ct").read_image().grid == result.examined[0].grid
