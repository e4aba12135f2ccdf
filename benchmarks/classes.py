"""All 16 classes of a real CT, SmoothGrad n = 8, against a plain loop over classes and windows.

The plain loop runs forward and backward for each class, noise copy and window, in PyTorch's
default layout, with the same masks, blend weights and noise. Every class costs it the same, so
four of the 16 are timed and the mean is multiplied. Also bf16 against float32. Needs the real CT
and network of the shared data folder.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxplain.attribution import SmoothGrad, explain
from voxplain.inference.compute import Compute
from voxplain.inference.noise import NoiseField
from voxplain.models import Model
from voxplain.models.card_model import load_card
from voxplain.records import Explanation
from voxplain.regions import RegionSums
from voxplain.space.box import Box
from voxplain.space.labelmap import LabelMap
from voxplain.space.read import read_image
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowPlan

SHARED = Path(__file__).parents[2] / "shared"


PLAIN_CLASSES = ("background", "liver", "aorta", "colon")


def plain_loop(model: Model, image: Volume, n: int) -> tuple[np.ndarray, float, float]:
    """Return region shares (classes × regions) and the mean seconds of one class.

    Every class runs the same passes, so a few of them are timed. The second time is that of
    the windows which hold a voxel of the class.
    """
    classes, settings = model.info.class_names, model.info.window
    prepared = model.prepare(image)
    if settings is None or any(
        a < b for a, b in zip(prepared.grid.shape, settings.size, strict=True)
    ):
        raise ValueError("this benchmark needs a volume that is not smaller than the window")
    plan = WindowPlan(prepared.grid.shape, settings)
    shares = [
        torch.from_numpy(plan.weight / plan.normaliser(plan.box(w))).float()
        for w in range(len(plan))
    ]
    net = model.module.eval()
    x = torch.from_numpy(prepared.data)
    logits = torch.zeros((len(classes), *prepared.grid.shape))
    with torch.no_grad():
        for w, share in enumerate(shares):
            place = (slice(None), *plan.box(w).slices)
            logits[place] += net(x[place][None])[0] * share
    prediction = logits.argmax(0)
    labels = LabelMap(
        prediction.numpy()[None].astype(np.uint8), prepared.grid, dict(enumerate(classes))
    )
    sums = RegionSums(labels, PLAIN_CLASSES, prepared.channels)
    noise = NoiseField(0, int(image.sha256()[:16], 16))
    sigma = 0.1 * float(x.max() - x.min())
    seconds = seconds_held = 0.0
    for row, name in enumerate(PLAIN_CLASSES):
        c = classes.index(name)
        total = torch.zeros(x.shape)
        for draw in range(n):
            for w, share in enumerate(shares):
                start = time.perf_counter()
                box = plan.box(w)
                place = (slice(None), *box.slices)
                field = torch.from_numpy(noise.crop(draw, len(x), box))
                leaf = (x[place] + sigma * field)[None].requires_grad_()
                mask = prediction[box.slices] == c
                score = (net(leaf)[0, c] * mask * share).sum()
                (gradient,) = torch.autograd.grad(score, leaf)
                total[place] += gradient[0] / n
                spent = time.perf_counter() - start
                seconds += spent
                seconds_held += spent if bool(mask.any()) else 0.0
        sums.add(row, total.numpy(), Box.whole(labels.grid.shape))
        print(f"  plain loop: {name} done, {seconds:.0f} s", flush=True)
    n_run = len(PLAIN_CLASSES)
    return sums.shares().sum(-1), seconds / n_run, seconds_held / n_run


def timed(model: Model, image: Volume, n: int, precision: str) -> tuple[Explanation, float]:
    """Run voxplain, regions only."""
    start = time.perf_counter()
    compute = Compute(precision=precision)  # type: ignore[arg-type]
    result = explain(model, image, "all", SmoothGrad(n=n), keep=False, compute=compute)
    return result, time.perf_counter() - start


def main(n: int = 8) -> dict[str, Any]:
    """Run all ways and compare."""
    if not SHARED.exists():
        return {"skipped": f"no folder {SHARED.name} beside the repository"}
    model = load_card(SHARED / "models" / "ct16_unet" / "model.yaml")
    image = read_image(SHARED / "data" / "ct_thorax_abdomen" / "ct.nii.gz")
    shares, plain_s, held_s = plain_loop(model, image, n)  # first: nothing of ours has run yet
    result, own_s = timed(model, image, n, "float32")
    print(f"  voxplain: {own_s:.0f} s", flush=True)
    bf16, bf16_s = timed(model, image, n, "bf16")
    own = result.table.matrix()
    low = bf16.table.matrix()
    n_classes = len(model.info.class_names)
    return {
        "n": n,
        "passes": {
            "forward": result.provenance.cost.n_forward,
            "backward": result.provenance.cost.n_backward,
        },
        "voxplain_s": own_s,
        "plain_loop_classes_timed": list(PLAIN_CLASSES),
        "plain_loop_s_of_one_class": plain_s,
        "plain_loop_s_of_all_classes": plain_s * n_classes,
        "speed_ratio": plain_s * n_classes / own_s,
        "plain_loop_skipping_empty_windows_s_of_one_class": held_s,
        "largest_share_difference": float(
            np.abs(own.loc[list(PLAIN_CLASSES)].to_numpy() - shares).max()
        ),
        "bf16_s": bf16_s,
        "bf16_speed_ratio": own_s / bf16_s,
        "bf16_largest_share_difference": float(np.nanmax(np.abs(own - low))),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=8, help="noise copies")
    print(json.dumps(main(parser.parse_args().n), indent=2))
