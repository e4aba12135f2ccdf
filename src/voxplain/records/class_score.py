"""What a classifier says of the whole image."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassScore:
    """Answer of a classifier for one class, on the clean image.

    Parameters
    ----------
    name
        Name of the class.
    logit
        Output of the network.
    probability
        0…1: softmax or sigmoid of the logits; None for a model without an activation.
    """

    name: str
    logit: float
    probability: float | None
