"""All 16 classes of a real CT, SmoothGrad n = 8, against a plain loop over classes and windows.

The plain loop runs forward and backward for each class, noise copy and window, in PyTorch's
default layout, with the same masks, blend weights and noise. Its windows that hold no voxel of
the class are timed apart, so the ratio against a loop that skips them is given too. Also bf16
against float32. Needs the real CT and network of the shared data folder.
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
from voxplain.inference.pipeline import open_pipeline
from voxplain.models import Model, load_model
from voxplain.records import Explanation
from voxplain.regions import RegionSums
from voxplain.space.box import Box
from voxplain.space.read import read_image
from voxplain.space.volume import Volume

SHARED = Path(__file__).parents[2] / "shared"


def plain_loop(model: Model, image: Volume, n: int) -> tuple[np.ndarray, float, float]:
    """Return region shares, seconds of all windows, seconds of those that hold the class."""
    classes = model.info.class_names
    with open_pipeline(model, image, Compute()) as pipeline:
        net, plan = model.module, pipeline.plan
        prepared = pipeline.image.data
        noise = NoiseField(0, int(image.sha256()[:16], 16))
        sigma = 0.1 * float(prepared.max() - prepared.min())
        if plan.padded_shape != plan.shape:
            raise ValueError("this benchmark needs a volume that is not smaller than the window")
        prediction = pipeline.logits(pipeline.clean, pipeline.inner).argmax(0)
        names = dict(enumerate(classes))
        from voxplain.space.labelmap import LabelMap

        labels = LabelMap(prediction.numpy()[None].astype(np.uint8), pipeline.image.grid, names)
        sums = RegionSums(labels, classes, pipeline.image.channels)
        seconds = seconds_held = 0.0
        for c in range(len(classes)):
            total = torch.zeros(prepared.shape)
            for draw in range(n):
                for w in range(len(plan)):
                    start = time.perf_counter()
                    box = plan.box(w)
                    field = torch.from_numpy(noise.crop(draw, len(prepared), box))
                    x = (pipeline.clean(box) + sigma * field)[None]
                    x.requires_grad_()
                    mask = prediction[box.slices] == c
                    score = (net(x)[0, c] * mask * pipeline.share(w)).sum()
                    (gradient,) = torch.autograd.grad(score, x)
                    total[(slice(None), *box.slices)] += gradient[0] / n
                    spent = time.perf_counter() - start
                    seconds += spent
                    seconds_held += spent if bool(mask.any()) else 0.0
            sums.add(c, total.numpy(), Box.whole(labels.grid.shape))
            print(f"  plain loop: {classes[c]} done, {seconds:.0f} s", flush=True)
    return sums.shares(), seconds, seconds_held


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
    model = load_model(SHARED / "models" / "ct16_unet")
    image = read_image(SHARED / "data" / "ct_thorax_abdomen" / "ct.nii.gz")
    result, own_s = timed(model, image, n, "float32")
    bf16, bf16_s = timed(model, image, n, "bf16")
    shares, loop_s, held_s = plain_loop(model, image, n)
    own = result.table.matrix().to_numpy()
    low = bf16.table.matrix().to_numpy()
    return {
        "n": n,
        "passes": {
            "forward": result.provenance.cost.n_forward,
            "backward": result.provenance.cost.n_backward,
        },
        "voxplain_s": own_s,
        "plain_loop_s": loop_s,
        "speed_ratio": loop_s / own_s,
        "plain_loop_skipping_empty_windows_s": held_s,
        "speed_ratio_against_skipping": held_s / own_s,
        "largest_share_difference": float(np.nanmax(np.abs(own - shares.sum(-1)))),
        "bf16_s": bf16_s,
        "bf16_speed_ratio": own_s / bf16_s,
        "bf16_largest_share_difference": float(np.nanmax(np.abs(own - low))),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=8, help="noise copies")
    print(json.dumps(main(parser.parse_args().n), indent=2))
