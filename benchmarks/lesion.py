"""A 16³ lesion in a 160³ volume: only the windows that touch it, against all windows.

SmoothGrad with 2 copies, windows 32³ with half overlap. Both ways start from the lesion mask.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import torch

from benchmarks.networks import noise_volume, unet
from voxplain.attribution import ClassTarget, Mask, SmoothGrad, explain
from voxplain.inference.compute import Compute
from voxplain.inference.cotangent import DenseCotangent
from voxplain.inference.noise import NoiseField
from voxplain.inference.pipeline import Pipeline, open_pipeline
from voxplain.space.box import Box
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume

SIDE, WINDOW, OVERLAP, N = 160, 32, 0.5, 2


def every_window(pipeline: Pipeline, mask: np.ndarray, image: Volume) -> np.ndarray:
    """Return SmoothGrad by running each window for each copy, zero cotangent or not."""
    noise = NoiseField(0, int(image.sha256()[:16], 16))
    sigma = 0.1 * float(image.data.max() - image.data.min())
    values = torch.zeros((len(("background", "organ", "lesion")), *mask.shape))
    values[2] = torch.from_numpy(mask)
    cotangent = DenseCotangent(values, Box.whole(mask.shape))
    total = torch.zeros(image.data.shape)
    for draw in range(N):
        for w in range(len(pipeline.plan)):
            box = pipeline.plan.box(w)
            field = torch.from_numpy(noise.crop(draw, 1, box))
            leaf = (pipeline.clean(box) + sigma * field)[None].requires_grad_()
            logits = pipeline.model.module(leaf)
            outputs = cotangent.crop(box) * pipeline.share(w)
            (gradient,) = torch.autograd.grad(logits, leaf, outputs[None])
            total[(slice(None), *box.slices)] += gradient[0] / N
    return total.numpy()


def main() -> dict[str, Any]:
    """Run both ways and compare."""
    model, image = unet(WINDOW, OVERLAP), noise_volume(SIDE)
    mask = np.zeros(image.grid.shape, bool)
    mask[60:76, 83:99, 101:117] = True
    lesion = LabelMap(mask[None].astype(np.uint8), image.grid, {1: "lesion"})
    target = ClassTarget("lesion", Mask(lesion))
    start = time.perf_counter()
    result = explain(model, image, target, SmoothGrad(n=N), regions=lesion)
    own_s = time.perf_counter() - start
    with open_pipeline(model, image, Compute()) as pipeline:
        start = time.perf_counter()
        wanted = every_window(pipeline, mask, image)
        all_s = time.perf_counter() - start
        n_windows = len(pipeline.plan)
    found = result.attributions[target.name].values
    return {
        "windows": n_windows,
        "windows_run": result.targets[0].n_windows,
        "voxplain_s": own_s,
        "every_window_s": all_s,
        "speed_ratio": all_s / own_s,
        "relative_error": float(np.abs(found - wanted).max() / np.abs(wanted).max()),
    }


if __name__ == "__main__":
    print(json.dumps(main(), indent=2))
