"""Synthetic patients, chest CT and brain MR, and the small networks trained on them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from voxplain.demo.brain import brain_case, brain_model_path, brain_patient, write_brains
from voxplain.demo.canvas import STRUCTURES
from voxplain.demo.patients import acquisition, patient, write_patients
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume

__all__ = [
    "STRUCTURES",
    "acquisition",
    "brain_case",
    "brain_model_path",
    "brain_patient",
    "demo_case",
    "model_path",
    "patient",
    "write_brains",
    "write_patients",
]


def model_path() -> Path:
    """Folder of the shipped model: ``model.yaml``, weights and their Dice on unseen patients."""
    return Path(str(files("voxplain.demo") / "model"))


def demo_case(seed: int = 901) -> tuple[Volume, LabelMap]:
    """Patient of the demo, unseen in training, with a nodule in a lung."""
    return patient(seed, lesion=True)
