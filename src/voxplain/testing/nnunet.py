"""nnU-Net results folders with random weights, in nnU-Net's own format: to try and to test."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

LABELS = {"background": 0, "liver": 1, "spleen": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}


def configuration(
    patch: Sequence[int], spacing: Sequence[float], n_channels: int, **changes: Any
) -> dict[str, Any]:
    """Return one entry of ``configurations`` of ``plans.json``: a U-Net of two stages."""
    rank = len(patch)
    threes, ones, twos = [3] * rank, [1] * rank, [2] * rank
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    return {
        "data_identifier": "x",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch),
        "median_image_size_in_voxels": [20.0] * rank,
        "spacing": list(spacing),
        "normalization_schemes": ["ZScoreNormalization"] * n_channels,
        "use_mask_for_norm": [False] * n_channels,
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 2,
                "features_per_stage": [4, 6],
                "conv_op": f"torch.nn.modules.conv.Conv{rank}d",
                "kernel_sizes": [threes, threes],
                "strides": [ones, twos],
                "n_conv_per_stage": [1, 1],
                "n_conv_per_stage_decoder": [1],
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{rank}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
        **changes,
    }


def write_results(
    root: Path | str,
    *,
    name: str = "3d_fullres",
    patch: Sequence[int] = (8, 10, 12),
    spacing: Sequence[float] = (2.0, 1.2, 1.0),
    channels: Sequence[str] = ("ct",),
    labels: Mapping[str, Any] = LABELS,
    n_folds: int = 1,
    transpose: Sequence[int] = (0, 1, 2),
    reader: str = "SimpleITKIO",
    mirror_axes: Sequence[int] | None = None,
    trainer: str = "nnUNetTrainer",
    checkpoint: str = "checkpoint_final.pth",
    dataset_name: str = "Dataset042_Test",
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Write a results folder as nnU-Net's training leaves it, around an untrained network.

    Parameters
    ----------
    root
        Where ``Dataset042_Test`` is made.
    name
        Configuration: ``2d``, ``3d_fullres`` or ``3d_lowres``.
    patch, spacing
        Of the configuration; two numbers for ``2d``, else three, in the order z, y, x.
    channels, labels
        As in ``dataset.json``; lists of labels are regions, ``ignore`` is the ignore label.
    n_folds
        Each with other weights.
    transpose
        Order of the axes z, y, x that the plans ask for.
    reader
        Name of nnU-Net's reader.
    mirror_axes
        Axes that prediction may mirror; None: all.
    trainer, checkpoint, dataset_name
        Names.
    changes
        Further settings of the configuration.

    Returns
    -------
    pathlib.Path
        The folder ``Trainer__Plans__Configuration``.

    Notes
    -----
    Needs nnunetv2. A small network of two stages, so that tests are quick.
    """
    rank = len(patch)
    folder = Path(root) / dataset_name / f"{trainer}__nnUNetPlans__{name}"
    folder.mkdir(parents=True)
    plans = {
        "dataset_name": dataset_name,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0] * 3,
        "original_median_shape_after_transp": [20] * 3,
        "image_reader_writer": reader,
        "transpose_forward": list(transpose),
        "transpose_backward": [int(i) for i in np.argsort(transpose)],
        "configurations": {
            name: configuration(patch, spacing, len(channels), **(changes or {}))
        },
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(c): {
                "max": 300.0, "mean": 40.0 + c, "median": 40.0, "min": -200.0,
                "percentile_00_5": -150.0, "percentile_99_5": 250.0, "std": 80.0,
            }
            for c in range(len(channels))
        },
    }  # fmt: skip
    dataset: dict[str, Any] = {
        "channel_names": {str(i): channel for i, channel in enumerate(channels)},
        "labels": dict(labels),
        "numTraining": 2,
        "file_ending": ".png" if reader == "NaturalImage2DIO" else ".nii.gz",
    }
    regions = [value for key, value in labels.items() if key not in ("background", "ignore")]
    if any(isinstance(value, list) and len(value) > 1 for value in regions):
        dataset["regions_class_order"] = list(range(1, len(regions) + 1))
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    axes = tuple(range(rank)) if mirror_axes is None else tuple(mirror_axes)
    for fold in range(n_folds):
        (folder / f"fold_{fold}").mkdir()
        torch.manual_seed(10 + fold)
        weights = network(plans, dataset, name).state_dict()
        for key, value in weights.items():  # so that every class is predicted somewhere
            if "seg_layers" in key and key.endswith("weight"):
                value.sub_(value.mean(1, keepdim=True)).mul_(10)
            elif key.endswith(("bias", "norm.weight")) and "seg_layers" not in key:
                value.add_(0.3 * torch.randn(value.shape))
        content: dict[str, Any] = {
            "network_weights": weights,
            "optimizer_state": {"state": {}, "param_groups": []},
            "grad_scaler_state": None,
            "logging": {"ema_fg_dice": [np.float64(0.5)], "lrs": [np.float32(0.1)]},
            "_best_ema": np.float64(0.5),
            "current_epoch": 3,
            "init_args": {"plans": plans, "configuration": name, "fold": fold,
                          "dataset_json": dataset},
            "trainer_name": trainer,
            "inference_allowed_mirroring_axes": axes or None,
        }  # fmt: skip
        torch.save(content, folder / f"fold_{fold}" / checkpoint)
    return folder


def network(plans: dict[str, Any], dataset: dict[str, Any], name: str) -> torch.nn.Module:
    """Build a network as nnU-Net builds it, with random weights."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    with contextlib.redirect_stdout(io.StringIO()):
        manager = PlansManager(plans)
        found = manager.get_configuration(name)
        n_heads = manager.get_label_manager(dataset).num_segmentation_heads
        built: torch.nn.Module = get_network_from_plans(
            found.network_arch_class_name, found.network_arch_init_kwargs,
            found.network_arch_init_kwargs_req_import, len(dataset["channel_names"]), n_heads,
            allow_init=True, deep_supervision=False,
        )  # fmt: skip
    return built
