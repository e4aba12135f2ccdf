"""Each layout is recognised and read by its files, and says what is wrong with its lists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from voxplain.data import LAYOUTS, DataError, read_data
from voxplain.data.manifest import read as read_manifest


def put(folder: Path, *names: str) -> Path:
    """Make files; lists of cases never open them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def put_json(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def put_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def sentences(path, layout=None, **settings):
    """Faults and remarks of the lists."""
    return [str(f) for f in read_data(path, layout, is_strict=False, **settings).faults]


# -- which one --------------------------------------------------------------------------------
def test_nothing_fits(tmp_path):
    put(tmp_path, "notes.txt", "sub/notes.txt")
    with pytest.raises(DataError, match=r"no data layout recognised\. There are") as caught:
        read_data(tmp_path)
    for name, layout in LAYOUTS.items():
        assert f"\n  - {name}: {layout.needs}" in str(caught.value)
    with pytest.raises(DataError, match=r"no such file or folder: .*nowhere"):
        read_data(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no layout 'nnunt'; did you mean 'nnunet'"):
        read_data(tmp_path, "nnunt")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_that_is_named_says_what_it_needs(layout, tmp_path):
    with pytest.raises(DataError, match=r"dataset\.json|expected ") as caught:
        read_data(tmp_path, layout)
    if layout != "nnunet":
        assert LAYOUTS[layout].needs in str(caught.value)


def test_two_layouts_fit(tmp_path):
    put(tmp_path, "sub-1/anat/sub-1_T1w.nii.gz", "ct_1/ct.nii.gz")
    with pytest.raises(DataError, match=r"could be totalsegmentator or bids; say which, e"):
        read_data(tmp_path)
    assert read_data(tmp_path, "bids").layout == "bids"


def test_settings_of_another_layout(tmp_path):
    put(tmp_path, "a.nii.gz")
    with pytest.raises(DataError, match=r"labels is not a setting of the layout images \(it has"):
        read_data(tmp_path, labels="dseg")
    put(tmp_path, "sub-1/anat/sub-1_T1w.nii.gz")
    with pytest.raises(DataError, match=r"base is not .* bids \(its settings: channels, labels\)"):
        read_data(tmp_path, base=tmp_path)


def test_faults_of_lists_are_raised_together(nnunet):
    put(nnunet, "imagesTr/c.nii.gz", "labelsTr/d.nii.gz")
    with pytest.raises(DataError, match="2 faults") as caught:
        read_data(nnunet)
    assert "no channel number" in str(caught.value)
    assert "labels without an image" in str(caught.value)


# -- nnU-Net ----------------------------------------------------------------------------------
@pytest.fixture
def nnunet(tmp_path):
    put_json(
        tmp_path / "dataset.json",
        {
            "channel_names": {"1": "PET", "0": "CT"},
            "labels": {"background": 0, "liver": 1, "tumor": 2},
            "numTraining": 2,
            "file_ending": ".nii.gz",
        },
    )
    files = [f"imagesTr/{case}_{i:04d}.nii.gz" for case in ("b", "a_7") for i in range(2)]
    put(tmp_path, *files, "labelsTr/a_7.nii.gz", "labelsTr/b.nii.gz", "imagesTr/._b_0000.nii.gz")
    return put(tmp_path, "imagesTs/t_0000.nii.gz", "imagesTs/t_0001.nii.gz")


def test_nnunet(nnunet):
    cohort = read_data(nnunet)
    assert (cohort.layout, cohort.channels) == ("nnunet", ("CT", "PET"))
    assert cohort.classes == {0: "background", 1: "liver", 2: "tumor"}
    assert [(c.name, c.split) for c in cohort] == [
        ("a_7", "train"), ("b", "train"), ("t", "test"),
    ]  # fmt: skip
    assert cohort.case("b").images == tuple(
        nnunet / "imagesTr" / f"b_000{i}.nii.gz" for i in range(2)
    )
    assert cohort.case("b").labels == nnunet / "labelsTr" / "b.nii.gz"
    assert cohort.case("t").labels is None
    put(nnunet, "labelsTs/t.nii.gz")
    assert read_data(nnunet).case("t").labels == nnunet / "labelsTs" / "t.nii.gz"


def test_nnunet_regions_and_ignore(nnunet):
    raw = json.loads((nnunet / "dataset.json").read_text())
    raw["labels"] = {
        "background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3], "ignore": 4,
    }  # fmt: skip
    put_json(nnunet / "dataset.json", raw)
    cohort = read_data(nnunet)
    assert cohort.regions == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    assert cohort.classes == {
        0: "background", 1: "label_1", 2: "label_2", 3: "enhancing", 4: "ignore",
    }  # fmt: skip
    assert cohort.ignored_label == 4


def test_nnunet_channels_of_one_kind(nnunet):
    raw = json.loads((nnunet / "dataset.json").read_text())
    put_json(nnunet / "dataset.json", {**raw, "channel_names": {"0": "MRI", "1": "MRI"}})
    assert read_data(nnunet).channels == ("MRI_0", "MRI_1")


def test_nnunet_all_channels_in_one_file(nnunet):
    for file in nnunet.glob("images*/*_0001.nii.gz"):
        file.unlink()
    cohort = read_data(nnunet)
    assert [len(case.images) for case in cohort] == [1, 1, 1]
    assert cohort.channels == ("CT", "PET")
    put(nnunet, "imagesTs/t_0001.nii.gz")
    assert [len(case.images) for case in read_data(nnunet)] == [2, 2, 2]


def test_nnunet_faults_of_its_lists(nnunet):
    put(nnunet, "imagesTr/a_7_0002.nii.gz", "imagesTr/scan.nii.gz", "imagesTr/notes.txt")
    put(nnunet, "labelsTr/e.nii.gz", "imagesTs/b_0000.nii.gz", "imagesTr/f_0001.nii.gz")
    assert sentences(nnunet) == [
        "a_7, imagesTr/a_7_0002.nii.gz: channel 2 is not among the 2 channel_names of "
        "dataset.json (CT, PET); name it there or remove the file",
        "imagesTr/notes.txt: left out: does not end in .nii.gz, the file_ending of dataset.json; "
        "convert it, or leave it if it is not data",
        "imagesTr/scan.nii.gz: the file name has no channel number; rename it to "
        "CASE_0000.nii.gz (0001, … for further channels)",
        "e, labelsTr/e.nii.gz: labels without an image in imagesTr; add e_0000.nii.gz or remove "
        "the labels",
        "dataset.json: numTraining is 2, there are 3 training cases; correct the number, or add "
        "what is missing",
        "b: 2 cases have this name; rename or remove all but one",
    ]
    cohort = read_data(nnunet, is_strict=False)
    assert cohort.case("f").images[0] == nnunet / "imagesTr" / "f_0000.nii.gz"


def test_nnunet_without_its_folders(tmp_path, nnunet):
    alone = tmp_path / "alone"
    put_json(alone / "dataset.json", json.loads((nnunet / "dataset.json").read_text()))
    found = "\n".join(sentences(alone))
    assert "imagesTr: this folder is missing; expected dataset.json with channel_names" in found
    assert "labelsTr: this folder is missing" in found
    assert "no case was found" in found


def test_nnunet_listed_files(nnunet, monkeypatch):
    monkeypatch.setenv("ELSEWHERE", "/elsewhere")
    raw = json.loads((nnunet / "dataset.json").read_text())
    raw["dataset"] = {
        "x": {"images": ["../x0.nii.gz", "$ELSEWHERE/x1.nii.gz"], "label": "labelsTr/b.nii.gz"},
        "y": {"images": "y.nii.gz", "label": "y.nii.gz"},
    }
    put_json(nnunet / "dataset.json", raw)
    cohort = read_data(nnunet, is_strict=False)
    assert [c.name for c in cohort] == ["x", "t"]
    assert cohort.case("x").images == (nnunet / "../x0.nii.gz", Path("/elsewhere/x1.nii.gz"))
    assert cohort.case("x").labels == nnunet / "labelsTr" / "b.nii.gz"
    assert str(cohort.faults[0]).startswith(
        "y, dataset.json: dataset['y'] names no list of images;"
    )


def test_nnunet_dataset_json_with_many_faults(nnunet):
    wrong = {
        "channel_names": {"1": "CT"},
        "labels": {"background": 0, "liver": "one", "a": 2, "b": 2},
        "file_ending": "nii.gz",
    }
    put_json(nnunet / "dataset.json", wrong)
    with pytest.raises(DataError, match="4 faults") as caught:
        read_data(nnunet)
    for words in (
        """channel_names: expected {"0": "CT", …} from 0 on, got {'1': 'CT'}""",
        "labels: 'liver' is 'one', expected a label",
        "labels: 'b' and 'a' are both 2",
        """file_ending: expected text such as ".nii.gz", got 'nii.gz'""",
    ):
        assert words in str(caught.value)
    put_text(nnunet / "dataset.json", "{")
    with pytest.raises(DataError, match=r"dataset\.json: cannot be read as JSON .*; mend it"):
        read_data(nnunet)


# -- datalists --------------------------------------------------------------------------------
DECATHLON = {
    "modality": {"0": "FLAIR", "1": "T1w"},
    "labels": {"0": "background", "1": "edema"},
    "numTraining": 2,
    "numTest": 1,
    "training": [
        {"image": "./imagesTr/B_1.nii.gz", "label": "./labelsTr/B_1.nii.gz"},
        {"image": "./imagesTr/B_2.nii.gz", "label": "./labelsTr/B_2.nii.gz"},
    ],
    "test": ["./imagesTs/B_3.nii.gz"],
}


def test_decathlon(tmp_path):
    put_json(tmp_path / "dataset.json", DECATHLON)
    cohort = read_data(tmp_path)
    assert (cohort.layout, cohort.channels) == ("datalist", ("FLAIR", "T1w"))
    assert cohort.classes == {0: "background", 1: "edema"}
    assert [(c.name, c.split) for c in cohort] == [
        ("B_1", "train"), ("B_2", "train"), ("B_3", "test"),
    ]  # fmt: skip
    assert cohort.case("B_2").images == (tmp_path / "imagesTr" / "B_2.nii.gz",)
    assert cohort.case("B_2").labels == tmp_path / "labelsTr" / "B_2.nii.gz"
    assert cohort.case("B_3").labels is None
    assert read_data(tmp_path / "dataset.json") == cohort
    elsewhere = read_data(tmp_path, base="/data")
    assert elsewhere.case("B_1").images == (Path("/data/imagesTr/B_1.nii.gz"),)


def test_monai_datalist_names_folds_patients_and_classes(tmp_path):
    put_json(
        tmp_path / "list.json",
        {
            "training": [
                {"image": ["p1/t1.nii", "p1/t2.nii"], "label": 1, "fold": 0, "patient": 17},
                {"image": ["p2/t1.nii", "p2/t2.nii"], "label": 0, "fold": 1, "site": "A"},
            ],
            "validation": [{"image": "p3/x.nii", "case": "third", "label_2": "odd"}],
            "testing": [["p4/y.nii", "p4/z.nii"]],
        },
    )
    cohort = read_data(tmp_path)
    assert [c.name for c in cohort] == ["p1_t1", "p2_t1", "third", "y"]
    assert [c.split for c in cohort] == ["train", "train", "validation", "test"]
    assert cohort.case("p1_t1").patient == "17"
    assert cohort.case("p1_t1").metadata == {"fold": 0.0, "class": 1.0}
    assert cohort.case("p2_t1").metadata == {"fold": 1.0, "site": "A", "class": 0.0}
    assert cohort.case("third").metadata == {"meta_label_2": "odd"}
    assert cohort.case("y").images == (tmp_path / "p4/y.nii", tmp_path / "p4/z.nii")
    assert cohort.channels == ()


def test_faults_of_datalists(tmp_path):
    entries = [{"label": "a.nii"}, 3, {"image": "b.nii", "label": ["x", "y"]}, {"image": "c.nii"}]
    put_json(tmp_path / "list.json", {"numTraining": 9, "training": entries})
    assert sentences(tmp_path) == [
        "list.json: training[0] names no image; expected "
        '{"image": FILE or [FILE, …], "label": FILE}',
        "list.json: training[1] names no image; expected "
        '{"image": FILE or [FILE, …], "label": FILE}',
        "list.json: training[2]: label is a list, expected one file; join several maps into one "
        "first",
        "list.json: numTraining is 9, 4 cases are listed; correct the number, or add what is "
        "missing",
    ]
    put_json(tmp_path / "list.json", {"training": [], "labels": {"x": 1}, "modality": ["CT"]})
    with pytest.raises(DataError, match="2 faults") as caught:
        read_data(tmp_path)
    assert "modality: expected" in str(caught.value)
    assert "labels: expected" in str(caught.value)
    put_json(tmp_path / "second.json", {"training": []})
    with pytest.raises(DataError, match=r"found list\.json, second\.json; name the file itself"):
        read_data(tmp_path, "datalist")


# -- TotalSegmentator -------------------------------------------------------------------------
@pytest.fixture
def totalseg(tmp_path):
    masks = [f"{case}/segmentations/liver.nii.gz" for case in ("s1", "s2")]
    put(tmp_path, "s1/ct.nii.gz", "s2/ct.nii.gz", *masks, "s1/segmentations/aorta.nii.gz")
    put_text(
        tmp_path / "meta.csv",
        "\ufeffimage_id;age;gender;split;image_type\ns1;61;f;train;ct\ns2;;m;val;ct\ns9;1;m;test;x\n",
    )
    return tmp_path


def test_totalsegmentator(totalseg):
    cohort = read_data(totalseg)
    assert (cohort.layout, cohort.channels) == ("totalsegmentator", ("ct",))
    assert cohort.classes == {0: "background", 1: "aorta", 2: "liver"}
    first, second = cohort
    assert first.images == (totalseg / "s1" / "ct.nii.gz",)
    assert first.labels == {
        name: totalseg / "s1" / "segmentations" / f"{name}.nii.gz" for name in ("aorta", "liver")
    }
    assert (first.split, second.split) == ("train", "validation")
    assert first.metadata == {"age": 61.0, "gender": "f", "meta_image_type": "ct"}
    assert second.metadata == {"gender": "m", "meta_image_type": "ct"}
    (totalseg / "meta.csv").unlink()
    assert read_data(totalseg).case("s1").metadata == {}


def test_totalsegmentator_faults(totalseg):
    put(totalseg, "s2/mri.nii.gz", "s3/mri.nii.gz", "empty/x", "s1/segmentations/notes.txt")
    text = (totalseg / "meta.csv").read_text("utf-8").replace("val", "holdout")
    put_text(totalseg / "meta.csv", text)
    assert sentences(totalseg) == [
        "s1, s1/segmentations/notes.txt: left out: is no .nii.gz; convert it if it is a mask",
        "s2, s2: holds both ct.nii.gz and mri.nii.gz; keep one",
        "s2, meta.csv: split is 'holdout', expected one of train, training, val, valid, "
        "validation, test, testing or nothing; correct it in meta.csv",
        "s3: has no row in meta.csv; add one if you need its metadata",
        "empty: left out: holds neither ct.nii.gz nor mri.nii.gz; add the image if it is a case",
    ]
    cohort = read_data(totalseg, is_strict=False)
    assert cohort.channels == ()
    assert cohort.case("s3").labels is None
    put_text(totalseg / "meta.csv", "image_id,age\ns1,3\n")
    with pytest.raises(DataError, match=r"expected columns image_id;split;… .* got image_id,age"):
        read_data(totalseg)


# -- BIDS -------------------------------------------------------------------------------------
@pytest.fixture
def bids(tmp_path):
    for subject in ("sub-01", "sub-02"):
        for session in ("ses-a", "ses-b"):
            start = f"{subject}/{session}/anat/{subject}_{session}"
            put(tmp_path, f"{start}_FLAIR.nii.gz", f"{start}_FLAIR.json")
            put(tmp_path, f"derivatives/expert/{start}_desc-lesion_mask.nii.gz")
    put_text(tmp_path / "dataset_description.json", "{}")
    put_text(
        tmp_path / "participants.tsv",
        "participant_id\tage\tsplit\nsub-01\t61\ttest\nsub-02\tn/a\ttrain\n",
    )
    return tmp_path


def test_bids(bids):
    cohort = read_data(bids)
    assert (cohort.layout, cohort.channels) == ("bids", ("FLAIR",))
    assert [c.name for c in cohort] == [
        "sub-01_ses-a", "sub-01_ses-b", "sub-02_ses-a", "sub-02_ses-b",
    ]  # fmt: skip
    second = cohort.case("sub-01_ses-b")
    assert second.images == (bids / "sub-01/ses-b/anat/sub-01_ses-b_FLAIR.nii.gz",)
    assert second.labels == (
        bids / "derivatives/expert/sub-01/ses-b/anat/sub-01_ses-b_desc-lesion_mask.nii.gz"
    )
    assert (second.patient, second.split, second.metadata) == ("sub-01", "test", {"age": 61.0})
    assert cohort.case("sub-02_ses-a").metadata == {}


def test_bids_channels_are_chosen(bids):
    for case in ("sub-01/ses-a", "sub-02/ses-b"):
        put(bids, f"{case}/anat/{case.replace('/', '_')}_acq-high_T1w.nii.gz")
    with pytest.raises(DataError, match=r"several suffixes: FLAIR \(4\), T1w \(2\); choose the"):
        read_data(bids)
    cohort = read_data(bids, channels=("acq-high_T1w", "FLAIR"))
    assert cohort.channels == ("acq-high_T1w", "FLAIR")
    assert [file.name for file in cohort.case("sub-01_ses-a").images] == [
        "sub-01_ses-a_acq-high_T1w.nii.gz", "sub-01_ses-a_FLAIR.nii.gz",
    ]  # fmt: skip
    missing = cohort.case("sub-01_ses-b").images[0]
    assert missing == bids / "sub-01/ses-b/anat/sub-01_ses-b_acq-high_T1w.nii.gz"
    with pytest.raises(DataError, match=r"no file 'T2w'; there are FLAIR \(4\), T1w \(2\), mask"):
        read_data(bids, channels=("T2w",))
    only = read_data(bids, channels=("T1w",), is_strict=False)
    assert [c.name for c in only] == ["sub-01_ses-a", "sub-02_ses-b"]
    assert "sub-01_ses-b: left out: has none of T1w; add them" in map(str, only.faults)


def test_bids_labels_are_chosen(bids):
    start = "derivatives/fs/sub-01/ses-a/anat/sub-01_ses-a"
    put(bids, f"{start}_space-T1w_dseg.nii.gz", f"{start}_desc-brain_mask.nii.gz")
    with pytest.raises(DataError, match=r"label maps have .* dseg \(1\), mask \(5\); choose one"):
        read_data(bids)
    assert read_data(bids, labels="desc-lesion_mask").case("sub-02_ses-a").labels is not None
    cohort = read_data(bids, labels="dseg")
    assert [c.name for c in cohort if c.labels] == ["sub-01_ses-a"]
    assert "sub-01_ses-a: 2 files mask: sub-01_ses-a_desc-lesion_mask.nii.gz, " in "\n".join(
        sentences(bids, labels="mask")
    )


def test_bids_faults(bids):
    put(bids, "sub-01/ses-a/anat/sub-01_ses-a_run-2_FLAIR.nii.gz")
    put(bids, "derivatives/expert/sub-03/anat/sub-03_mask.nii.gz")
    text = (bids / "participants.tsv").read_text("utf-8")
    put_text(bids / "participants.tsv", text.replace("train", "holdout"))
    found = sentences(bids)
    assert "2 files FLAIR: sub-01_ses-a_FLAIR.nii.gz, sub-01_ses-a_run-2_FLAIR.nii.gz;" in found[0]
    assert sum("split is 'holdout'" in sentence for sentence in found) == 2
    assert found[-1] == (
        "sub-03, derivatives/expert/sub-03/anat/sub-03_mask.nii.gz: labels without an image; add "
        "the image or remove the labels"
    )
    put_text(bids / "participants.tsv", "id\tage\n")
    with pytest.raises(DataError, match="no column participant_id among id, age"):
        read_data(bids)


def test_bids_labels_beside_the_images(tmp_path):
    put(tmp_path, "sub-1/anat/sub-1_T1w.nii", "sub-1/anat/sub-1_label-L_desc-T1lesion_mask.nii")
    (case,) = read_data(tmp_path)
    assert (case.name, case.patient, case.split) == ("sub-1", "sub-1", None)
    assert case.labels == tmp_path / "sub-1/anat/sub-1_label-L_desc-T1lesion_mask.nii"


# -- manifests --------------------------------------------------------------------------------
def test_manifest(tmp_path):
    put_text(
        tmp_path / "manifest.csv",
        "case,image,label,split,patient,age,site\n"
        "a,i/a.nii,l/a.nii,train,p1,61,007\n"
        "b,/abs/b.nii,,Validation,,n/a,\n",
    )
    put_json(tmp_path / "labels.json", {"1": "liver"})
    cohort = read_data(tmp_path)
    assert (cohort.layout, cohort.channels, cohort.classes) == ("manifest", (), {1: "liver"})
    first, second = cohort
    assert first.images == (tmp_path / "i" / "a.nii",)
    assert first.labels == tmp_path / "l" / "a.nii"
    assert (first.split, first.patient) == ("train", "p1")
    assert first.metadata == {"age": 61.0, "site": "007"}
    assert second.images == (Path("/abs/b.nii"),)
    assert (second.labels, second.split, second.patient) == (None, "validation", None)
    assert second.metadata == {}
    assert read_data(tmp_path, base="/data").case("a").images == (Path("/data/i/a.nii"),)


def test_manifest_with_channels_and_masks(tmp_path):
    put_text(
        tmp_path / "m.tsv",
        "case\timage_T2\timage_T1\tPET\tlabel_liver\tlabel_aorta\ttruth\n"
        "a\t2.nii\t1.nii\tp.nii\tl.nii\t\tt.nii\n",
    )
    cohort = read_data(tmp_path / "m.tsv")
    assert cohort.channels == ("T2", "T1")
    assert cohort.classes == {0: "background", 1: "liver", 2: "aorta"}
    assert cohort.case("a").labels == {"liver": tmp_path / "l.nii"}
    assert cohort.case("a").metadata == {"PET": "p.nii", "truth": "t.nii"}
    chosen = read_data(tmp_path / "m.tsv", channels=("PET", "T1"), labels="truth")
    assert chosen.channels == ("PET", "T1")
    assert chosen.case("a").images == (tmp_path / "p.nii", tmp_path / "1.nii")
    assert chosen.case("a").labels == tmp_path / "t.nii"
    assert chosen.case("a").metadata == {}


@pytest.mark.parametrize(
    ("header", "settings", "message"),
    [
        ("name,image", {}, "no column 'case' among name, image"),
        ("case;image", {}, "among case;image; separate columns by commas"),
        ("case,scan", {}, "expected one column image, or image_NAME .* got case, scan; rename"),
        ("case,image,image_T1", {}, "got image, image_T1; rename them, or choose with --channel"),
        ("case,image,label,label_x", {}, "expected one column label, .* got label, label_x"),
        ("case,T1", {"channels": ("T2",)}, "image_T2 or T2, there is none"),
        ("case,T1,image_T1", {"channels": ("T1",)}, "there are both; rename one"),
        ("case,image", {"labels": "truht"}, "no column 'truht' for labels"),
        ("case,image,age,age", {}, "columns of one name: age; rename one"),
    ],
)
def test_columns_that_are_wrong(header, settings, message, tmp_path):
    put_text(tmp_path / "m.csv", f"{header}\n{','.join('x' * len(header.split(',')))}\n")
    with pytest.raises(DataError, match=message):
        read_data(tmp_path / "m.csv", **settings)


def test_every_row_that_is_wrong(tmp_path):
    put_text(
        tmp_path / "m.csv",
        "case,image_a,image_b,split\n"
        ",1.nii,2.nii,\n"
        "x,1.nii,n/a,\n"
        "y,1.nii,2.nii,holdout\n"
        "z/1,1.nii,2.nii,test\n",
    )
    assert sentences(tmp_path / "m.csv") == [
        "m.csv: row 2: case is empty; fill it in or remove the row",
        "x, m.csv: row 3: image_b is empty; fill it in or remove the row",
        "y, m.csv: row 4: split is 'holdout', expected one of train, training, val, valid, "
        "validation, test, testing or nothing; correct it",
        "m.csv, row 5: the name of a case is also that of files, got 'z/1'; use letters, digits, "
        "- and _",
    ]


@pytest.mark.parametrize("text", ["", "case,image\na,b,c\n"])
def test_tables_that_are_none(text, tmp_path):
    put_text(tmp_path / "m.csv", text)
    with pytest.raises(DataError, match=r"m\.csv: cannot be read as a table \(.*; save it as CSV"):
        read_data(tmp_path / "m.csv")
    put_text(tmp_path / "m.parquet", text)
    with pytest.raises(DataError, match=r"m\.parquet: cannot be read as a table"):
        read_data(tmp_path / "m.parquet")
    with pytest.raises(DataError, match="no such file"):
        read_manifest(tmp_path / "n.csv")


def test_names_beside_a_manifest_that_are_wrong(tmp_path):
    put_text(tmp_path / "m.csv", "case,image,label_liver\na,a.nii,l.nii\n")
    put_json(tmp_path / "labels.json", {"1": "spleen"})
    with pytest.raises(DataError, match=r"labels\.json: does not name the masks liver; add or"):
        read_data(tmp_path / "m.csv")
    put_json(tmp_path / "labels.json", ["spleen"])
    with pytest.raises(DataError, match=r"labels\.json: expected names of labels as"):
        read_data(tmp_path / "m.csv")


# -- documentation ----------------------------------------------------------------------------
def test_the_reference_names_every_layout():
    page = Path(__file__).parents[2] / "docs" / "reference" / "data-folders.md"
    text = page.read_text("utf-8")
    for name in LAYOUTS:
        assert f"| `{name}` |" in text


# -- plain images -----------------------------------------------------------------------------
def test_plain_images(tmp_path):
    put(tmp_path, "b.nii.gz", "a_0001.nii.gz", "a_0000.nii.gz", "c.png", ".hidden.nii", "notes.md")
    put(tmp_path, "series/IM1.dcm", "deep/x.nii.gz")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "IM0").write_bytes(b"\0" * 128 + b"DICM")
    cohort = read_data(tmp_path)
    assert cohort.layout == "images"
    assert {c.name: [file.name for file in c.images] for c in cohort} == {
        "a": ["a_0000.nii.gz", "a_0001.nii.gz"],
        "b": ["b.nii.gz"],
        "bare": ["bare"],
        "c": ["c.png"],
        "series": ["series"],
    }
    assert all(c.labels is None and c.split is None for c in cohort)
    assert [str(f) for f in cohort.faults] == [
        "deep: left out: holds no DICOM series; move its images up",
        "notes.md: left out: no known image format; convert it",
    ]


def test_plain_images_of_one_name(tmp_path):
    put(tmp_path, "a.nii", "a.png")
    assert sentences(tmp_path) == ["a: 2 cases have this name; rename or remove all but one"]
