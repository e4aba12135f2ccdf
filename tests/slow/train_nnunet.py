"""Train a small nnU-Net with nnunetv2 itself on synthetic patients: ``train_nnunet.py FOLDER``.

A program of its own: nnU-Net reads its folders from the environment and starts processes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

CLASSES = {"lung": ("lung_right", "lung_left"), "heart": ("heart",), "liver": ("liver",),
           "spleen": ("spleen",)}  # fmt: skip
TRAINING, UNSEEN = (500, 501, 502, 503, 504, 505), 950
NAME, ITERATIONS = "Dataset043_Torso", 500


def write_data(raw: Path) -> None:
    import numpy as np

    from voxplain.demo.patients import patient
    from voxplain.space.nifti import write_nifti

    for seed in (*TRAINING, UNSEEN):
        image, labels = patient(seed, lesion=False)
        joined = np.zeros((1, *image.grid.shape), np.uint8)
        for label, parts in enumerate(CLASSES.values(), 1):
            for part in parts:
                joined[0][labels.mask(part)] = label
        end = "Ts" if seed == UNSEEN else "Tr"
        write_nifti(raw / NAME / f"images{end}" / f"p{seed}_0000.nii.gz", image.data, image.grid)
        write_nifti(raw / NAME / f"labels{end}" / f"p{seed}.nii.gz", joined, image.grid)
    (raw / NAME / "dataset.json").write_text(
        json.dumps({
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, **{name: i for i, name in enumerate(CLASSES, 1)}},
            "numTraining": len(TRAINING),
            "file_ending": ".nii.gz",
        })
    )  # fmt: skip


def small_plans(file: Path) -> None:
    plans = json.loads(file.read_text())
    settings = plans["configurations"]["3d_fullres"]
    settings["patch_size"] = [32, 40, 48]
    settings["spacing"] = [5.0, 5.0, 5.0]
    settings["batch_size"] = 2
    settings["architecture"]["arch_kwargs"] |= {
        "n_stages": 3,
        "features_per_stage": [8, 16, 32],
        "kernel_sizes": [[3, 3, 3]] * 3,
        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
        "n_conv_per_stage": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2],
    }
    file.write_text(json.dumps(plans))


def train(plans: Path, dataset: Path) -> None:
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as Standard

    class nnUNetTrainer(Standard):  # noqa: N801 (its name is what the checkpoint says)
        """Short: AdamW, one epoch a hundred iterations."""

        def __init__(
            self, plans: Any, configuration: str, fold: int, dataset_json: Any, device: Any
        ) -> None:
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.num_iterations_per_epoch = 100
            self.num_val_iterations_per_epoch = 1
            self.num_epochs = ITERATIONS // 100

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.network.parameters(), 3e-3, weight_decay=1e-4)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.num_epochs)
            return optimizer, schedule

    torch.manual_seed(0)
    trainer = nnUNetTrainer(
        {**json.loads(plans.read_text()), "continue_training": False},
        "3d_fullres",
        0,
        json.loads(dataset.read_text()),
        device=torch.device("cpu"),
    )
    trainer.run_training()


def main(root: Path) -> None:
    names = {
        "nnUNet_raw": "raw",
        "nnUNet_preprocessed": "preprocessed",
        "nnUNet_results": "results",
    }
    for variable, name in names.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        os.environ[variable] = str(root / name)
    os.environ["nnUNet_n_proc_DA"] = "1"  # noqa: SIM112 (planning refuses 0)
    write_data(root / "raw")
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )

    extract_fingerprints([43], num_processes=1)
    plan_experiments([43])
    preprocessed = root / "preprocessed" / NAME
    small_plans(preprocessed / "nnUNetPlans.json")
    preprocess([43], configurations=("3d_fullres",), num_processes=(1,))
    os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112 (augmentation in this process)
    train(preprocessed / "nnUNetPlans.json", preprocessed / "dataset.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
