"""Exact Shapley values of predicted segments, and of 512 cubes, against captum's KernelShap.

The real CT at 1.5 mm, the real network in windows of 48 voxels (overlap 0.25), all of its classes;
segments are those it predicts at the 3 mm it was trained at. captum runs the whole volume for
each of 200 samples, again for every class; a few samples of one class are timed and the mean is
multiplied, for every sample of every class runs the same windows. KernelShap's error comes from
captum's own code on the table of all coalition values, which the exact run leaves behind.
Cubes: a part of the volume, 1000 samples of captum on one class, timed in full, against the
fewest samples a window with which ours are as close to a long reference run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray

from voxplain.attribution import ClassTarget, Mask, Shapley, explain
from voxplain.attribution.ask import ask
from voxplain.attribution.baselines import Constant
from voxplain.attribution.coalitions import all_coalitions
from voxplain.attribution.games import Game, Plan, Solution
from voxplain.attribution.kernelshap import least_samples
from voxplain.attribution.players import Players, players_of
from voxplain.inference.compute import Compute, full_precision
from voxplain.inference.pipeline import open_pipeline
from voxplain.inference.predict import predict
from voxplain.models import Model
from voxplain.models.card_model import CardModel, load_card
from voxplain.records import Explanation
from voxplain.space.labelmap import LabelMap
from voxplain.space.read import read_image
from voxplain.space.resample import resample_labels
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowPlan, WindowSettings

SHARED = Path(__file__).parents[2] / "shared"
N_SEGMENTS, N_CUBES, CUBES = 200, 1000, "cubes:512"


def models() -> tuple[Model, Model]:
    """Return the network as it was trained, and at 1.5 mm in windows of 48 voxels."""
    model = load_card(SHARED / "models" / "ct16_unet" / "model.yaml")
    assert isinstance(model, CardModel)
    info = replace(model.info, window=WindowSettings((48, 48, 48), 0.25, "gaussian"))
    settings = model.settings.model_copy(update={"spacing": (1.5, 1.5, 1.5)})
    return model, CardModel(info, model.module, settings)


def targets_over(regions: LabelMap, names: tuple[str, ...]) -> list[ClassTarget]:
    """Sum of each class's logit over the voxels that the network gives to it at 3 mm."""
    found = list(np.unique(regions.layers).tolist())
    return [
        ClassTarget(name, Mask(regions, name), label=name)
        for i, name in enumerate(names)
        if i in found
    ]


def values_of(result: Explanation) -> NDArray[np.float64]:
    """Value of each player, (n_targets, n_players)."""
    assert result.players is not None
    return np.asarray(result.players.matrix().to_numpy())


def table_of(
    model: Model, image: Volume, targets: list[ClassTarget], regions: LabelMap
) -> tuple[NDArray[np.float64], int, int]:
    """Values of all coalitions of segments (2^p, n_targets), window passes, most players."""
    with open_pipeline(model, image, Compute()) as pipeline:
        question = ask(pipeline, image, targets, regions, seed=0)
        _ = question.linear
        players = players_of("regions", question)
        whole = all_coalitions(len(players))
        total = np.zeros((len(whole), len(targets)))
        before = pipeline.passes.n_forward

        def planner(numbers: NDArray[np.intp], _: np.random.Generator) -> Plan:
            def add(values: NDArray[np.float64]) -> Solution:
                nonlocal total
                rows = whole[:, numbers] @ (1 << np.arange(len(numbers)))
                total += values[rows]
                return Solution(np.zeros((len(numbers), len(targets))), np.zeros(
                    (len(numbers), len(targets))))  # fmt: skip

            return Plan(all_coalitions(len(numbers)), add, is_exact=True)

        game = Game(question, players, Constant().input(question), planner)
        game.play()
        return total, pipeline.passes.n_forward - before, max(game.n_players.values())


def kernel_shap_error(table: NDArray[np.float64], exact: NDArray[np.float64]) -> list[float]:
    """Relative L2 error of captum's KernelShap, 200 samples, for each target."""
    from captum.attr import KernelShap

    n_players = exact.shape[1]
    powers = 1 << np.arange(n_players)
    errors = []
    for t in range(table.shape[1]):
        torch.manual_seed(t)

        def value(present: torch.Tensor, t: int = t) -> torch.Tensor:
            row = int((present[0].numpy() > 0.5) @ powers)
            return torch.tensor([table[row, t]])

        found = KernelShap(value).attribute(
            torch.ones(1, n_players), baselines=0.0, n_samples=N_SEGMENTS
        )
        difference = found[0].double().numpy() - exact[t]
        errors.append(float(np.linalg.norm(difference) / np.linalg.norm(exact[t])))
    return errors


def kernel_shap(
    model: Model,
    image: Volume,
    target: tuple[int, NDArray[np.bool_]],
    players: NDArray[np.int64],
    n_samples: int,
) -> tuple[NDArray[np.float64], float]:
    """Captum's KernelShap of one class, the whole volume for each sample; values and seconds."""
    from captum.attr import KernelShap

    index, mask = target
    settings = model.info.window
    assert settings is not None
    held = torch.from_numpy(mask)
    net = model.module.eval()

    def value(x: torch.Tensor) -> torch.Tensor:
        logits = sliding_window_inference(
            x, settings.size, 1, net, overlap=settings.overlap, mode="gaussian"
        )
        return torch.as_tensor(logits)[:, index][:, held].sum(1)

    x = torch.from_numpy(image.data)[None]
    groups = torch.from_numpy(players)[None, None]
    torch.manual_seed(0)
    start = time.perf_counter()
    with torch.no_grad(), full_precision():
        found = KernelShap(value).attribute(
            x, baselines=0.0, feature_mask=groups, n_samples=n_samples
        )
    seconds = time.perf_counter() - start
    first = np.unique(players, return_index=True)[1]
    return found[0, 0].double().numpy().ravel()[first], seconds


def segments(n_timed: int) -> dict[str, Any]:
    """Predicted segments: exact values of every class against KernelShap's."""
    trained, model = models()
    image = read_image(SHARED / "data" / "ct_thorax_abdomen" / "ct.nii.gz")
    regions = predict(trained, image)
    targets = targets_over(regions, model.info.class_names)
    prepared = model.prepare(image)
    on_grid = resample_labels(regions, prepared.grid)
    numbers = np.searchsorted(sorted(on_grid.names), on_grid.layers[0])
    first = targets[1].class_name
    assert first is not None
    one = (model.info.class_names.index(first), on_grid.mask(first))
    _, captum_s = kernel_shap(model, prepared, one, numbers, n_timed)
    # captum also values the image and the baseline: n_timed + 2 volumes
    captum_s *= (N_SEGMENTS + 2) / (n_timed + 2) * len(targets)
    print(f"  captum, all classes: {captum_s / 3600:.1f} h (from {n_timed} samples)", flush=True)
    start = time.perf_counter()
    result = explain(model, image, targets, Shapley(), regions=regions, keep=False)
    own_s = time.perf_counter() - start
    print(f"  exact values of all classes: {own_s:.0f} s", flush=True)
    table, n_passes, most = table_of(model, image, targets, regions)
    exact = values_of(result)
    assert np.allclose(exact.sum(1), table[-1] - table[0], rtol=1e-3, atol=1.0)
    errors = kernel_shap_error(table, exact)
    assert model.info.window is not None
    n_windows = len(WindowPlan(prepared.grid.shape, model.info.window))
    n_captum = n_windows * N_SEGMENTS * len(targets)
    card = WindowPlan(prepared.grid.shape, WindowSettings((64, 64, 64), 0.5))
    n_card = sum(
        2 ** len(np.unique(on_grid.layers[0][card.box(w).slices])) for w in range(len(card))
    )
    return {
        "n_windows": n_windows,
        "n_classes": len(targets),
        "most_segments_in_a_window": most,
        "exact_window_passes": n_passes,
        "kernel_shap_window_passes": n_captum,
        "pass_ratio": n_captum / n_passes,
        "pass_ratio_with_windows_of_64_overlap_half": (
            len(card) * N_SEGMENTS * len(targets) / n_card
        ),
        "exact_s": own_s,
        "kernel_shap_s": captum_s,
        "kernel_shap_samples_timed": n_timed,
        "time_ratio": captum_s / own_s,
        "exact_error": float(np.abs(exact.sum(1) - (table[-1] - table[0])).max()
                             / np.abs(exact).max()),
        "kernel_shap_relative_error_median": float(np.median(errors)),
        "kernel_shap_relative_error_largest": float(np.max(errors)),
    }  # fmt: skip


def cubes(n_reference: int) -> dict[str, Any]:
    """512 cubes of a part of the volume: ours at no larger error than KernelShap's."""
    trained, model = models()
    whole = read_image(SHARED / "data" / "ct_thorax_abdomen" / "ct.nii.gz")
    place = (40, 30, 20)
    part = tuple(slice(a, a + 42) for a in place)
    image = Volume(
        whole.data[(slice(None), *part)], whole.grid.crop(place, (42, 42, 42)), name="part"
    )
    regions = predict(trained, whole)
    targets = [t for t in targets_over(regions, model.info.class_names) if t.class_name]
    prepared = model.prepare(image)
    on_grid = resample_labels(regions, prepared.grid)
    inside = [t for t in targets if on_grid.mask(str(t.class_name)).any()]
    largest = max(inside[1:], key=lambda t: int(on_grid.mask(str(t.class_name)).sum()))
    row = inside.index(largest)
    with open_pipeline(model, image, Compute()) as pipeline:
        question = ask(pipeline, image, inside, regions, seed=0)
        players: Players = players_of(CUBES, question)
        numbers = players.index[0, 0].astype(np.int64)
    index = model.info.class_names.index(str(largest.class_name))
    one = (index, on_grid.mask(str(largest.class_name)))
    cpu = time.process_time()
    captum_values, captum_s = kernel_shap(model, prepared, one, numbers, N_CUBES)
    captum_cpu_s = time.process_time() - cpu
    print(f"  captum, cubes, one class: {captum_s:.0f} s", flush=True)

    def ours(n: int, seed: int) -> tuple[NDArray[np.float64], Explanation, float, float]:
        start, cpu = time.perf_counter(), time.process_time()
        method = Shapley(CUBES, samples=n)
        result = explain(model, image, inside, method, regions=regions, keep=False, seed=seed)
        seconds = time.perf_counter() - start
        return values_of(result), result, seconds, time.process_time() - cpu

    reference, long_run, _, _ = ours(n_reference, 1)
    assert long_run.players is not None
    frame = long_run.players.frame

    def error(found: NDArray[np.float64]) -> float:
        return float(np.linalg.norm(found - reference[row]) / np.linalg.norm(reference[row]))

    captum_error = error(captum_values)
    most = int(long_run.provenance.parameters["most_players"])
    own_error, own_s, own_cpu_s, n = np.inf, 0.0, 0.0, least_samples(most)
    while own_error > captum_error and n < n_reference:
        found, _, own_s, own_cpu_s = ours(n, 2)
        own_error = error(found[row])
        print(f"  {n} samples a window: {own_s:.0f} s, error {own_error:.3f}", flush=True)
        n *= 2
    at = frame["target"] == largest.name
    noise = float(np.sqrt((frame.loc[at, "error"] ** 2).sum()) / np.linalg.norm(reference[row]))
    return {
        "n_cubes": len(players),
        "n_classes": len(inside),
        "class": largest.name,
        "samples_a_window": n // 2,
        "own_s_of_all_classes": own_s,
        "own_relative_error": own_error,
        "kernel_shap_s_of_one_class": captum_s,
        "kernel_shap_relative_error": captum_error,
        "reference_relative_standard_error": noise,
        "time_ratio_of_all_classes": captum_s * len(inside) / own_s,
        "time_ratio_of_one_class": captum_s / own_s,
        "processor_time_ratio_of_all_classes": captum_cpu_s * len(inside) / own_cpu_s,
    }


def memory() -> dict[str, Any]:
    """Peak resident memory of a plain prediction and of exact Shapley values, each on its own."""
    peaks = {}
    for what in ("predict", "shapley"):
        run = [sys.executable, "-m", "benchmarks.shapley", "--only", what]
        done = subprocess.run(run, capture_output=True, text=True, check=True)  # noqa: S603
        peaks[what] = int(done.stdout.strip().splitlines()[-1])
    return {
        "prediction_peak_bytes": peaks["predict"],
        "shapley_peak_bytes": peaks["shapley"],
        "memory_ratio": peaks["shapley"] / peaks["predict"],
    }


def _one_run(what: str) -> int:
    """Peak memory of a run in this process."""
    from voxplain.inference.compute import peak_memory_bytes

    trained, model = models()
    image = read_image(SHARED / "data" / "ct_thorax_abdomen" / "ct.nii.gz")
    if what == "predict":
        predict(model, image)
    else:
        regions = predict(trained, image)
        targets = targets_over(regions, model.info.class_names)
        explain(model, image, targets, Shapley(exact=4, samples=40), regions=regions, keep=False)
    return peak_memory_bytes(torch.device("cpu"))


def main(n_timed: int = 3, n_reference: int = 1600) -> dict[str, Any]:
    """Run all three."""
    if not SHARED.exists():
        return {"skipped": f"no folder {SHARED.name} beside the repository"}
    found: dict[str, Any] = {}
    for name, run in (
        ("memory", memory),
        ("segments", lambda: segments(n_timed)),
        ("cubes", lambda: cubes(n_reference)),
    ):
        found[name] = run()
        print(json.dumps({name: found[name]}), flush=True)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["predict", "shapley"])
    only = parser.parse_args().only
    print(_one_run(only) if only else json.dumps(main(), indent=2))
