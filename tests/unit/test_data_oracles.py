"""The frameworks' own readers find the same files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from voxplain.data import read_data


def test_nnunet_finds_the_same_files(tmp_path):
    utils = pytest.importorskip("nnunetv2.utilities.utils")
    raw = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": {"background": 0, "liver": 1},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(raw))
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    for case in ("x_2", "x_10", "y_0001"):
        for channel in range(2):
            (tmp_path / "imagesTr" / f"{case}_{channel:04d}.nii.gz").touch()
        (tmp_path / "labelsTr" / f"{case}.nii.gz").touch()
    for listed in (
        None,
        {"z": {"images": ["imagesTr/a.nii.gz", "/b.nii.gz"], "label": "c.nii.gz"}},
    ):
        if listed is not None:
            raw |= {"dataset": listed, "numTraining": 1}
            (tmp_path / "dataset.json").write_text(json.dumps(raw))
        theirs = utils.get_filenames_of_train_images_and_targets(str(tmp_path))
        assert {
            case.name: {"images": [str(file) for file in case.images], "label": str(case.labels)}
            for case in read_data(tmp_path)
        } == theirs


@pytest.mark.parametrize("base", [None, "/data"])
def test_monai_finds_the_same_files(tmp_path, base):
    datalist = pytest.importorskip("monai.data.decathlon_datalist")
    path = tmp_path / "dataset.json"
    path.write_text(
        json.dumps(
            {
                "training": [
                    {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz", "fold": 1},
                    {"image": ["b/0.nii.gz", "b/1.nii.gz"], "label": "/l/b.nii.gz", "fold": 0},
                ],
                "validation": [{"image": "../v.nii.gz", "label": "w.nii.gz"}],
                "test": ["./imagesTs/t.nii.gz"],
            }
        )
    )
    ours = read_data(path, base=base)
    for key, split in (("training", "train"), ("validation", "validation"), ("test", "test")):
        theirs = datalist.load_decathlon_datalist(path, data_list_key=key, base_dir=base)
        for entry, case in zip(theirs, ours.of(split), strict=True):
            images = entry["image"] if isinstance(entry["image"], list) else [entry["image"]]
            assert [normal(file) for file in case.images] == [normal(file) for file in images]
            label = entry.get("label")
            assert case.labels is label is None or normal(case.labels) == normal(label)
            assert case.metadata == ({"fold": entry["fold"]} if "fold" in entry else {})


def normal(path):
    """Path without ``..``; nothing lies there that could be a link."""
    return Path(path).resolve()
