"""One interface to every model family, and the models that a card describes."""

from voxplain.models.card_model import CardModel, wrap
from voxplain.models.load import load_model
from voxplain.models.model import Activation, Model, ModelInfo, OutputKind
from voxplain.models.parts import Parts

__all__ = [
    "Activation",
    "CardModel",
    "Model",
    "ModelInfo",
    "OutputKind",
    "Parts",
    "load_model",
    "wrap",
]
