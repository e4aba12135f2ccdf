"""Train the demo's lesion network: ``python -m voxplain.demo.brain_train --out DIR``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from monai.losses import DiceLoss
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from safetensors.torch import save_file

from voxplain.demo.brain import CHANNELS, brain_model_path, brain_patient, brain_truth
from voxplain.demo.train import dice, predict
from voxplain.errors import ModelError
from voxplain.models import Model, wrap
from voxplain.models.card import Card
from voxplain.models.card_file import CARD, read_card
from voxplain.models.card_model import load_card
from voxplain.models.network import build_network
from voxplain.regions.instances import instances
from voxplain.space.grid import Grid

TRAINING_SEEDS = range(100, 132)
UNSEEN_SEEDS = range(900, 912)  # of the reported numbers; choose a recipe on others, 800 to 899
MIN_VOXELS = 3
_FAST = torch.channels_last_3d
Case = tuple[NDArray[np.float32], NDArray[np.uint8]]


@dataclass(frozen=True)
class BrainRecipe:
    """Settings of the training.

    Parameters
    ----------
    steps
        Number of optimiser steps.
    batch
        Windows a step.
    learning_rate
        Highest rate of the one-cycle schedule.
    lesion_share
        Share of windows that hold a voxel of a lesion near their middle; the others lie anywhere.
    lesion_weight
        Weight of the lesions' class in the cross entropy; that of the background is 1.
    seed
        Seed of the first weights and of the windows.
    """

    steps: int = 650
    batch: int = 2
    learning_rate: float = 4e-3
    lesion_share: float = 0.6
    lesion_weight: float = 6.0
    seed: int = 0


def train(
    out: Path,
    recipe: BrainRecipe | None = None,
    seeds: Sequence[int] = TRAINING_SEEDS,
    *,
    channels_with_lesions: Sequence[str] = CHANNELS,
) -> None:
    """Train the network of the shipped card and write card and weights.

    Parameters
    ----------
    out
        Folder for ``model.yaml`` and ``weights.safetensors``; made if missing.
    recipe
        Settings; default those of the shipped weights.
    seeds
        Patients to learn from.
    channels_with_lesions
        Channels in which the patients' lesions show.
    """
    settings = BrainRecipe() if recipe is None else recipe
    card = read_card(brain_model_path() / CARD)
    torch.manual_seed(settings.seed)
    network = build_network(card.network.target, card.network.arguments, brain_model_path())
    model = _described(card, network)
    cases = [_case(model, seed, channels_with_lesions) for seed in track(seeds, "patients")]
    # windows without lesions must not pull the Dice to 0: a smooth term of one voxel
    dice_loss = DiceLoss(
        softmax=True, to_onehot_y=True, include_background=False, batch=True,
        smooth_nr=1.0, smooth_dr=1.0,
    )  # fmt: skip
    cross_entropy = torch.nn.CrossEntropyLoss(torch.tensor([1.0, settings.lesion_weight]))
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.2
    )
    rng = np.random.default_rng(settings.seed)
    network.train().to(memory_format=_FAST)  # type: ignore[call-overload]
    for _ in track(range(settings.steps), "training"):
        images, labels = _batch(rng, cases, card, settings)
        optimiser.zero_grad(set_to_none=True)
        logits = network(images)
        loss = dice_loss(logits, labels) + cross_entropy(logits, labels[:, 0].long())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
    out.mkdir(parents=True, exist_ok=True)
    if out.resolve() != brain_model_path().resolve():
        shutil.copy(brain_model_path() / CARD, out / CARD)
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(weights, out / "weights.safetensors")


def evaluate(
    model: Model,
    seeds: Sequence[int] = UNSEEN_SEEDS,
    *,
    channels_with_lesions: Sequence[str] = CHANNELS,
) -> dict[str, Any]:
    """Compare a model with the truth of unseen patients, lesion by lesion.

    Parameters
    ----------
    model
        Model with the classes background and lesion.
    seeds
        Patients to predict.
    channels_with_lesions
        Channels in which their lesions show.

    Returns
    -------
    dict[str, Any]
        ``seeds``; ``min_voxels``: smaller components are left out; ``lesions``: [true positive,
        false positive, false negative] of each patient (`lesion_counts`);
        ``true_positive_rate``, TP / (TP + FN), and ``false_discovery_rate``, FP / (TP + FP),
        over all lesions, where TP counts true lesions that are touched, not the predicted ones
        that touch them; ``dice``: of voxels, mean over the patients.
    """
    counts, scores = [], []
    for seed in track(seeds, "evaluation"):
        image, truth = brain_patient(seed, channels_with_lesions=channels_with_lesions)
        found = predict(model, image)
        scores.append(dice(found, truth).get("lesion", 0.0))
        counts.append(lesion_counts(found == 1, truth.mask(1), image.grid))
    hit, false, missed = (sum(one[i] for one in counts) for i in range(3))
    return {
        "seeds": list(seeds),
        "min_voxels": MIN_VOXELS,
        "lesions": [list(one) for one in counts],
        "true_positive_rate": round(hit / max(hit + missed, 1), 4),
        "false_discovery_rate": round(false / max(hit + false, 1), 4),
        "dice": round(float(np.mean(scores)), 4),
    }


def lesion_counts(
    found: NDArray[np.bool_], true: NDArray[np.bool_], grid: Grid
) -> tuple[int, int, int]:
    """Count true lesions that are touched, found ones that touch none, and missed ones.

    Parameters
    ----------
    found, true
        (*grid.shape) truth values; components (18 neighbours in 3D) of less than `MIN_VOXELS`
        voxels are not counted, but touching them counts as touching.
    grid
        Where the voxels lie.
    """
    touched = _touching(instances(true, grid, min_voxels=MIN_VOXELS).layers[0], found)
    right = _touching(instances(found, grid, min_voxels=MIN_VOXELS).layers[0], true)
    return sum(touched), len(right) - sum(right), len(touched) - sum(touched)


def _touching(labels: NDArray[np.integer[Any]], mask: NDArray[np.bool_]) -> list[bool]:
    both = np.unique(labels[mask])
    return [label in both for label in range(1, int(labels.max()) + 1)]


def _described(card: Card, network: torch.nn.Module) -> Model:
    return wrap(
        network,
        classes=card.classes,
        channels=card.input.channels,
        orientation=card.input.orientation,
        spacing=card.input.spacing,
        intensity=card.input.intensity,
        name=card.name,
    )


def _case(model: Model, seed: int, channels_with_lesions: Sequence[str]) -> Case:
    """Image as the model sees it and the true labels drawn on the model's grid."""
    image, _ = brain_patient(seed, channels_with_lesions=channels_with_lesions)
    prepared = model.prepare(image)
    return prepared.data.astype(np.float32), brain_truth(seed, prepared.grid).layers.astype(
        np.uint8
    )


def _batch(
    rng: np.random.Generator, cases: Sequence[Case], card: Card, recipe: BrainRecipe
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random windows (batch, 2, *window), mirrored left to right or not, and their labels."""
    if card.window is None:
        raise ModelError(f"expected a card with windows, that of {card.name} has none")
    size = np.array(card.window.size)
    images, labels = [], []
    for _ in range(recipe.batch):
        image, truth = cases[int(rng.integers(len(cases)))]
        room = np.array(truth.shape[1:]) - size
        voxels = np.argwhere(truth[0])
        if len(voxels) and rng.uniform() < recipe.lesion_share:
            middle = voxels[rng.integers(len(voxels))] + rng.integers(-12, 13, 3)
            start = np.clip(middle - size // 2, 0, room)
        else:
            start = rng.integers(room + 1)
        turn = int(rng.choice((-1, 1)))
        box = (slice(None), *(slice(a, a + n) for a, n in zip(start, size, strict=True)))
        images.append(image[box][:, ::turn])
        labels.append(truth[box][:, ::turn])
    return (
        torch.from_numpy(np.stack(images)).to(memory_format=_FAST),
        torch.from_numpy(np.stack(labels)),
    )


def main(
    out: Annotated[Path, typer.Option(help="Folder for model.yaml, weights, lesions.json.")],
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = BrainRecipe.steps,
) -> None:
    """Train the demo's lesion network and measure it on unseen patients."""
    train(out, BrainRecipe(steps=steps))
    result = evaluate(load_card(out / CARD))
    (out / "lesions.json").write_text(json.dumps(result, indent=2) + "\n")
    console = Console()
    for name in ("true_positive_rate", "false_discovery_rate", "dice"):
        console.print(f"{name:22s} {result[name]:.3f}")


if __name__ == "__main__":
    typer.run(main)
