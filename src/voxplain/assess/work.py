"""The parts of an assessment: one case and model, its cascades, pairs of models and of cases."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from voxplain.assess.asked import Asked
from voxplain.assess.baseline_maps import baseline_map
from voxplain.assess.cascade import CascadeSettings, Row, Source, area_under_cascade, run_cascade
from voxplain.assess.case_scores import label_of
from voxplain.assess.meter import Meter
from voxplain.assess.metrics import area_of
from voxplain.assess.pairs import KeptMaps, architecture, model_pairs, on_shape, random_pairs
from voxplain.assess.parts import Part, Parts
from voxplain.assess.performance import PREDICTION_AGREEMENT, dice
from voxplain.assess.pictures import PictureBook
from voxplain.assess.random_entropy import Smoothed
from voxplain.assess.rows import RowMaker
from voxplain.assess.settings import Order
from voxplain.assess.similarity import similarities
from voxplain.assess.subject import Subject
from voxplain.attribution.maps import Maps
from voxplain.attribution.method import Outcome
from voxplain.attribution.question import Question
from voxplain.inference.compute import peak_memory_bytes
from voxplain.inference.pipeline import Passes
from voxplain.records.assessment import ORIGINAL, RANDOM_PAIRS
from voxplain.records.metric import Measured
from voxplain.records.provenance import Cost
from voxplain.space.plane import Plane

Floats = NDArray[np.floating[Any]]

_EDGES = label_of("edges")


def scores_part(asked: Asked, label: str, subject: Subject, meter: Meter) -> Part:
    """Score every method and trivial map on one case and model."""
    start, name = time.perf_counter(), subject.image.name
    made = RowMaker(asked.case(name), label, asked.seed)
    book = PictureBook({"case": name, "model": label})
    rows, kept = [], {}
    needs_kept = asked.needs_kept or asked.has_pairs
    with asked.open(asked.models[label], subject) as scores:
        question = scores.question
        names = [target.name for target in question.targets]
        is_shown = asked.is_shown(name)
        meter.start(question, scores.passes(asked.methods))
        rows += [made.row("", names[t], metric, one) for t, metric, one in scores.of_model()]
        if is_shown:
            book.add_image(scores)
        for method, maps, found in scores.of_all(asked.methods):
            rows += [made.row(method, names[t], metric, one) for t, metric, one in found]
            magnitude = maps.magnitude().astype(np.float32)
            if method in asked.methods and needs_kept:
                kept[method] = magnitude
                if asked.has_smooth:  # compared with maps that are as smooth
                    smooth = Smoothed(asked.methods[method], asked.settings.n_smooth)
                    kept[method] = smooth(question).magnitude().astype(np.float32)
            if is_shown:
                for t, values in enumerate(magnitude):
                    book.add(scores, t, ORIGINAL, asked.seed, method, values)
        arrays: dict[str, NDArray[Any]] = dict(book.planes)
        if needs_kept:
            arrays |= KeptMaps(kept, question.pipeline.image.grid).to_arrays()
            masks = {f"mask:{t}": one for t, one in enumerate(scores.predicted) if one is not None}
            arrays |= masks
        chosen = None
        if not question.pipeline.is_dense:
            chosen = int(question.prediction_logits.reshape(-1).argmax())
        facts = {"image_sha256": subject.image.sha256(), "targets": names, "chosen": chosen}
        passes = question.pipeline.passes
        return Part(
            rows, pictures=book.rows, arrays=arrays, facts=facts, cost=_cost(asked, start, passes)
        )


def cascade_part(
    asked: Asked, label: str, subject: Subject, order: str, seed: int, meter: Meter
) -> Part:
    """Randomise one model in one order with one seed, and compare one case's maps."""
    settings, start, name = asked.settings, time.perf_counter(), subject.image.name
    model = asked.models[label]
    sources: dict[str, Source] = {
        method: Smoothed(one, settings.n_smooth) if settings.n_smooth > 1 else one
        for method, one in asked.methods.items()
    }
    if "edges" in settings.baselines:
        sources[_EDGES] = _edges
    book = PictureBook({"case": name, "model": label})
    planes: dict[str, Plane] = {}
    before = Passes()
    if asked.is_shown(name) and seed == asked.seed:
        with asked.open(model, subject) as scores:
            for t, target in enumerate(scores.question.targets):
                planes[target.name] = book.plane(scores, t)
            before = scores.question.pipeline.passes

    def show(stage: str, random_seed: int, method: str, maps: Floats) -> None:
        if not stage.endswith(":0"):
            for (target, plane), values in zip(planes.items(), maps, strict=False):
                book.put(plane, target, stage, random_seed, method, values)

    rows, plans, passes = run_cascade(
        model, subject.image, asked.bound(model), sources, similarities(settings.preset),
        CascadeSettings(
            (_order(order),), settings.n_stages, (seed,), is_fixed=settings.preset != "arun2021"
        ),
        regions=None, seed=asked.seed, compute=asked.compute, progress=meter.inner, picture=show,
    )  # fmt: skip
    made = RowMaker(asked.case(name), label, seed)
    found = [
        made.row(one.method, one.target, one.metric, Measured(one.value, one.flags),
                 stage=one.stage)
        for one in rows
    ]  # fmt: skip
    found += [
        made.row(method, target, area_of(metric), Measured(area), stage=order)
        for method, target, metric, area in _areas(rows)
    ]
    stages = [
        {"model": label, "order": order, "number": step.number,
         "layers": "; ".join(step.layers), "n_parameters": step.n_parameters}
        for steps in plans.values() for step in steps
    ]  # fmt: skip
    passes.n_forward += before.n_forward
    passes.n_backward += before.n_backward
    cost = _cost(asked, start, passes)
    return Part(found, stages, book.rows, arrays=book.planes, cost=cost)


def models_part(asked: Asked, name: str, parts: Parts) -> Part:
    """Compare the maps of one case by every two models, and what the models predict."""
    start, case = time.perf_counter(), asked.case(name)
    arrays = {label: parts.arrays(("scores", label, name)) for label in asked.models}
    facts = {label: parts.read(("scores", label, name)).facts for label in asked.models}
    names = next(iter(facts.values()))["targets"]
    kept = {label: KeptMaps.from_arrays(one) for label, one in arrays.items()}
    kinds = {label: architecture(model) for label, model in asked.models.items()}
    rows, agreed = [], set()
    for stage, first, second, method, t, metric, one in model_pairs(
        kept, kinds, similarities(asked.settings.preset)
    ):
        made = RowMaker(case, first, asked.seed, stage, second)
        rows.append(made.row(method, names[t], metric, one))
        if (first, second, t) not in agreed:
            agreed.add((first, second, t))
            same = None
            masks = [arrays[label].get(f"mask:{t}") for label in (first, second)]
            if facts[first]["chosen"] is not None:
                same = Measured(float(facts[first]["chosen"] == facts[second]["chosen"]))
            elif masks[0] is not None and masks[1] is not None:
                moved = kept[second].moved(masks[1].astype(np.uint8), kept[first].grid)
                same = dice(masks[0], moved > 0)
            if same is not None:
                rows.append(made.row("", names[t], PREDICTION_AGREEMENT.name, same))
    return Part(rows, cost=_cost(asked, start, Passes()))


def random_pairs_part(asked: Asked, label: str, parts: Parts) -> Part:
    """Compare maps of different patients by one model: what similarity is worth nothing."""
    start = time.perf_counter()
    rng = np.random.default_rng([asked.seed, zlib.crc32(b"random pairs")])
    same = similarities(asked.settings.preset)
    rows = []
    cases = sorted(asked.cases, key=lambda case: case.name)
    for first, second in random_pairs(
        [case.name for case in cases], [case.patient for case in cases],
        asked.settings.n_pairs, rng,
    ):  # fmt: skip
        a, b = (
            KeptMaps.from_arrays(parts.arrays(("scores", label, name))) for name in (first, second)
        )
        targets = parts.read(("scores", label, first)).facts["targets"]
        made = RowMaker(asked.case(first), label, asked.seed, RANDOM_PAIRS, second)
        for method, scores in a.scores.items():
            for t, values in enumerate(scores):
                other = on_shape(b.scores[method][t], values.shape)
                rows += [
                    made.row(method, targets[t], metric, function(values, other))
                    for metric, function in same.items()
                ]
    return Part(rows, cost=_cost(asked, start, Passes()))


def _cost(asked: Asked, start: float, passes: Passes) -> Cost:
    seconds = time.perf_counter() - start
    peak = peak_memory_bytes(asked.compute.torch_device())
    return Cost(passes.n_forward, passes.n_backward, seconds, peak)


def _edges(question: Question) -> Maps:
    """Edges of the image, which no weight can change."""
    return Maps(baseline_map("edges", question), "localisation", Outcome(), Passes(), 0.0)


def _order(text: str) -> Order:
    return next(order for order in get_args(Order) if order == text)


def _areas(rows: Sequence[Row]) -> Iterator[tuple[str, str, str, float]]:
    """Yield method, target, metric and area under one cascade."""
    by_key: dict[tuple[str, str, str], list[float]] = {}
    for row in sorted(rows, key=lambda row: row.step):
        if row.method:
            by_key.setdefault((row.method, row.target, row.metric), []).append(row.value)
    for key, values in by_key.items():
        yield *key, area_under_cascade(values)
