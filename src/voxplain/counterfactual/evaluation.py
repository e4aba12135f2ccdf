"""One evaluator for every method: the same frozen slices, the same rules."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import torch

from voxplain.assess.method_words import text_of
from voxplain.counterfactual.classifier import Classifier
from voxplain.counterfactual.classifier_scores import classifier_row
from voxplain.counterfactual.comparison import Comparison, Scored
from voxplain.counterfactual.config import EvaluationConfig
from voxplain.counterfactual.generator import Generator
from voxplain.counterfactual.overlap import LEVEL, scaled
from voxplain.counterfactual.repair_scores import RepairScores
from voxplain.counterfactual.score_maps import (
    INTENSITY,
    INTENSITY_DARK,
    Progress,
    expand_methods,
    intensity_maps,
    score_maps,
)
from voxplain.counterfactual.slices import Slices
from voxplain.errors import DataError, MethodError
from voxplain.inference.compute import Compute, frozen, full_precision
from voxplain.models.weights import weights_sha256
from voxplain.records.counterfactual_evaluation import CLASSIFIER, JUDGE, TABLES, Evaluation
from voxplain.records.provenance import package_versions


def evaluate(
    config: EvaluationConfig,
    *,
    test: Slices,
    validation: Slices,
    classifier: Classifier,
    judge: Classifier | None,
    generators: Mapping[str, Generator],
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch: int = 32,
    progress: Progress | None = None,
) -> Evaluation:
    """Compare generators, attribution methods and plain intensity on the same slices.

    How good the classifiers are is told of all test slices, the rest of those that are chosen.

    Parameters
    ----------
    config
        Methods, thresholds, post filter, draws.
    test, validation
        Frozen slices; thresholds are tuned on the second, everything is told of the first.
    classifier
        What is explained.
    judge
        A second classifier; None: there is none.
    generators
        By name.
    seed
        Of methods that draw, and of the draws of patients.
    device
        To run on; the networks come back as they were.
    batch
        Slices in a pass; no result depends on it.
    progress
        Called with method, slices done, slices in all.

    Returns
    -------
    Evaluation
        Values that are not defined are NaN, and a note says why.

    Raises
    ------
    DataError
        If the test part has no abnormal slice.
    MethodError
        If a method is unknown, or a generator and a method have one name.

    Notes
    -----
    Overlap is that of abnormal slices whose lesion is known, as in the paper; what is marked on
    normal slices stands in ``marked_normal``. Differs from the paper, which draws new anomalies
    for every method, tunes no threshold, and filters only some methods' masks (spec §6).

    References
    ----------
    Shvetsov et al. 2024, arXiv 2404.12832.
    """
    start = time.perf_counter()
    n = config.max_slices
    abnormal, normal, chosen = test.abnormal(n), _normal(test, n), validation.abnormal(n)
    if not len(abnormal):
        raise DataError(
            f"evaluation needs abnormal slices in the test part; none of its {len(test)} slices is"
        )
    size: tuple[int, int] = test.images.shape[2:]
    methods = expand_methods(config.methods, classifier, size)
    if twice := sorted({*methods, INTENSITY, INTENSITY_DARK} & {*generators}):
        raise MethodError(f"generators and methods of one name: {', '.join(twice)}; rename them")
    judges = {CLASSIFIER: classifier} | ({} if judge is None else {JUDGE: judge})
    run = Comparison(config, abnormal, normal, chosen, seed)
    with ExitStack() as stack:
        compute = Compute(str(device))
        stack.enter_context(full_precision())
        for module in (*(one.network for one in judges.values()), *generators.values()):
            stack.enter_context(frozen(module, compute, 2))
        run.rows["classifiers"] += [
            classifier_row(by, one, test, config.n_boot, seed, batch) for by, one in judges.items()
        ]
        repairs = RepairScores(run, judges, device, batch)
        for name, generator in generators.items():
            repairs.add(name, generator, progress)
        how: dict[str, Any] = {"seed": seed, "device": device, "progress": progress}
        tuning = score_maps(classifier, run.known_validation, methods, **how)
        telling = score_maps(classifier, abnormal, methods, **how)
        for (name, before), (_, found) in zip(tuning, telling, strict=True):
            run.add(Scored(
                name, "attribution", scaled(found.values), scaled(before.values),
                config.fixed_saliency, found.seconds + before.seconds, found.n_forward,
                found.n_backward, text_of(name, methods[name]) or name,
            ))  # fmt: skip
        if config.intensity:
            tuning_maps = intensity_maps(run.known_validation)
            for name, values in intensity_maps(abnormal).items():
                run.add(Scored(name, "intensity", values, tuning_maps[name], np.nan))
    run.compare()
    provenance = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": package_versions(), "seed": seed, "device": str(device), "level": LEVEL,
        "settings": config.model_dump(mode="json"),
        "hashes": {
            "classifier": classifier.sha256, "judge": None if judge is None else judge.sha256,
            "generators": {name: weights_sha256(g) for name, g in generators.items()},
            "test": _sha256(test), "validation": _sha256(validation),
        },
        "n": {
            "abnormal": len(abnormal), "normal": len(normal), "validation": len(chosen),
            "patients": int(test.table["patient"].nunique()),
        },
        "seconds": time.perf_counter() - start,
        "seconds_of": run.seconds,
    }  # fmt: skip
    tables = {
        name: pd.DataFrame(run.rows[name], columns=list(columns))
        for name, columns in TABLES.items()
    }
    return Evaluation(tables, run.pictures, provenance)


def _normal(slices: Slices, n: int | None) -> Slices:
    """Return the normal slices; at most `n`, evenly spread."""
    chosen = np.flatnonzero(slices.labels == 0)
    if n is not None and len(chosen) > n:
        chosen = chosen[np.linspace(0, len(chosen) - 1, n).round().astype(int)]
    return slices.at(chosen)


def _sha256(slices: Slices) -> str:
    digest = hashlib.sha256()
    for array in (slices.images, slices.labels, slices.truth):
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
