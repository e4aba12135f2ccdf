"""Made-up assessments, the same at every call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.assess.checks import checks_of
from voxplain.assess.metrics import area_of, metrics_of
from voxplain.records.assessment import (
    BASELINE,
    ORIGINAL,
    PICTURES,
    RANDOM_PAIRS,
    REPEAT,
    REPRODUCE,
    SCORES,
    STAGES,
    Assessment,
    frame_of,
)
from voxplain.records.provenance import Cost, Provenance
from voxplain.study.score_comparison import comparisons_of
from voxplain.study.score_summary import summary_of

MODELS = ("unet a", "unet b", "swin")
METHODS = ("gradient", "integrated gradients", "occlusion")
TRIVIAL = (f"{BASELINE}random", f"{BASELINE}edges")
TARGETS = ("liver", "tumour")
ORDER = "top_down"

_LEVEL = {
    "average_precision": 0.35, "normalised_average_precision": 0.3, "auroc": 0.75,
    "energy_in_body": 0.8, "faithfulness_correlation": 0.4, "infidelity": 0.6, "leakage": 0.3,
    "sparseness": 0.6, "entropy": 7.0,
}  # fmt: skip
_OF_METHODS = {"average_sensitivity": 0.4, "stability_flip": 0.7, "seconds": 3.0, "n_forward": 40.0}
_SIMILARITIES = {"ssim": 0.35, "spearman": 0.3}


def assessment(
    *,
    models: Sequence[str] = MODELS,
    methods: Sequence[str] = METHODS,
    trivial: Sequence[str] = TRIVIAL,
    cases: Sequence[str] = tuple(f"case {i}" for i in range(1, 7)),
    targets: Sequence[str] = TARGETS,
    n_steps: int = 3,
    n_pictures: int = 2,
    shape: tuple[int, int] = (48, 36),
    is_noise: bool = False,
    is_legacy: bool = False,
    provenance: Provenance | None = None,
) -> Assessment:
    """Make an assessment whose first method is the best and whose last one fails randomisation."""
    rng = np.random.default_rng(7)
    rows = list(_rows(rng, models, methods, trivial, cases, targets, n_steps, is_legacy))
    scores = frame_of(rows, SCORES)
    scores["value"] = scores["value"].astype(float)
    metrics = metrics_of(scores["metric"].unique())
    summary = summary_of(scores, n_boot=50)
    comparisons = comparisons_of(scores, metrics, n_boot=50)
    stages = [
        {"model": model, "order": ORDER, "number": k, "n_parameters": 1000 * k,
         "layers": f"decoder.{k}.conv; decoder.{k}.norm" if k else ""}
        for model in models for k in range(n_steps + 1)
    ]  # fmt: skip
    pictures, planes = _pictures(
        rng, models, [*methods, *trivial], cases[:n_pictures], targets, n_steps, shape, is_noise
    )
    return Assessment(
        scores=scores, summary=summary, comparisons=comparisons,
        stages=frame_of(stages if n_steps else [], STAGES), pictures=pictures, planes=planes,
        metrics=metrics,
        findings=checks_of(scores, summary, comparisons, metrics, n_boot=50),
        provenance=provenance or record(len(cases)),
    )  # fmt: skip


def record(n_cases: int) -> Provenance:
    """Say how it was made."""
    return Provenance("nets", "ab" * 32, f"{n_cases} cases", "cd" * 32, "three", {"n_runs": 100},
                      cost=Cost(123456, 7890, 4321.0, 2_000_000_000),
                      versions={"voxplain": "0.1.0"}, created="2026-01-02T03:04:05")  # fmt: skip


def _rows(
    rng: np.random.Generator, models: Sequence[str], methods: Sequence[str],
    trivial: Sequence[str], cases: Sequence[str], targets: Sequence[str], n_steps: int,
    is_legacy: bool,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    def row(case: str, model: str, method: str, target: str, metric: str, value: float,
            stage: str = ORIGINAL, against: str = "") -> dict[str, Any]:  # fmt: skip
        return {"case": case, "patient": f"patient of {case}", "model": model, "seed": 0,
                "stage": stage, "method": method, "target": target, "metric": metric,
                "value": value, "flags": "", "against": against}  # fmt: skip

    labels = [*methods, *trivial]
    similar = {**_SIMILARITIES, "legacy_ssim": 0.5} if is_legacy else _SIMILARITIES
    for case in cases:
        for model in models:
            for t, target in enumerate(targets):
                yield row(case, model, "", target, "model_dice", rng.uniform(0.6, 0.95))
                yield row(case, model, "", target, "model_score", 100 * rng.random())
                for i, label in enumerate(labels):
                    quality = 1 - 0.6 * i / len(labels)
                    measured = {**_LEVEL, **(_OF_METHODS if label in methods else {})}
                    for metric, level in measured.items():
                        value = level * quality * rng.uniform(0.75, 1.25)
                        if metric in ("seconds", "n_forward"):
                            value *= 8.0**i
                        yield row(case, model, label, target, metric, value)
                    yield row(case, model, label, target, "prevalence", 0.05 + 0.04 * t)
            for k in range(n_steps + 1) if n_steps else ():
                stage = f"{ORDER}:{k}"
                for target in targets:
                    yield row(
                        case, model, "", target, "target_change", 0.3 * k * rng.random(), stage
                    )
                yield row(case, model, "", "", "prediction_change", k / (n_steps + 1), stage)
            for label in [*methods, f"{BASELINE}edges"] if n_steps else ():
                floor = 0.9 if label in (methods[-1], f"{BASELINE}edges") else 0.1
                for target in targets:
                    for metric in similar:
                        for k in range(n_steps + 1):
                            mean = floor + (1 - floor) * (1 - k / n_steps) ** 2
                            noise = 0.05 * rng.standard_normal() if k else 0.0
                            yield row(
                                case, model, label, target, metric, mean + noise, f"{ORDER}:{k}"
                            )
                        yield row(case, model, label, target, area_of(metric), floor + 0.2, ORDER)
        for a, b in combinations(models, 2):
            stage = REPEAT if a.split()[0] == b.split()[0] else REPRODUCE
            for target in targets:
                yield row(
                    case, a, "", target, "prediction_agreement", rng.uniform(0.7, 0.9), stage, b
                )
                for i, method in enumerate(methods):
                    for metric, level in similar.items():
                        value = level + 0.2 * (stage == REPEAT) + 0.1 * i + 0.1 * rng.random()
                        yield row(case, a, method, target, metric, value, stage, b)
    for model in models:
        for a, b in combinations(cases, 2):
            for target in targets:
                for method in methods:
                    for metric, level in similar.items():
                        value = level + 0.05 * rng.standard_normal()
                        yield row(a, model, method, target, metric, value, RANDOM_PAIRS, b)


def _pictures(
    rng: np.random.Generator, models: Sequence[str], labels: Sequence[str], cases: Sequence[str],
    targets: Sequence[str], n_steps: int, shape: tuple[int, int], is_noise: bool,
) -> tuple[pd.DataFrame, Mapping[str, NDArray[np.uint8]]]:  # fmt: skip
    planes: dict[str, NDArray[np.uint8]] = {}
    rows: list[dict[str, Any]] = []
    down, right = np.indices(shape) / np.array(shape)[:, None, None]

    def put(case: str, model: str, stage: str, method: str, target: str, values: Any) -> None:
        name = f"plane:{len(planes)}"
        planes[name] = np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
        rows.append({"case": case, "model": model, "seed": 0, "stage": stage, "method": method,
                     "target": target, "axis": 2, "index": 3, "low": 0.0,
                     "high": float(np.max(values)), "file": name})  # fmt: skip

    def blob(x: float, y: float, size: float) -> Any:
        return np.exp(-((down - y) ** 2 + (right - x) ** 2) / (2 * size**2))

    for i, case in enumerate(cases):
        for model in models:
            for t, target in enumerate(targets):
                x, y = 0.3 + 0.2 * t + 0.05 * i, 0.4 + 0.15 * t
                body = 0.7 * ((down - 0.5) ** 2 + (right - 0.5) ** 2 < 0.2)
                image = rng.random(shape) if is_noise else body + 0.2 * rng.random(shape)
                put(case, model, "image", "", target, image)
                put(case, model, "truth", "", target, blob(x, y, 0.12) > 0.5)
                for j, label in enumerate(labels):
                    values = (
                        rng.random(shape) if is_noise or j == 3 else blob(x, y, 0.05 + 0.05 * j)
                    )
                    put(
                        case, model, ORIGINAL, label, target, 0 * values if j == 2 and i else values
                    )
                    for k in range(1, n_steps + 1):
                        moved = rng.random(shape) if is_noise else blob(x + 0.1 * k, y, 0.1)
                        put(case, model, f"{ORDER}:{k}", label, target, moved)
    return frame_of(rows, PICTURES), planes
