"""A finished training as a standard MONAI bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from voxplain.models.intensity import Percentiles, Scale
from voxplain.records.provenance import package_versions
from voxplain.train.networks import network_definition
from voxplain.train.preparation import preparation, reading
from voxplain.train.recipe import Recipe
from voxplain.train.recipe_file import recipe_text

SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
VERSION = "0.1.0"
IGNITE = "0.4.11"


@dataclass(frozen=True)
class Trained:
    """What a bundle tells of itself.

    Parameters
    ----------
    recipe
        What it was trained with.
    channels
        Names of the input channels.
    class_names
        Background first.
    dice
        Mean Dice of the validation cases, on the network's grid, in the best epoch.
    dice_of
        The same by class; None for a class that no validation case has.
    best_epoch
        1, 2, …
    record
        All that is kept of the training, as plain values.
    """

    recipe: Recipe
    channels: tuple[str, ...]
    class_names: tuple[str, ...]
    dice: float
    dice_of: Mapping[str, float | None]
    best_epoch: int
    record: Mapping[str, Any]


def write_bundle(folder: Path, trained: Trained, weights: Mapping[str, torch.Tensor]) -> None:
    """Write configurations, weights and a page about the model.

    Parameters
    ----------
    folder
        Existing and empty; the caller sees to it that it appears whole or not at all.
    trained
        What the bundle says.
    weights
        State of the network.
    """
    for name in ("configs", "models", "docs"):
        (folder / name).mkdir()
    _write_json(folder / "configs" / "metadata.json", metadata(trained))
    _write_json(folder / "configs" / "inference.json", inference(trained))
    (folder / "configs" / "train.yaml").write_text(
        "# The recipe of this model: voxplain train --recipe train.yaml --data DIR --out BUNDLE\n"
        + recipe_text(trained.recipe),
        encoding="utf-8",
    )
    torch.save(dict(weights), folder / "models" / "model.pt")
    (folder / "docs" / "README.md").write_text(_page(trained), encoding="utf-8")


def metadata(trained: Trained) -> dict[str, Any]:
    """Return ``metadata.json``: what the model is, takes and gives."""
    recipe, versions = trained.recipe, package_versions()
    shape = {"spatial_shape": list(recipe.crop.size), "dtype": "float32", "is_patch_data": True}
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "changelog": {VERSION: "trained"},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"],
        "numpy_version": versions["numpy"],
        "required_packages_version": {
            "nibabel": versions["nibabel"], "pytorch-ignite": IGNITE,
        },
        "name": recipe.name,
        "task": f"Segmentation of {', '.join(trained.class_names[1:])}",
        "description": f"{recipe.network.name} trained by voxplain with the recipe "
        "configs/train.yaml",
        "authors": "trained with voxplain",
        "copyright": "not stated",
        "intended_use": "Research; not for diagnosis.",
        "eval_metrics": {"mean_dice": round(trained.dice, 4)},
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "modality": "n/a",
                    "num_channels": len(trained.channels),
                    "value_range": _value_range(recipe),
                    "channel_def": _numbered(trained.channels),
                    **shape,
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": len(trained.class_names),
                    "value_range": [0, len(trained.class_names) - 1],
                    "channel_def": _numbered(trained.class_names),
                    **shape,
                }
            },
        },
    }  # fmt: skip


def inference(trained: Trained) -> dict[str, Any]:
    """Return ``inference.json``: how MONAI, and voxplain, run the model.

    Network, preparation and inferer are plain values: reading them runs no code of the bundle.
    """
    recipe = trained.recipe
    found = "$sorted(glob.glob(@dataset_dir + '/*.nii.gz'))" if len(trained.channels) == 1 else []
    return {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/eval'",
        "datalist": found,
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": network_definition(
            recipe.network.name, recipe.network.arguments, len(trained.channels),
            len(trained.class_names), recipe.crop.size,
        ),
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "monai.transforms.Compose",
            "transforms": [
                *reading(),
                *preparation(recipe.input),
                {"_target_": "monai.transforms.EnsureTyped", "keys": ["image"]},
            ],
        },
        "dataset": {
            "_target_": "monai.data.Dataset",
            "data": "$[{'image': image} for image in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {
            "_target_": "monai.data.DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 0,
        },
        "inferer": {
            "_target_": "monai.inferers.SlidingWindowInferer",
            "roi_size": list(recipe.crop.size),
            "sw_batch_size": 1,
            "overlap": recipe.validation.overlap,
            "mode": recipe.validation.blend,
        },
        "postprocessing": {
            "_target_": "monai.transforms.Compose",
            "transforms": [
                {"_target_": "monai.transforms.Activationsd", "keys": "pred", "softmax": True},
                {
                    "_target_": "monai.transforms.Invertd",
                    "keys": "pred",
                    "transform": "@preprocessing",
                    "orig_keys": "image",
                    "nearest_interp": False,
                    "to_tensor": True,
                },
                {"_target_": "monai.transforms.AsDiscreted", "keys": "pred", "argmax": True},
                {
                    "_target_": "monai.transforms.SaveImaged",
                    "keys": "pred",
                    "output_dir": "@output_dir",
                    "output_postfix": "seg",
                    "output_dtype": "uint8" if len(trained.class_names) <= 256 else "int16",
                    "resample": False,
                    "separate_folder": False,
                },
            ],
        },
        "handlers": [
            {
                "_target_": "monai.handlers.CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
                "map_location": "@device",
            }
        ],
        "evaluator": {
            "_target_": "monai.engines.SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "initialize": ["$monai.utils.set_determinism(seed=0)"],
        "run": ["$@evaluator.run()"],
    }  # fmt: skip


def _value_range(recipe: Recipe) -> list[float]:
    """Range of intensities that the network sees, empty if it has no bounds."""
    last = recipe.input.intensity[-1] if recipe.input.intensity else None
    return list(last.to) if isinstance(last, Scale | Percentiles) else []


def _numbered(names: tuple[str, ...]) -> dict[str, str]:
    return {str(i): name for i, name in enumerate(names)}


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _page(trained: Trained) -> str:
    recipe, record = trained.recipe, trained.record
    rows = "\n".join(
        f"| {name} | {'in no validation case' if value is None else f'{value:.3f}'} |"
        for name, value in trained.dice_of.items()
    )
    image = "CASE.nii.gz"
    if len(trained.channels) > 1:
        image = ", ".join(f"CASE_{name}.nii.gz" for name in trained.channels)
    datalist = (
        f"['{image}']"
        if len(trained.channels) == 1
        else f"[[{', '.join(repr(part) for part in image.split(', '))}]]"
    )
    images = " ".join(f"--image {part}" for part in image.split(", "))
    return f"""# {recipe.name}

Segments {", ".join(trained.class_names[1:])} in 3D images of {len(trained.channels)} \
channel{"s" * (len(trained.channels) > 1)} ({", ".join(trained.channels)}).

| class | Dice |
|---|---|
{rows}
| **mean** | **{trained.dice:.3f}** |

Dice of {record["n_validation"]} validation cases on the network's grid, epoch \
{trained.best_epoch} of {recipe.epochs}, which was chosen by it; {record["n_training"]} cases were \
trained on. Measure it again on cases that had no part in either.

## Run it

```
python -m monai.bundle run --config_file configs/inference.json --bundle_root . \\
    --datalist "{datalist}"
```

`pip install fire pytorch-ignite` brings what MONAI's runner needs. Results lie in `eval/`.

## Explain it

```
voxplain explain --model . {images}
```

## Train it again

`configs/train.yaml` is the recipe, `training/record.json` tells data hash, seed and versions, and
`training/log.csv` the epochs.
"""
