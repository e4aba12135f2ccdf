"""The largest gradient over a lesion's voxels, against the loop as the method was published.

A two-channel volume of 160×192×160 voxels, MONAI's U-Net with 32-64-128-256-512 channels and
batch norm, untrained, windows 96³ with overlap 0.25 and gaussian blend: 12 windows. For each of
100 voxels of a lesion the published way runs one backward pass through the whole stitched volume,
all windows' graphs kept. Here it is spared what it can be: no gradient of parameters, the stitching
precomputed, the maximum taken in place. A few voxels are timed and their mean is multiplied by
100; its forward pass and everything of ours is timed in full, one noisy copy each. The lesion lies
in one window (at voxel 50, 60, 52), or where eight windows overlap (the middle). Each run is a
process of its own; extra memory is the peak resident set above that before.
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
from monai.networks.nets import UNet
from numpy.typing import NDArray

from voxplain.attribution import ClassTarget, GradientMax, Mask
from voxplain.attribution.ask import ask
from voxplain.attribution.question import MapSum
from voxplain.attribution.smoothgrad import noisy
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.inference.voxel_gradients import voxel_gradients
from voxplain.models import Model, wrap
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowPlan, WindowSettings

SHAPE, DOUBLED = (160, 192, 160), (320, 192, 160)
PLACES = {"one window": (50, 60, 52), "middle": (80, 96, 80)}
N_VOXELS, N_TIMED, NOISE = 100, 4, 0.05
WINDOW = WindowSettings((96, 96, 96), overlap=0.25, blend="gaussian")


def network() -> Model:
    """Return the U-Net with seeded weights; its batch norms hold statistics of seeded noise."""
    torch.manual_seed(0)
    net = UNet(3, 2, 2, channels=(32, 64, 128, 256, 512), strides=(2, 2, 2, 2), norm="batch")
    with torch.no_grad():
        net.train()(torch.rand(2, 2, 32, 32, 32))
    return wrap(
        net.eval(), classes=("background", "lesion"), channels=("flair", "mprage"), window=WINDOW,
        name="bench_instance", check=False,
    )  # fmt: skip


def volume(shape: tuple[int, ...]) -> Volume:
    """Return two channels of seeded noise."""
    data = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    return Volume(data, Grid(shape, np.eye(4)), ("flair", "mprage"), "noise")


def lesion(place: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the 100 voxels that are nearest to a place."""
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    distance = sum((a - c) ** 2 for a, c in zip(axes, PLACES[place], strict=True))
    mask = np.zeros(shape, bool)
    mask.ravel()[np.argsort(distance, axis=None, kind="stable")[:N_VOXELS]] = True
    return mask


def extra_mib(before: int) -> float:
    """Peak resident set of this process above what it was."""
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 2**20


def own_way(
    place: str, shape: tuple[int, ...], folder: Path, *, checkpointing: bool
) -> dict[str, Any]:
    """Take all voxels' gradients at one noisy copy; then keep those of the first few."""
    model, image = network(), volume(shape)
    mask = LabelMap.of(lesion(place, shape), image.grid)
    target = ClassTarget("lesion", Mask(mask))
    before = psutil.Process().memory_info().rss
    compute = Compute("cpu", checkpointing=checkpointing)
    with open_pipeline(model, image, compute) as pipeline:
        question = ask(pipeline, image, [target], None, seed=0)
        start = time.perf_counter()
        method = GradientMax(n=1, noise=NOISE, first_channel=True)
        found = MapSum(question)
        method.attribute(question, found.add)
        seconds = time.perf_counter() - start
        numbers = {
            "windows": len(pipeline.plan),
            "seconds": seconds,
            "extra_mib": extra_mib(before),
            "forward_passes": pipeline.passes.n_forward,
            "backward_passes": pipeline.passes.n_backward,
        }
        source = noisy(question, 0, NOISE, first_channel=True)
        whole = Box.whole(pipeline.plan.padded_shape)
        np.save(folder / "input.npy", source(whole).numpy())
        ((_, cotangent),) = question.linear
        few = torch.zeros((N_TIMED, 2, *shape))

        def keep(units: Any, box: Box, maps: torch.Tensor) -> None:
            for i, one in zip(units, maps, strict=True):
                few[i][(slice(None), *box.slices)] += one

        voxels = np.argwhere(lesion(place, shape))[:N_TIMED]
        voxel_gradients(pipeline, source, [cotangent], [(0, v[None]) for v in voxels], keep)
        np.save(folder / "own.npy", few.numpy())
    return numbers


def published_way(place: str, shape: tuple[int, ...], folder: Path) -> dict[str, Any]:
    """One backward pass through the whole stitched volume for each of a few voxels."""
    net = network().module.requires_grad_(requires_grad=False)
    plan = WindowPlan(shape, WINDOW)
    x = torch.from_numpy(np.load(folder / "input.npy")).requires_grad_()
    weight = torch.tensor(plan.weight, dtype=torch.float32)
    normaliser = torch.tensor(plan.normaliser(Box.whole(shape)), dtype=torch.float32)
    voxels = np.argwhere(lesion(place, shape))[:N_TIMED]
    before = psutil.Process().memory_info().rss
    start = time.perf_counter()
    stitched = torch.zeros((2, *shape))
    for w in range(len(plan)):
        place_of = (slice(None), *plan.box(w).slices)
        stitched[place_of] += net(x[place_of][None])[0] * weight
    logits = stitched[1] / normaliser
    forward_s = time.perf_counter() - start
    best = torch.zeros_like(x, requires_grad=False)
    kept = []
    start = time.perf_counter()
    for v in voxels:
        (gradient,) = torch.autograd.grad(logits[tuple(v)], x, retain_graph=True)
        torch.where(gradient.abs() > best.abs(), gradient, best, out=best)
        kept.append(gradient)
    per_voxel_s = (time.perf_counter() - start) / len(voxels)
    numbers = {
        "windows": len(plan),
        "forward_s": forward_s,
        "seconds_a_voxel": per_voxel_s,
        "voxels_timed": len(voxels),
        "seconds": forward_s + N_VOXELS * per_voxel_s,
        "extra_mib": extra_mib(before),
    }
    own = np.load(folder / "own.npy")
    wanted = torch.stack(kept).numpy()
    numbers["relative_error"] = float(np.abs(own - wanted).max() / np.abs(wanted).max())
    return numbers


def child(way: str, place: str, shape: tuple[int, ...], folder: Path) -> dict[str, Any]:
    """Run one way in a process of its own."""
    command = [
        sys.executable, "-m", "benchmarks.instance", way, place, json.dumps(shape), str(folder),
    ]  # fmt: skip
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    found: dict[str, Any] = json.loads(printed.stdout.splitlines()[-1])
    print(f"  {way}, {place}, {shape}: {found}", flush=True)
    return found


def main() -> dict[str, Any]:
    """Run all ways, one after another, and compare."""
    results: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "lesion_voxels": N_VOXELS,
        "extrapolated": f"the published way, from {N_TIMED} voxels to {N_VOXELS}",
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for place in PLACES:
            own = child("voxplain", place, SHAPE, folder)
            published = child("published", place, SHAPE, folder)
            results[place] = {
                "voxplain": own,
                "published": published,
                "speed_ratio": published["seconds"] / own["seconds"],
                "memory_ratio": own["extra_mib"] / published["extra_mib"],
                "relative_error": published["relative_error"],
            }
        usual = results["one window"]["voxplain"]
        for way, shape in (("voxplain", DOUBLED), ("checkpointing", SHAPE)):
            found = child(way, "one window", shape, folder)
            results["doubled" if shape == DOUBLED else way] = {
                **found,
                "time_ratio": found["seconds"] / usual["seconds"],
                "memory_ratio": found["extra_mib"] / usual["extra_mib"],
            }
    return results


def measure(way: str, place: str, shape: tuple[int, ...], folder: Path) -> None:
    """Run one way in this process and print its numbers."""
    if way == "published":
        numbers = published_way(place, shape, folder)
    else:
        numbers = own_way(place, shape, folder, checkpointing=way == "checkpointing")
    print(json.dumps(numbers))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        print(json.dumps(main(), indent=2))
    else:
        measure(sys.argv[1], sys.argv[2], tuple(json.loads(sys.argv[3])), Path(sys.argv[4]))
