"""Faithfulness of 5 methods for 7 classes, against Quantus' way: class by class, method by method.

The real CT at 1.5 mm, the real network in windows of 48 voxels (overlap 0.25), as in
`benchmarks.shapley`. Each run sets 224² random voxels to the smallest intensity. Quantus predicts
every perturbed volume again for every class and method; ours predicts it once. Quantus' own
FaithfulnessCorrelation is timed on a few runs of one pair, with MONAI's sliding windows behind it
and our subsets in place of its draws (which spares it the drawing), and multiplied by runs and
pairs: every run of every pair runs the same windows. Its score of those few runs is then compared
with ours for all pairs; predictions that it has made once are looked up for that. Maps are made
beforehand and count for neither.

``--quick``: the demo's patient and model, fewer runs.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any
from unittest import mock

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray
from torch import nn

from benchmarks.shapley import SHARED, models, targets_over
from voxplain.assess.faithfulness_correlation import faithfulness_correlation
from voxplain.assess.removal import Remover
from voxplain.attribution import (
    Ablation,
    ClassTarget,
    Gradient,
    InputXGradient,
    IntegratedGradients,
    SmoothGrad,
)
from voxplain.attribution.ask import ask
from voxplain.attribution.baselines import Constant
from voxplain.attribution.maps import compute_maps
from voxplain.attribution.method import Method
from voxplain.demo import demo_case, model_path
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.inference.predict import predict
from voxplain.models import Model
from voxplain.models.card_model import load_card
from voxplain.space.labelmap import LabelMap
from voxplain.space.read import read_image
from voxplain.space.resample import resample_labels
from voxplain.space.volume import Volume

N_RUNS, N_TIMED = 100, 4
CLASSES = ("background", "liver", "lung_left", "lung_right", "heart", "aorta", "ribs")
METHODS: tuple[Method, ...] = (
    Gradient(), InputXGradient(), SmoothGrad(n=2), IntegratedGradients(n=2), Ablation(),
)  # fmt: skip


class Whole(nn.Module):
    """Sum of each class's logits over its held mask, from a whole prediction: (1, classes)."""

    def __init__(
        self, model: Model, indices: Sequence[int], masks: Sequence[NDArray[np.bool_]]
    ) -> None:
        super().__init__()
        assert model.info.window is not None
        self.net = model.module
        self.window = model.info.window
        self.indices = list(indices)
        self.masks = [torch.from_numpy(mask) for mask in masks]
        self.n_windows = 0
        self.seen: dict[bytes, torch.Tensor] = {}
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Predict, or look up what was predicted."""
        key = blake2b(x.numpy().tobytes()).digest()
        if key not in self.seen:
            self.seen[key] = self.predict(x)
        return self.seen[key]

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """Predict a volume in windows."""

        def counted(batch: torch.Tensor) -> torch.Tensor:
            self.n_windows += len(batch)
            return torch.as_tensor(self.net(batch))

        window = self.window
        logits = sliding_window_inference(
            x, window.size, 1, counted, overlap=window.overlap, mode="gaussian",
            cval=window.pad_value,
        )  # fmt: skip
        found = torch.as_tensor(logits)[0]
        pairs = zip(self.indices, self.masks, strict=True)
        return torch.stack([found[i][mask].double().sum() for i, mask in pairs])[None]


def quantus_score(
    whole: Whole, data: NDArray[np.floating], map_: NDArray[np.floating], row: int,
    subsets: NDArray[np.integer],
) -> float:  # fmt: skip
    """Quantus' FaithfulnessCorrelation of one class and method, on given subsets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from quantus import FaithfulnessCorrelation
    metric = FaithfulnessCorrelation(
        nr_runs=len(subsets), subset_size=subsets.shape[1], return_aggregate=False,
        disable_warnings=True,
    )  # fmt: skip
    with (
        warnings.catch_warnings(),
        mock.patch.object(np.random, "choice", side_effect=list(subsets)),  # its draws
    ):
        warnings.simplefilter("ignore")
        (score,) = metric(
            whole, data[None], np.array([row]), map_[None], channel_first=True, device="cpu"
        )
    return float(score)


def compare(
    model: Model, image: Volume, regions: LabelMap, targets: list[ClassTarget], n_runs: int,
    n_timed: int,
) -> dict[str, Any]:  # fmt: skip
    """Ours in full, Quantus' way from a few runs."""
    names = [str(target.class_name) for target in targets]
    with open_pipeline(model, image, Compute()) as pipeline:
        question = ask(pipeline, image, targets, regions, seed=0)
        _ = question.linear
        data = pipeline.image.data
        on_grid = resample_labels(regions, pipeline.image.grid)
        indices = [model.info.class_names.index(name) for name in names]
        whole = Whole(model, indices, [on_grid.mask(name) for name in names])
        before = pipeline.passes.n_forward
        start = time.perf_counter()
        fill = Constant(float(data.min()))
        remover = Remover(question, n_runs=n_runs, fill=fill)
        told = remover.passes().n_forward
        removals = remover.run()
        own_s = time.perf_counter() - start
        n_own = pipeline.passes.n_forward - before
        assert n_own == told
        print(f"  ours: {n_own} windows, {own_s:.0f} s", flush=True)
        few = removals.removed[:n_timed]
        quantus_s, worst = 0.0, 0.0
        scores: dict[str, dict[str, float]] = {}
        for method in METHODS:
            maps = compute_maps(question, method)
            start = time.perf_counter()
            sums = removals.sums(maps)
            found = [
                faithfulness_correlation(sums[:, t], removals.drops[:, t], removals.least(t)).value
                for t in range(len(names))
            ]
            own_s += time.perf_counter() - start
            scores[method.name] = dict(zip(names, found, strict=True))
            for t in range(len(names)):
                start = time.perf_counter()
                theirs = quantus_score(whole, data, maps.values[t], t, few)
                if not quantus_s:
                    quantus_s = time.perf_counter() - start
                    n_timed_windows = whole.n_windows
                    print(f"  Quantus, {n_timed} runs: {quantus_s:.0f} s", flush=True)
                ours = faithfulness_correlation(
                    sums[:n_timed, t], removals.drops[:n_timed, t], removals.least(t)
                )
                worst = max(worst, abs(theirs - ours.value))
    n_pairs = len(METHODS) * len(names)
    factor = (n_runs + 1) / (n_timed + 1) * n_pairs  # the image itself is predicted as well
    return {
        "shape": list(data.shape[1:]),
        "n_windows": len(pipeline.plan),
        "n_methods": len(METHODS),
        "n_classes": len(names),
        "n_runs": n_runs,
        "n_removed": int(few.shape[1]),
        "own_window_passes": n_own,
        "quantus_window_passes": n_timed_windows * factor,
        "pass_ratio": n_timed_windows * factor / n_own,
        "own_s": own_s,
        "quantus_s": quantus_s * factor,
        "quantus_runs_timed": n_timed,
        "time_ratio": quantus_s * factor / own_s,
        "largest_difference": worst,
        "faithfulness_correlation": scores,
    }


def main(n_runs: int = N_RUNS, n_timed: int = N_TIMED) -> dict[str, Any]:
    """Compare on the real CT."""
    if not SHARED.exists():
        return {"skipped": f"no folder {SHARED.name} beside the repository"}
    trained, model = models()
    image = read_image(SHARED / "data" / "ct_thorax_abdomen" / "ct.nii.gz")
    regions = predict(trained, image)
    names = model.info.class_names
    targets = [t for t in targets_over(regions, names) if t.class_name in CLASSES]
    return compare(model, image, regions, targets, n_runs, n_timed)


def quick() -> dict[str, Any]:
    """Compare on the demo's patient, with few runs."""
    model = load_card(model_path() / "model.yaml")
    image, _ = demo_case()
    regions = predict(model, image)
    targets = [
        ClassTarget(name, target.where, label=name)
        for target in targets_over(regions, model.info.class_names)
        if (name := str(target.class_name)) in CLASSES
    ]
    return compare(model, image, regions, targets, n_runs=6, n_timed=3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    print(json.dumps(quick() if parser.parse_args().quick else main(), indent=2))
