"""What a training will do, found before any voxel is read."""

from __future__ import annotations

from dataclasses import dataclass

from monai.bundle import ConfigParser
from torch import nn

from voxplain.data import Cohort
from voxplain.errors import TrainingError
from voxplain.train.classes import Joining, join
from voxplain.train.crops import Order
from voxplain.train.memory import guess_bytes
from voxplain.train.networks import network_definition
from voxplain.train.recipe import Recipe
from voxplain.train.split import Division, divide


@dataclass(frozen=True)
class Plan:
    """What a training will do, before any voxel is read.

    Parameters
    ----------
    recipe, joining, channels, division
        Settings, classes, channels, cases.
    n_parameters
        Numbers that are learned.
    n_steps
        Optimiser steps of one process, in all.
    memory_bytes
        A guess of what one step needs, on the device that it runs on.
    """

    recipe: Recipe
    joining: Joining
    channels: tuple[str, ...]
    division: Division
    n_parameters: int
    n_steps: int
    memory_bytes: int


def plan(recipe: Recipe, cohort: Cohort, n_processes: int = 1) -> Plan:
    """Check that a recipe and a cohort fit each other.

    Raises
    ------
    TrainingError
        If they do not, or the network cannot take the crops.
    """
    joining = join(cohort, recipe.classes)
    division = divide(cohort, recipe.validation.share, recipe.seed)
    channels = cohort.channels or division.training[0].read_image().channels
    network = build_network(recipe, len(channels), len(joining.class_names))
    n_parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    n_crops = len(division.training), recipe.crop.per_case
    n_steps = len(Order(*n_crops, recipe.batch, recipe.seed, 0, n_processes))
    return Plan(
        recipe, joining, channels, division, n_parameters, recipe.epochs * n_steps,
        guess_bytes(network, recipe, len(channels)),
    )  # fmt: skip


def build_network(recipe: Recipe, n_channels: int, n_classes: int) -> nn.Module:
    """Build the network of a recipe, with new weights of torch's global generator.

    Raises
    ------
    TrainingError
        If the arguments do not fit.
    """
    definition = network_definition(
        recipe.network.name, recipe.network.arguments, n_channels, n_classes, recipe.crop.size
    )
    try:
        network = ConfigParser({"network": definition}).get_parsed_content("network")
    except Exception as error:
        cause = error.__cause__ or error
        raise TrainingError(
            f"network.arguments do not fit {definition['_target_']}: "
            f"{type(cause).__name__}: {' '.join(str(cause).split())}"
        ) from error
    assert isinstance(network, nn.Module)
    return network
