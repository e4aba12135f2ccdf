"""The classifier that a generator must turn: one logit of one picture in [−1, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from voxplain.errors import ModelError, TrainingError
from voxplain.models.card_model import wrap
from voxplain.models.model import Model

ABNORMAL = "abnormal"
_BATCH = 64


class Window(Protocol):
    """What of a preparation a classifier must know: `Preparation` has it."""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""

    @property
    def low(self) -> float:
        """Intensity that −1 stands for."""

    @property
    def high(self) -> float:
        """Intensity that 1 stands for."""


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


def picture_logits(
    network: nn.Module, images: NDArray[Any], batch: int = _BATCH
) -> NDArray[np.float64]:
    """Logits of abnormal, (n,), without gradients.

    Parameters
    ----------
    network
        Gives (batch, 1); its mode is not changed.
    images
        (n, 1, rows, columns) in [−1, 1].
    batch
        Pictures in one pass.
    """
    weight = next(network.parameters())
    found = []
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            part = torch.from_numpy(np.array(images[start : start + batch]))
            found.append(network(part.to(weight.device, weight.dtype))[:, 0].double().cpu())
    return torch.cat(found).numpy() if found else np.zeros(0)


def auroc(logits: NDArray[Any], labels: NDArray[Any], part: str) -> float:
    """Area under the ROC curve of logits.

    Raises
    ------
    TrainingError
        If one class is missing or a logit is not a number.
    """
    from sklearn.metrics import roc_auc_score  # half a second, and only this needs it

    check_both_classes(labels, part)
    if not np.isfinite(logits).all():
        raise TrainingError(
            f"{int((~np.isfinite(logits)).sum())} of {len(logits)} {part} slices have a logit "
            "that is not a number: the network overflows or its weights are broken; try amp=off "
            "or a tenth of classifier.learning_rate"
        )
    return float(roc_auc_score(labels, logits))


def check_both_classes(labels: NDArray[Any], part: str) -> None:
    """Raise TrainingError if slices of one class are missing."""
    n_abnormal = int(np.count_nonzero(labels))
    n_normal = len(labels) - n_abnormal
    if n_normal and n_abnormal:
        return
    missing = "abnormal" if n_normal else "normal" if n_abnormal else "normal and abnormal"
    raise TrainingError(
        f"the {part} part has {n_normal} normal and {n_abnormal} abnormal slices; {missing} ones "
        "are needed too. Name other cases for it (column split of the data), take a larger "
        "share (data.split), or check data.abnormal and data.organ"
    )
