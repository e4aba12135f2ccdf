"""Extra peak memory of one gradient: voxplain against autograd through MONAI's stitching.

Volume 128³, windows 32³, gaussian blend, target Σ logit of one class over a mask. Each
side runs in a process of its own; extra memory is the peak resident set above that before.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from monai.inferers import sliding_window_inference

from benchmarks.networks import noise_volume, unet
from voxplain.attribution import ClassTarget, Mask, explain
from voxplain.space.labelmap import LabelMap

SIDE, WINDOW, OVERLAP = 128, 32, 0.25


def mask() -> np.ndarray:
    """Return the target's mask: a tenth of all voxels, so every window is needed."""
    return np.random.default_rng(1).random((SIDE,) * 3) < 0.1


def voxplain_way() -> np.ndarray:
    """Return the gradient with one window in memory."""
    image = noise_volume(SIDE)
    target = ClassTarget("organ", Mask(LabelMap.of(mask().astype(np.uint8), image.grid)))
    result = explain(unet(WINDOW, OVERLAP), image, target, "gradient")
    return result.attributions[target.name].values


def full_graph_way() -> np.ndarray:
    """Return the gradient with every window's graph in memory."""
    model, image = unet(WINDOW, OVERLAP), noise_volume(SIDE)
    model.module.eval().requires_grad_(requires_grad=False)
    x = torch.from_numpy(image.data)[None].requires_grad_()
    logits = sliding_window_inference(
        x, (WINDOW,) * 3, 1, model.module, overlap=OVERLAP, mode="gaussian"
    )
    (logits[0, 1] * torch.from_numpy(mask())).sum().backward()
    assert x.grad is not None
    return x.grad[0].numpy()


def measure(way: str, out: Path) -> None:
    """Run one way in this process and write its numbers and its gradient."""
    run = {"voxplain": voxplain_way, "full graph": full_graph_way}[way]
    unet(WINDOW, OVERLAP)  # what importing and building take is not counted
    before = psutil.Process().memory_info().rss
    start = time.perf_counter()
    gradient = run()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    np.save(out, gradient)
    print(json.dumps({"way": way, "extra_mib": (peak - before) / 2**20, "seconds": seconds}))


def main() -> dict[str, Any]:
    """Run both ways and compare."""
    results: dict[str, Any] = {}
    gradients = []
    with tempfile.TemporaryDirectory() as folder:
        for i, way in enumerate(("voxplain", "full graph")):
            out = Path(folder) / f"{i}.npy"
            command = [sys.executable, "-m", "benchmarks.memory", way, str(out)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
            results[way] = json.loads(printed.stdout.splitlines()[-1])
            gradients.append(np.load(out))
    own, full = gradients
    results["memory_ratio"] = results["voxplain"]["extra_mib"] / results["full graph"]["extra_mib"]
    difference = np.abs(own - full)
    results["relative_error_l2"] = float(np.linalg.norm(own - full) / np.linalg.norm(full))
    results["relative_error_max"] = float(difference.max() / np.abs(full).max())
    results["voxels_over_1e-5"] = float((difference > 1e-5 * np.abs(full).max()).mean())
    return results


if __name__ == "__main__":
    if len(sys.argv) == 1:
        print(json.dumps(main(), indent=2))
    else:
        measure(sys.argv[1], Path(sys.argv[2]))
