"""What an assessment will cost, told before it runs."""

from __future__ import annotations

import time
from dataclasses import dataclass

from voxplain.assess.asked import Asked
from voxplain.assess.cascade import Source, cascade_passes, plan
from voxplain.assess.method_words import named
from voxplain.assess.random_entropy import Smoothed
from voxplain.assess.randomised import weight_layers
from voxplain.assess.subject import Subject
from voxplain.inference.pipeline import Passes, open_pipeline
from voxplain.models.model import Model

PICTURES = "randomisation: where pictures are cut"
"""Part that only the cases with pictures have."""

_BACKWARD = 2
"""A backward pass takes about so many forward ones."""


@dataclass(frozen=True)
class Price:
    """Passes of one model.

    Parameters
    ----------
    parts
        Of the first case, by part; of curves and adaptive methods the most that they can take.
    forward_seconds
        Of one window's forward pass, as the prediction of the first case took.
    """

    parts: dict[str, Passes]
    forward_seconds: float

    def passes(self, n_cases: int, n_pictures: int) -> Passes:
        """Add up the passes of so many cases like the first, of which some have pictures."""
        total = Passes()
        for name, one in self.parts.items():
            n = min(n_cases, n_pictures) if name == PICTURES else n_cases
            total.n_forward += n * one.n_forward
            total.n_backward += n * one.n_backward
        return total

    def seconds(self, passes: Passes) -> float:
        """Take a backward pass for two forward ones."""
        return self.forward_seconds * (passes.n_forward + _BACKWARD * passes.n_backward)


def prices_of(asked: Asked) -> dict[str, Price]:
    """Tell the passes of each part of the first case, by model.

    Notes
    -----
    Predicts the first case with every model; with randomisation one pass more, to see the layers.
    """
    subject = asked.cases[0].read()
    return {label: _price(asked, model, subject) for label, model in asked.models.items()}


def _price(asked: Asked, model: Model, subject: Subject) -> Price:
    settings, n_networks = asked.settings, []
    if settings.has("randomisation"):
        layers = weight_layers(model, subject.image, asked.compute)
        n_networks = [
            len(plan(layers, settings.n_stages, order)) - 1
            for order in settings.orders for _ in range(settings.n_randomisations)
        ]  # fmt: skip
    with open_pipeline(model, subject.image, asked.compute) as pipeline:
        start = time.perf_counter()
        scores = asked.scores_on(pipeline, model, subject)
        question = scores.question
        _ = scores.truths, scores.predicted
        is_predicted = question.has_prediction
        _ = question.prediction_logits
        seconds = (time.perf_counter() - start) / max(pipeline.passes.n_forward, 1)
        parts = {"prediction": Passes(pipeline.n_passes)}
        parts |= scores.passes(asked.methods)
        if asked.has_smooth:
            for label, method in asked.methods.items():
                with named(label, asked.methods, question):
                    parts[f"smooth maps: {label}"] = Smoothed(method, settings.n_smooth).passes(
                        question
                    )
        if n_networks:
            n_all = sum(n_networks) + len(n_networks)
            parts["randomisation: predictions"] = Passes(n_all * pipeline.n_passes)
            for label, method in asked.methods.items():
                source: Source = method
                if settings.n_smooth > 1:
                    source = Smoothed(method, settings.n_smooth)
                found = Passes()
                for n in n_networks:
                    one = cascade_passes(question, {label: source}, n)
                    found.n_forward += one.n_forward - (1 + n) * pipeline.n_passes
                    found.n_backward += one.n_backward
                parts[f"randomisation: {label}"] = found
            if settings.n_pictures and is_predicted:
                n_orders = len(settings.orders)
                parts[PICTURES] = Passes(n_orders * pipeline.n_passes)
        return Price(parts, seconds)
