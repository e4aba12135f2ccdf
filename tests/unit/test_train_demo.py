"""The recipe that a CPU trains in minutes, on synthetic patients, from files to Dice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from voxplain.attribution import ClassTarget, Gradient, explain
from voxplain.data import read_data
from voxplain.demo.patients import patient
from voxplain.demo.train import dice, predict
from voxplain.models.load import load_model
from voxplain.space import write_nifti
from voxplain.train import read_recipe, train

TRAINING, UNSEEN = range(100, 136), range(900, 908)


def write_raw(folder: Path, seeds: range) -> Path:
    """Patients with a nodule each, in nnU-Net's raw layout."""
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    for seed in seeds:
        image, labels = patient(seed, lesion=True)
        write_nifti(
            folder / "imagesTr" / f"{image.name}_0000.nii.gz", image.data, image.grid, np.int16
        )
        write_nifti(folder / "labelsTr" / f"{image.name}.nii.gz", labels.layers, image.grid)
    about = {
        "channel_names": {"0": "ct"},
        "labels": {name: label for label, name in labels.names.items()},
        "numTraining": len(seeds),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(about))
    return folder


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_bundle_trained_on_synthetic_patients_segments_unseen_ones(tmp_path):
    cohort = read_data(write_raw(tmp_path / "Dataset001_Chest", TRAINING))
    recipe = read_recipe("unet", ["input.spacing=[3.75, 3.75, 4.6]"])
    trained = train(recipe, cohort, tmp_path / "chest", device="cpu")
    print(f"trained in {trained.record['seconds']} s, Dice {trained.dice:.3f}")
    model = load_model(tmp_path / "chest")
    each = []
    for seed in UNSEEN:
        image, truth = patient(seed, lesion=True)
        each.append(dice(predict(model, image), truth))
    means = {name: float(np.mean([scores[name] for scores in each])) for name in each[0]}
    print({name: round(value, 3) for name, value in means.items()})
    assert np.mean(list(means.values())) >= 0.85
    explanation = explain(model, image, [ClassTarget("heart")], Gradient())
    shares = explanation.table.frame.set_index("region")["share"]
    assert shares.drop("background").idxmax() == "heart"
