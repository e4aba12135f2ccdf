"""The classifier that a generator must turn: one logit of one picture in [−1, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from voxplain.errors import ModelError
from voxplain.models.card_model import wrap
from voxplain.models.model import Model

ABNORMAL = "abnormal"


class AbnormalLogit(nn.Module):
    """Maps pictures in [−1, 1] to the logit of abnormal, (batch, 1).

    z = ℓ_c for a network whose classes stand alone (sigmoid, or one class), else the margin
    ℓ_c − log Σ_{k≠c} exp ℓ_k, the log-odds of class c under softmax.

    Parameters
    ----------
    module
        Takes prepared pictures, returns (batch, classes).
    index
        c.
    is_exclusive
        Whether classes exclude each other.
    scale, shift
        Prepared intensities are scale·x + shift.
    """

    def __init__(
        self, module: nn.Module, index: int, is_exclusive: bool, scale: float, shift: float
    ) -> None:
        super().__init__()
        self.module = module
        self.index, self.is_exclusive = index, is_exclusive
        self.scale, self.shift = scale, shift

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logit of abnormal."""
        prepared = images if self.is_plain else self.scale * images + self.shift
        logits = self.module(prepared)
        own = logits[:, self.index : self.index + 1]
        if not self.is_exclusive:
            return torch.as_tensor(own)
        others = [i for i in range(logits.shape[1]) if i != self.index]
        return torch.as_tensor(own - torch.logsumexp(logits[:, others], 1, keepdim=True))

    @property
    def is_plain(self) -> bool:
        """Whether the network takes [−1, 1] itself."""
        return self.scale == 1.0 and self.shift == 0.0


@dataclass(frozen=True, eq=False)
class Classifier:
    """A frozen classifier of normal and abnormal pictures.

    Parameters
    ----------
    network
        In evaluation mode, without gradients of weights.
    name
        In tables.
    sha256
        Hash of its weights.
    """

    network: AbnormalLogit
    name: str
    sha256: str

    def logit(self, images: torch.Tensor) -> torch.Tensor:
        """Logit of abnormal, (batch,), of (batch, 1, rows, columns) in [−1, 1]."""
        return torch.as_tensor(self.network(images)[:, 0])

    def probability(self, images: torch.Tensor) -> torch.Tensor:
        """Probability of abnormal, (batch,)."""
        return self.logit(images).sigmoid()

    def to(self, device: torch.device) -> Classifier:
        """Move the network, in place, and return this."""
        self.network.to(device)
        return self

    def as_model(self, size: tuple[int, int]) -> Model:
        """Return a model of the one class ``abnormal`` over pictures in [−1, 1], to explain."""
        return wrap(
            self.network, classes=[ABNORMAL], channels=["picture"], kind="classification",
            activation="sigmoid", rank=2, size=size, name=self.name,
        )  # fmt: skip


def classifier_of(model: Model, abnormal_class: str | None, low: float, high: float) -> Classifier:
    """Take a model for the classifier of a run.

    Parameters
    ----------
    model
        2D, of one channel, kind classification.
    abnormal_class
        Name of the abnormal class; None: the only one, or the second of two.
    low, high
        Prepared intensities that −1 and 1 stand for.

    Raises
    ------
    ModelError
        If the model is of another kind, or the class is not there or not to be guessed.
    """
    info = model.info
    if info.kind != "classification" or info.rank != 2 or len(info.channel_names) != 1:
        raise ModelError(
            f"{info.name}: expected a 2D classifier of one channel, got {info.kind} in "
            f"{info.rank}D with {len(info.channel_names)} channels"
        )
    names = info.class_names
    if abnormal_class is None and len(names) > 2:
        raise ModelError(
            f"{info.name}: which of {', '.join(names)} is abnormal? Say classifier.abnormal_class"
        )
    wanted = names[-1] if abnormal_class is None else abnormal_class
    if wanted not in names:
        raise ModelError(f"{info.name}: no class {wanted!r} among {', '.join(names)}")
    module = model.module
    module.eval().requires_grad_(False)
    scale, shift = (high - low) / 2, (high + low) / 2
    network = AbnormalLogit(
        module, names.index(wanted), info.is_exclusive and len(names) > 1, scale, shift
    )
    return Classifier(network.eval(), info.name, info.sha256)
