"""Every score of one case and one model: shared work first, then method by method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from voxplain.assess import fill_agreement as fills
from voxplain.assess import performance
from voxplain.assess.average_mask import AverageMask
from voxplain.assess.baseline_maps import baseline_map
from voxplain.assess.changed_images import (
    Change,
    Noise,
    Shift,
    all_changes,
    stability_passes,
)
from voxplain.assess.completeness import completeness_gaps
from voxplain.assess.curves import deletion_area, insertion_area
from voxplain.assess.effective_complexity import effective_complexity
from voxplain.assess.efficiency import efficiency, measured_maps
from voxplain.assess.energy_in_body import energy_in_body
from voxplain.assess.entropy import entropy, normalised_entropy
from voxplain.assess.faithfulness_correlation import AGG2EXP, faithfulness_correlation
from voxplain.assess.infidelity import infidelity, raw_infidelity
from voxplain.assess.leakage import FRACTION, leakage
from voxplain.assess.legacy_auprc import legacy_auprc
from voxplain.assess.legacy_map import legacy_map
from voxplain.assess.map_peak import map_peak
from voxplain.assess.method_words import named
from voxplain.assess.removal import Remover
from voxplain.assess.removal_curves import Curver, curve_passes
from voxplain.assess.removed import Removals
from voxplain.assess.road_fill import FRACTIONS as ROAD_FRACTIONS
from voxplain.assess.road_fill import road, road_curve, road_passes
from voxplain.assess.settings import AssessSettings
from voxplain.assess.sparseness import sparseness
from voxplain.assess.stability import stability
from voxplain.assess.subject import Mask, Subject, predicted_masks
from voxplain.assess.utility import utility_rows
from voxplain.attribution.maps import Maps, compute_maps
from voxplain.attribution.method import Method, Outcome
from voxplain.attribution.question import Question
from voxplain.attribution.scores import score_of
from voxplain.attribution.targets import ClassTarget, Target
from voxplain.errors import MethodError
from voxplain.inference.pipeline import Passes
from voxplain.records.assessment import BASELINE
from voxplain.records.metric import Measured
from voxplain.regions.tissue import body_mask
from voxplain.space.resample import resample_labels

Found = Iterator[tuple[int, str, Measured]]
"""Index of the target, metric, value."""

SHARED = "shared by all methods"
"""Ends the names of parts that serve every method and target."""


@dataclass(eq=False)
class CaseScores:
    """One case and model while it is scored.

    Parameters
    ----------
    question
        Bound targets.
    targets
        Their descriptions, in the same order.
    subject
        The image and what is known of it.
    settings
        What is measured.
    averages
        Mean masks of training cases, by target, for the baseline ``average_mask``.
    """

    question: Question
    targets: Sequence[Target]
    subject: Subject
    settings: AssessSettings
    averages: Mapping[str, AverageMask] = field(default_factory=dict)

    # -- shared by all methods ----------------------------------------------------------
    @cached_property
    def truths(self) -> list[Mask | None]:
        """True mask of each target."""
        return self.subject.truth(self.question, self.targets)

    @cached_property
    def predicted(self) -> list[Mask | None]:
        """Predicted mask of each target; None for classifiers."""
        return predicted_masks(self.question, self.targets)

    @cached_property
    def body(self) -> Mask | None:
        """Voxels of the body, on the model's grid; None where no air is around it."""
        tissue = body_mask(self.subject.image)
        if tissue is None:
            return None
        return resample_labels(tissue, self.question.pipeline.image.grid).mask("tissue")

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """Changed images that are explained again; as published: noise alone."""
        noise = Noise(self.settings.radius, self.settings.n_copies)
        if self.settings.preset == "agg2exp":
            return (noise,)
        return all_changes(self.question, noise, Shift(self.settings.shift))

    @cached_property
    def removers(self) -> dict[str, Remover]:
        """Random removals by their kind, planned."""
        kinds = self.settings.removals if self.settings.has("faithfulness") else ()
        is_agg2exp = self.settings.preset == "agg2exp"
        return {
            kind: Remover(
                self.question, kind, n_runs=self.settings.n_runs, fill=self.settings.fill,
                anew=self.targets if is_agg2exp and kind == "voxels" else None,
            )
            for kind in kinds
        }  # fmt: skip

    @cached_property
    def removals(self) -> dict[str, Removals]:
        """What they did to every target."""
        return {kind: remover.run() for kind, remover in self.removers.items()}

    @cached_property
    def curver(self) -> Curver:
        """Follows every method's maps, and remembers windows."""
        return Curver(self.question, self.settings.fill)

    @cached_property
    def fractions(self) -> tuple[float, ...]:
        """Steps of the curves, the one of leakage among them."""
        steps = np.linspace(0, 1, self.settings.n_steps + 1)
        return tuple(np.unique(np.append(steps, FRACTION).round(12)).tolist())

    # -- what it costs ------------------------------------------------------------------
    def passes(self, methods: Mapping[str, Method]) -> dict[str, Passes]:
        """Tell the passes of each part before they are run; for curves the most.

        Parameters
        ----------
        methods
            By their label.
        """
        question, settings = self.question, self.settings
        n_methods, n_maps = len(methods), len(methods) + len(self.baselines)
        found = {}
        for label, method in methods.items():
            with named(label, methods, question):
                found[f"maps: {label}"] = method.passes(question)
        for kind, remover in self.removers.items():
            found[f"faithfulness ({kind}), {SHARED}"] = remover.passes()
        if settings.has("curves"):
            found["curves"] = curve_passes(question, n_curves=2 * n_maps, fractions=self.fractions)
        if settings.has("road"):
            found["road"] = road_passes(question, n_methods=n_methods)
        if settings.has("stability"):
            for label, method in methods.items():
                found[f"stability: {label}"] = stability_passes(question, method, self.changes)
        if settings.has("fills"):
            for label, method in methods.items():
                with named(label, methods, question):
                    other = fills.with_other_fill(method, question)
                    if other is not None:
                        found[f"fills: {label}"] = other.passes(question)
        return found

    # -- scores -------------------------------------------------------------------------
    @property
    def baselines(self) -> list[str]:
        """Trivial maps that this model can have."""
        has_masks = all(mask is not None for mask in self.predicted)
        return [name for name in self.settings.baselines if name != "prediction" or has_masks]

    def of_model(self) -> Found:
        """How good the model is itself."""
        question = self.question
        for t, target in enumerate(self.targets):
            yield t, performance.MODEL_LOGIT.name, Measured(question.linear[t][0])
            truth, predicted = self.truths[t], self.predicted[t]
            if truth is not None and predicted is not None:
                yield t, performance.MODEL_DICE.name, performance.dice(predicted, truth)
            info = question.info
            is_named = isinstance(target, ClassTarget) and target.class_name is not None
            if not question.pipeline.is_dense and is_named and info.activation != "none":
                assert isinstance(target, ClassTarget)
                index = info.class_names.index(str(target.class_name))
                logits = question.prediction_logits.double().reshape(-1)
                odds = float(score_of(logits, index, "probability", info.activation))
                yield t, performance.MODEL_PROBABILITY.name, Measured(odds)

    def of_all(
        self, methods: Mapping[str, Method]
    ) -> Iterator[tuple[str, Maps, list[tuple[int, str, Measured]]]]:
        """Make and score the maps of every method and trivial map; yield label, maps, scores."""
        for label, method in methods.items():
            with named(label, methods, self.question):
                maps, found = self.of_method(method)
            yield label, maps, found
        for name in self.baselines:
            yield label_of(name), *self.of_baseline(name)

    def of_method(self, method: Method) -> tuple[Maps, list[tuple[int, str, Measured]]]:
        """Make a method's maps and score them."""
        maps, peak = measured_maps(self.question, method)
        found = list(self._of_maps(maps))
        settings, n = self.settings, len(self.targets)
        if settings.has("faithfulness"):
            found += [
                (t, "completeness_gap", one)
                for t, one in enumerate(completeness_gaps(self.question, maps))
            ]
        if settings.has("stability"):
            moved = stability(self.question, method, maps, self.changes)
            found += [(t, name, one) for t, row in enumerate(moved) for name, one in row.items()]
        if settings.has("fills"):
            other = fills.with_other_fill(method, self.question)
            if other is not None:
                agreement = fills.fill_agreement(maps, compute_maps(self.question, other))
                found += [(t, fills.METRIC.name, one) for t, one in enumerate(agreement)]
        if settings.has("road"):
            found += list(self._road(maps))
        if settings.has("efficiency"):
            cost = efficiency(maps, peak)
            found += [(t, name, one) for t in range(n) for name, one in cost.items()]
        return maps, found

    def of_baseline(self, name: str) -> tuple[Maps, list[tuple[int, str, Measured]]]:
        """Make a trivial map and score it as if it were a method's."""
        values = baseline_map(name, self.question, averages=self.averages)
        maps = Maps(values, "localisation", Outcome(settings={"trivial": True}), Passes(), 0.0)
        return maps, list(self._of_maps(maps))

    def _of_maps(self, maps: Maps) -> Found:
        settings = self.settings
        magnitude = maps.magnitude()
        for t, scores in enumerate(magnitude):
            yield t, "map_peak", map_peak(scores)
        if settings.has("complexity"):
            for t, scores in enumerate(magnitude):
                yield t, "effective_complexity", effective_complexity(scores)
                yield t, "sparseness", sparseness(scores)
                yield t, "entropy", entropy(scores)
                yield t, "normalised_entropy", normalised_entropy(scores)
        if settings.has("utility"):
            yield from self._utility(maps, magnitude)
        yield from self._faithfulness(maps)
        if settings.has("curves"):
            yield from self._curves(maps)

    def _utility(self, maps: Maps, magnitude: NDArray[np.float64]) -> Found:
        is_legacy = self.settings.preset == "arun2021"
        for t, scores in enumerate(magnitude):
            if self.body is not None:
                yield t, "energy_in_body", energy_in_body(scores, self.body)
            truth = self.truths[t]
            if truth is None:
                continue
            spacing = self.question.pipeline.image.grid.spacing
            for name, one in utility_rows(scores, truth, self.predicted[t], spacing):
                yield t, name, one
            if is_legacy:
                drawn = legacy_map(maps.values[t]) if self._is_clipped(maps) else scores
                yield (
                    t,
                    "legacy_auprc",
                    legacy_auprc(scores if np.isnan(drawn).any() else drawn, truth),
                )

    def _is_clipped(self, maps: Maps) -> bool:
        """Whether published scores are of the map clipped at its 99th percentile.

        Trivial maps and Guided Grad-CAM, a product of maps already clipped, are not.
        """
        return not (maps.outcome.settings.get("trivial") or "drawn" in maps.outcome.settings)

    def _faithfulness(self, maps: Maps) -> Found:
        for kind, removals in self.removals.items():
            word = kind.partition(":")[0]
            suffix = "" if word == "voxels" else f"_{word}"
            sums = removals.sums(maps)
            scaled = sums
            if maps.kind == "sensitivity":
                scaled = removals.sums(maps, times_change=True)
            for t in range(len(self.targets)):
                drops, least = removals.drops[:, t], removals.least(t)
                found = faithfulness_correlation(sums[:, t], drops, least)
                yield t, f"faithfulness_correlation{suffix}", found
                yield t, f"infidelity{suffix}", infidelity(scaled[:, t], drops, least)
                if maps.kind == "contribution":
                    yield t, f"infidelity_raw{suffix}", raw_infidelity(sums[:, t], drops)
                if removals.anew is not None:
                    anew = faithfulness_correlation(sums[:, t], removals.anew[:, t], least)
                    yield t, AGG2EXP.name, anew

    def _curves(self, maps: Maps) -> Found:
        deletion = self.curver.curves(maps, fractions=self.fractions)
        insertion = self.curver.curves(maps, fractions=self.fractions, mode="insertion")
        for t in range(len(self.targets)):
            yield t, "deletion_area", deletion_area(deletion, t)
            yield t, "insertion_area", insertion_area(insertion, t)
            yield t, "leakage", leakage(deletion, t)

    def _road(self, maps: Maps) -> Found:
        most = road_curve(self.curver, maps, fractions=ROAD_FRACTIONS)
        least = road_curve(self.curver, maps, fractions=ROAD_FRACTIONS, order="least")
        for t in range(len(self.targets)):
            yield t, "road", road(most, least, t)


def label_of(name: str) -> str:
    """Label of a trivial map in the tables."""
    return f"{BASELINE}{name}"


def check_labels(methods: Mapping[str, Method]) -> None:
    """Refuse labels that are those of trivial maps.

    Raises
    ------
    MethodError
        If there are some, or no method at all.
    """
    if not methods:
        raise MethodError("no method was asked for; give e.g. --methods gradient,smoothgrad")
    for label in methods:
        if label.startswith(BASELINE):
            raise MethodError(f"method {label!r}: names that begin with {BASELINE} are taken")
