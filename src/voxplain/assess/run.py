"""`assess`: models × cases × methods, part by part, into one table and its verdicts."""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from voxplain.assess.average_mask import AverageMask
from voxplain.assess.baseline_maps import baseline_map
from voxplain.assess.cascade import CascadeSettings, Row, Source, area_under_cascade, run_cascade
from voxplain.assess.case_scores import CaseScores, check_labels, label_of
from voxplain.assess.checks import checks_of
from voxplain.assess.metrics import area_of, metrics_of
from voxplain.assess.pairs import KeptMaps, architecture, model_pairs, on_shape, random_pairs
from voxplain.assess.parts import Part, Parts
from voxplain.assess.performance import PREDICTION_AGREEMENT, dice
from voxplain.assess.pictures import Plane, picture, picture_row, plane_through
from voxplain.assess.random_entropy import Smoothed
from voxplain.assess.settings import AssessSettings, Order
from voxplain.assess.similarity import similarities
from voxplain.assess.subject import Subject
from voxplain.attribution.ask import ask
from voxplain.attribution.maps import Maps
from voxplain.attribution.method import Method, Outcome, settings_of
from voxplain.attribution.parse import targets_of
from voxplain.attribution.question import Question
from voxplain.attribution.targets import Target
from voxplain.inference.compute import Compute, peak_memory_bytes
from voxplain.inference.pipeline import Passes, open_pipeline
from voxplain.models.model import Model
from voxplain.records.assessment import (
    ORIGINAL,
    PICTURES,
    RANDOM_PAIRS,
    SCORES,
    STAGES,
    Assessment,
    frame_of,
)
from voxplain.records.metric import Measured
from voxplain.records.provenance import Cost, Provenance
from voxplain.study.score_comparison import comparisons_of
from voxplain.study.score_summary import summary_of

Progress = Callable[[int, int], None]
Floats = NDArray[np.floating[Any]]

_EDGES = label_of("edges")


@dataclass(frozen=True)
class ListedCase:
    """A case by name; its files are read when it is its turn.

    Parameters
    ----------
    name, patient
        As in tables.
    read
        Gives the image and what is known of it.
    """

    name: str
    patient: str
    read: Callable[[], Subject]


@dataclass(frozen=True, eq=False)
class Assess:
    """Everything that decides an assessment.

    Parameters
    ----------
    models
        By their label.
    cases
        In order.
    methods
        By their label.
    targets
        Texts or targets, see `voxplain.attribution.parse`; the same for every model.
    settings
        What is measured.
    seed, compute
        See `voxplain.attribution.explain`.
    averages
        Mean training masks by target, for the baseline ``average_mask``.

    Raises
    ------
    MethodError
        If there is no method, or a label is taken.
    """

    models: Mapping[str, Model]
    cases: Sequence[ListedCase]
    methods: Mapping[str, Method]
    targets: Sequence[str | Target]
    settings: AssessSettings
    seed: int = 0
    compute: Compute = field(default_factory=Compute)
    averages: Mapping[str, AverageMask] | None = None

    def __post_init__(self) -> None:
        check_labels(self.methods)

    # -- what it will cost ----------------------------------------------------------------
    def estimate(self) -> dict[str, dict[str, Passes]]:
        """Tell the passes of each part of the first case, by model.

        Notes
        -----
        Predicts the first case with every model. Cascades: the maps once for each random network.
        """
        found = {}
        subject = self.cases[0].read()
        for label, model in self.models.items():
            with self._open(model, subject) as scores:
                parts = {"prediction": Passes(scores.question.pipeline.n_passes)}
                parts |= scores.passes(self.methods)
                if self.settings.has("randomisation"):
                    settings = self.settings
                    n = settings.n_stages * settings.n_randomisations * len(settings.orders)
                    n *= settings.n_smooth
                    for name, one in self.methods.items():
                        once = one.passes(scores.question)
                        parts[f"randomisation: {name}"] = Passes(
                            (n + 1) * once.n_forward, (n + 1) * once.n_backward
                        )
                found[label] = parts
        return found

    # -- the run ----------------------------------------------------------------------------
    def run(self, unfinished: Path, progress: Progress | None = None) -> Assessment:
        """Measure everything that is not measured yet, and conclude.

        Parameters
        ----------
        unfinished
            Folder for finished parts; the caller removes it when the result is safe.
        progress
            Called with passes done and in all, as far as known.

        Returns
        -------
        Assessment
            The same whether it was stopped in between or not, but for seconds and memory.

        Raises
        ------
        VoxplainError
            If models, cases, targets or methods do not fit each other, or `unfinished` holds
            another run.
        """
        start = time.perf_counter()
        parts = Parts(unfinished, self._plan())
        keys = self._keys()
        meter = _Meter(progress, len(keys))
        now: tuple[str, Subject] | None = None
        for key in keys:
            if parts.has(key):
                meter.skip()
                continue
            if key[0] == "random pairs":
                parts.write(key, self._random_pairs(key, parts))
            elif key[0] == "models":
                parts.write(key, self._model_pairs(key, parts))
            else:
                if now is None or now[0] != key[2]:
                    now = (key[2], self._case(key[2]).read())
                make = self._scores if key[0] == "scores" else self._cascade
                parts.write(key, make(key, now[1], meter))
            meter.finish()
        return self._conclude(parts, keys, time.perf_counter() - start)

    def _keys(self) -> list[tuple[str, ...]]:
        settings = self.settings
        keys: list[tuple[str, ...]] = []
        for case in self.cases:
            for label in self.models:
                keys.append(("scores", label, case.name))
                if settings.has("randomisation"):
                    keys += [
                        ("cascade", label, case.name, order, str(self.seed + k))
                        for order in settings.orders
                        for k in range(settings.n_randomisations)
                    ]
            if settings.has("agreement") and len(self.models) > 1:
                keys.append(("models", "", case.name))
        if self._needs_kept:
            keys += [("random pairs", label) for label in self.models]
        return keys

    @property
    def _needs_kept(self) -> bool:
        """Whether maps of different cases are compared."""
        has_rival = self.settings.has("randomisation") or self.settings.has("agreement")
        return has_rival and len(self.cases) > 1

    def _plan(self) -> dict[str, Any]:
        return {
            "models": {label: model.info.sha256 for label, model in self.models.items()},
            "cases": [case.name for case in self.cases],
            "methods": {
                label: {"method": one.name, **settings_of(one)}
                for label, one in self.methods.items()
            },
            "targets": [str(target) for target in self.targets],
            "settings": self.settings.to_dict(),
            "seed": self.seed,
            "compute": self.compute.to_dict(),
        }

    def _case(self, name: str) -> ListedCase:
        return next(case for case in self.cases if case.name == name)

    def _open(self, model: Model, subject: Subject) -> _Opened:
        return _Opened(self, model, subject)

    # -- parts ------------------------------------------------------------------------------
    def _scores(self, key: Sequence[str], subject: Subject, meter: _Meter) -> Part:
        label, start = key[1], time.perf_counter()
        rows: list[dict[str, Any]] = []
        book = _Pictures({"case": key[2], "model": label})
        kept: dict[str, Any] = {}
        with self._open(self.models[label], subject) as scores:
            question = scores.question
            names = [target.name for target in question.targets]
            shown = self._is_shown(key[2])
            meter.start(question, scores.passes(self.methods))

            def note(method: str, found: Sequence[tuple[int, str, Measured]]) -> None:
                rows.extend(
                    self._row(key, method, names[t], metric, one) for t, metric, one in found
                )

            def keep(method: str, maps: Maps) -> None:
                magnitude = maps.magnitude().astype(np.float32)
                if method in self.methods:
                    kept[method] = magnitude
                for t, values in enumerate(magnitude):
                    if shown:
                        book.add(scores, t, ORIGINAL, self.seed, method, values)

            note("", list(scores.of_model()))
            if shown:
                book.add_image(scores)
            for name, method in self.methods.items():
                maps, found = scores.of_method(method)
                note(name, found)
                keep(name, maps)
            for name in scores.baselines:
                maps, found = scores.of_baseline(name)
                note(label_of(name), found)
                keep(label_of(name), maps)
            arrays: dict[str, NDArray[Any]] = dict(book.planes)
            if self._needs_kept or len(self.models) > 1:
                grid = question.pipeline.image.grid
                arrays |= KeptMaps(kept, grid).to_arrays()
                arrays |= {
                    f"mask:{t}": mask for t, mask in enumerate(scores.predicted) if mask is not None
                }
            facts = {
                "image_sha256": subject.image.sha256(),
                "targets": names,
                "chosen": None
                if question.pipeline.is_dense
                else int(question.prediction_logits.reshape(-1).argmax()),
            }
            return Part(
                rows, pictures=book.rows, arrays=arrays, facts=facts, cost=_cost(question, start)
            )

    def _cascade(self, key: Sequence[str], subject: Subject, meter: _Meter) -> Part:
        _, label, case, order, seed = key
        settings, start = self.settings, time.perf_counter()
        sources: dict[str, Source] = {
            name: Smoothed(one, settings.n_smooth) if settings.n_smooth > 1 else one
            for name, one in self.methods.items()
        }
        if "edges" in settings.baselines:
            sources[_EDGES] = _edges
        is_shown = self._is_shown(case) and int(seed) == self.seed
        book = _Pictures({"case": key[2], "model": label})
        model = self.models[label]
        planes: list[Plane] = []
        names: list[str] = []
        if is_shown:
            with self._open(model, subject) as scores:
                planes = [book.plane(scores, t) for t in range(len(scores.targets))]
                names = [target.name for target in scores.question.targets]

        def show(stage: str, random_seed: int, method: str, maps: Floats) -> None:
            for t, values in enumerate(maps if is_shown and not stage.endswith(":0") else ()):
                book.put(planes[t], names[t], stage, random_seed, method, values)

        rows, plans = run_cascade(
            model, subject.image, targets_of(list(self.targets), model.answers), sources,
            similarities(settings.preset),
            CascadeSettings(
                (_order(order),), settings.n_stages, (int(seed),),
                is_fixed=settings.preset != "arun2021",
            ),
            regions=None, seed=self.seed, compute=self.compute, progress=meter.inner,
            picture=show,
        )  # fmt: skip
        found = [
            self._row(key, one.method, one.target, one.metric,
                      Measured(one.value, one.flags), stage=one.stage, seed=one.seed)
            for one in rows
        ]  # fmt: skip
        found += [
            self._row(key, method, target, area_of(metric), Measured(area),
                      stage=order, seed=int(seed))
            for method, target, metric, area in _areas(rows)
        ]  # fmt: skip
        stages = [
            {"model": label, "order": order, "number": step.number,
             "layers": "; ".join(step.layers), "n_parameters": step.n_parameters}
            for steps in plans.values() for step in steps
        ]  # fmt: skip
        return Part(
            found, stages, book.rows, arrays=book.planes,
            cost=Cost(seconds=time.perf_counter() - start,
                      peak_memory_bytes=peak_memory_bytes(self.compute.torch_device())),
        )  # fmt: skip

    def _model_pairs(self, key: Sequence[str], parts: Parts) -> Part:
        case, start = self._case(key[2]), time.perf_counter()
        arrays = {label: parts.arrays(("scores", label, case.name)) for label in self.models}
        facts = {label: parts.read(("scores", label, case.name)).facts for label in self.models}
        names = next(iter(facts.values()))["targets"]
        kept = {label: KeptMaps.from_arrays(one) for label, one in arrays.items()}
        kinds = {label: architecture(model) for label, model in self.models.items()}
        rows, agreed = [], set()
        for stage, first, second, method, t, metric, one in model_pairs(
            kept, kinds, similarities(self.settings.preset)
        ):
            line = partial(self._line, case, first, stage=stage, against=second)
            rows.append(line(method, names[t], metric, one))
            if (first, second, t) in agreed:
                continue
            agreed.add((first, second, t))
            same = Measured(float(facts[first]["chosen"] == facts[second]["chosen"]))
            masks = [arrays[label].get(f"mask:{t}") for label in (first, second)]
            if masks[0] is not None and masks[1] is not None:
                same = Measured(np.nan)
                if masks[0].shape == masks[1].shape:
                    same = dice(masks[0], masks[1])
            name = PREDICTION_AGREEMENT.name
            rows.append(line("", names[t], name, same))
        return Part(rows, cost=Cost(seconds=time.perf_counter() - start))

    def _random_pairs(self, key: Sequence[str], parts: Parts) -> Part:
        label, start = key[1], time.perf_counter()
        names = [case.name for case in self.cases]
        rng = np.random.default_rng([self.seed, zlib.crc32(b"random pairs")])
        rows = []
        pairs = random_pairs(
            names, [case.patient for case in self.cases], self.settings.n_pairs, rng
        )
        same = similarities(self.settings.preset)
        for first, second in pairs:
            a, b = (
                KeptMaps.from_arrays(parts.arrays(("scores", label, name)))
                for name in (first, second)
            )
            targets = parts.read(("scores", label, first)).facts["targets"]
            line = partial(self._line, self._case(first), label, stage=RANDOM_PAIRS, against=second)
            for method, scores in a.scores.items():
                for t, values in enumerate(scores):
                    other = on_shape(b.scores[method][t], values.shape)
                    for metric, function in same.items():
                        rows.append(line(method, targets[t], metric, function(values, other)))
        return Part(rows, cost=Cost(seconds=time.perf_counter() - start))

    # -- rows -------------------------------------------------------------------------------
    def _row(
        self, key: Sequence[str], method: str, target: str, metric: str,
        one: Measured, *, stage: str = ORIGINAL, seed: int | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        case = self._case(key[2])
        return self._line(case, key[1], method, target, metric, one, stage=stage, seed=seed)

    def _line(
        self, case: ListedCase, model: str, method: str, target: str, metric: str, one: Measured,
        *, stage: str, seed: int | None = None, against: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        return {
            "case": case.name, "patient": case.patient, "model": model,
            "seed": self.seed if seed is None else seed, "stage": stage, "method": method,
            "target": target, "metric": metric, "value": float(one.value),
            "flags": "; ".join(one.flags), "against": against,
        }  # fmt: skip

    def _is_shown(self, case: str) -> bool:
        return case in [one.name for one in self.cases[: self.settings.n_pictures]]

    # -- the end ----------------------------------------------------------------------------
    def _conclude(
        self, parts: Parts, keys: Sequence[tuple[str, ...]], seconds: float
    ) -> Assessment:
        found = {key: parts.read(key) for key in keys}
        scores = frame_of([row for part in found.values() for row in part.scores], SCORES)
        scores["value"] = scores["value"].astype(float)
        stages = frame_of([row for part in found.values() for row in part.stages], STAGES)
        metrics = metrics_of(scores["metric"].unique())
        summary = summary_of(scores, seed=self.seed)
        comparisons = comparisons_of(scores, metrics, seed=self.seed)
        planes = {
            name: pixels
            for key, part in found.items()
            if part.pictures
            for name, pixels in parts.arrays(key).items()
            if name.startswith("plane:")
        }
        pictures = frame_of([row for part in found.values() for row in part.pictures], PICTURES)
        images = {
            key[2]: part.facts["image_sha256"] for key, part in found.items() if key[0] == "scores"
        }
        costs = [part.cost for part in found.values()]
        weights = "".join(model.info.sha256 for model in self.models.values())
        return Assessment(
            scores=scores,
            summary=summary,
            comparisons=comparisons,
            stages=stages.drop_duplicates(ignore_index=True),
            pictures=pictures.drop_duplicates(ignore_index=True),
            metrics=metrics,
            findings=checks_of(scores, summary, comparisons, metrics, seed=self.seed),
            planes=planes,
            provenance=Provenance(
                model="; ".join(self.models),
                model_sha256=hashlib.sha256(weights.encode()).hexdigest(),
                case=f"{len(self.cases)} cases",
                image_sha256=hashlib.sha256("".join(images.values()).encode()).hexdigest(),
                method="; ".join(self.methods),
                parameters={**self._plan(), "images": images, "seconds_of_last_run": seconds},
                seed=self.seed,
                cost=Cost(
                    sum(cost.n_forward for cost in costs),
                    sum(cost.n_backward for cost in costs),
                    sum(cost.seconds for cost in costs),
                    max(cost.peak_memory_bytes for cost in costs),
                ),
                created=datetime.now(UTC).isoformat(timespec="seconds"),
            ),
        )


class _Opened:
    """A case and model, open for scores inside a ``with`` block."""

    def __init__(self, asked: Assess, model: Model, subject: Subject) -> None:
        self._asked, self._model, self._subject = asked, model, subject
        self._pipeline = open_pipeline(model, subject.image, asked.compute)

    def __enter__(self) -> CaseScores:
        asked, image = self._asked, self._subject.image
        pipeline = self._pipeline.__enter__()
        targets = targets_of(list(asked.targets), self._model.answers)
        question = ask(pipeline, image, targets, None, asked.seed)
        return CaseScores(question, targets, self._subject, asked.settings, asked.averages or {})

    def __exit__(self, *fault: Any) -> None:
        self._pipeline.__exit__(*fault)


class _Pictures:
    """Planes of one case and model."""

    def __init__(self, key: Mapping[str, Any]) -> None:
        self._key = key
        self.rows: list[dict[str, Any]] = []
        self.planes: dict[str, NDArray[np.uint8]] = {}

    def plane(self, scores: CaseScores, t: int) -> Plane:
        """Plane in which a target is shown: through the truth, else what is predicted."""
        mask = scores.truths[t]
        if mask is None or not mask.any():
            mask = scores.predicted[t]
        return plane_through(
            scores.body if mask is None else mask, scores.question.pipeline.image.grid
        )

    def add_image(self, scores: CaseScores) -> None:
        """Show the image, and true masks, in the plane of each target."""
        for t, target in enumerate(scores.question.targets):
            plane = self.plane(scores, t)
            image = scores.question.pipeline.image.data[0]
            self.put(plane, target.name, "image", 0, "", image, low=None)
            for stage, mask in (("truth", scores.truths[t]), ("prediction", scores.predicted[t])):
                if mask is not None:
                    self.put(plane, target.name, stage, 0, "", mask.astype(np.float32))

    def add(
        self, scores: CaseScores, t: int, stage: str, seed: int, method: str, values: Floats
    ) -> None:
        """Show one map of magnitudes."""
        name = scores.question.targets[t].name
        self.put(self.plane(scores, t), name, stage, seed, method, values)

    def put(
        self, plane: Plane, target: str, stage: str, seed: int, method: str, values: Floats,
        *, low: float | None = 0.0,
    ) -> None:  # fmt: skip
        """Keep a plane."""
        pixels, start, stop = picture(plane, values, low)
        key = {**self._key, "seed": seed, "stage": stage, "method": method, "target": target}
        digest = hashlib.sha256(repr(sorted(key.items())).encode()).hexdigest()[:20]
        self.planes[f"plane:{digest}"] = pixels
        self.rows.append(picture_row(key, plane, f"plane:{digest}", start, stop))


class _Meter:
    """Passes of all parts for one progress bar; parts to come are taken to cost as the last."""

    def __init__(self, progress: Progress | None, n_parts: int) -> None:
        self._progress, self._left = progress, n_parts
        self._before, self._now, self._total = 0, 0, 0

    def skip(self) -> None:
        """Leave out a part that is finished."""
        self._left -= 1

    def start(self, question: Question, passes: Mapping[str, Passes]) -> None:
        """Follow a part whose cost is known."""
        pipeline = question.pipeline
        total = pipeline.passes.total + sum(one.total for one in passes.values())

        def report(_: int) -> None:
            self.inner(pipeline.passes.total, total)

        pipeline.on_pass = report

    def inner(self, done: int, total: int) -> None:
        """Report passes done and in all of this part."""
        self._now, self._total = done, max(total, done)
        if self._progress is not None:
            end = self._before + self._total * max(self._left, 1)
            self._progress(self._before + done, end)

    def finish(self) -> None:
        """End a part."""
        self._left -= 1
        self._before += self._now
        self._now = 0


def _cost(question: Question, start: float) -> Cost:
    pipeline = question.pipeline
    return Cost(
        pipeline.passes.n_forward, pipeline.passes.n_backward, time.perf_counter() - start,
        peak_memory_bytes(pipeline.device),
    )  # fmt: skip


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
