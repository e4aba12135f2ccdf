"""One interface to every model family, and the models that a card describes."""

from voxplain.models.card_model import CardModel, load_model, wrap
from voxplain.models.model import Activation, Model, ModelInfo, OutputKind

__all__ = [
    "Activation",
    "CardModel",
    "Model",
    "ModelInfo",
    "OutputKind",
    "load_model",
    "wrap",
]
