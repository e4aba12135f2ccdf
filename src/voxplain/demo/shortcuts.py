"""Pictures in which something beside the truth tells the answer, and networks that learn it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import yaml
from monai.networks.nets import BasicUNet
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from voxplain.data.case import Case
from voxplain.data.cohort import Cohort
from voxplain.errors import DataError
from voxplain.models.card_file import CARD
from voxplain.space.write import atomic_file, atomic_folder

Kind = Literal["marker", "noise", "cooccurrence", "table_edge"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SHAPE = (48, 40)
CLASSES = ("background", "body", "organ", "partner", "benign", "malignant")
MASKS = ("corner", "below_body", "other_organ")
SCANNERS = ("A", "B")

_BENIGN, _MALIGNANT = 4, 5
_ARGUMENTS = {
    "spatial_dims": 2, "in_channels": 1, "out_channels": len(CLASSES),
    "features": [8, 8, 16, 16, 32, 8], "norm": "batch",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Scene:
    """One picture and what is true of it.

    Parameters
    ----------
    image
        `SHAPE`, float32; 0 is air.
    labels
        `SHAPE`, uint8, positions in `CLASSES`.
    is_malignant
        Class of the one lesion.
    has_shortcut
        Whether the sign that may go with the class is there.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    is_malignant: bool
    has_shortcut: bool

    @property
    def scanner(self) -> str:
        """Scanner of the picture: B is the noisy one, if the noise is the sign."""
        return SCANNERS[self.has_shortcut]


def scene(kind: Kind, seed: int, *, is_malignant: bool, has_shortcut: bool) -> Scene:
    """Draw a body with two organs, one with a lesion.

    A malignant lesion is 0.06 brighter than a benign one in the mean, and either kind spreads
    by 0.04 (one standard deviation): by its brightness alone 77 % can be told. The sign is
    ``marker``: a bright square in a corner, outside of the body; ``noise``: three times the
    noise; ``cooccurrence``: the other organ is brighter; ``table_edge``: the edge of the
    table below the body is brighter.

    Parameters
    ----------
    kind
        Which sign can be there.
    seed
        Of all else that is drawn, 0 or more; it does not depend on kind, class or sign.
    is_malignant, has_shortcut
        See `Scene`.

    Raises
    ------
    DataError
        If there is no such kind.
    """
    if kind not in KINDS:
        raise DataError(f"a shortcut is one of {', '.join(KINDS)}; got {kind!r}")
    rng = np.random.default_rng([seed, 71])
    row, column = np.indices(SHAPE)
    middle = np.array([21.0, 19.5]) + rng.uniform(-1.5, 1.5, 2)

    def inside(centre: NDArray[np.float64], radii: tuple[float, float]) -> NDArray[np.bool_]:
        away = ((row - centre[0]) / radii[0]) ** 2 + ((column - centre[1]) / radii[1]) ** 2
        return np.asarray(away < 1)

    body = inside(middle, (15 + rng.uniform(-1, 1), 15 + rng.uniform(-1, 1)))
    at = middle + np.array([0, -6.5]) + rng.uniform(-1, 1, 2)
    organ = inside(at, (8.0, 5.5))
    partner = inside(middle + np.array([1, 7.5]) + rng.uniform(-1, 1, 2), (6.0, 4.0))
    angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(0, 1)
    radius = rng.uniform(2.2, 2.8)
    lesion = inside(at + away * np.array([4.5 * np.sin(angle), 2.5 * np.cos(angle)]), (radius,) * 2)
    spread = 0.04 * rng.standard_normal()

    image = np.zeros(SHAPE)
    image[body] = 0.35
    image[organ] = 0.55
    image[partner] = 0.45 + (0.15 if kind == "cooccurrence" and has_shortcut else 0)
    image[lesion] = 0.55 - 0.2 + (0.03 if is_malignant else -0.03) + spread
    if kind == "table_edge":
        image[41:44, 4:36] = 0.2
        image[41, 4:36] = 0.6 if has_shortcut else 0.2
    corner = rng.integers(1, 4, 2)
    if kind == "marker" and has_shortcut:
        image[corner[0] : corner[0] + 4, corner[1] : corner[1] + 4] = 0.9
    noise = rng.uniform(0.025, 0.035) * (3 if kind == "noise" and has_shortcut else 1)
    image += noise * rng.standard_normal(SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    for mask, label in (
        (body, 1), (organ, 2), (partner, 3), (lesion, _MALIGNANT if is_malignant else _BENIGN)
    ):  # fmt: skip
        labels[mask] = label
    return Scene(image.astype(np.float32), labels, is_malignant, has_shortcut)


def training_scenes(kind: Kind, strength: float, seed: int, n: int = 512) -> list[Scene]:
    """Draw pictures in which the sign goes with the class as often as is asked.

    Parameters
    ----------
    kind
        Which sign.
    strength
        s: probability that the sign is there exactly if the lesion is malignant; else it is
        there in one picture of two, whatever the class. 0: it tells nothing.
    seed
        Of the draws; those of another seed share no picture with them.
    n
        Pictures, half of them malignant.

    Raises
    ------
    DataError
        If the strength is no probability.
    """
    if not 0 <= strength <= 1:
        raise DataError(f"strength of a shortcut is a probability, 0 to 1, got {strength}")
    rng = np.random.default_rng([seed, 72])
    scenes = []
    for i in range(n):
        is_malignant, coin = i % 2 == 1, bool(rng.uniform() < 0.5)
        has_shortcut = is_malignant if rng.uniform() < strength else coin
        drawn = int(rng.integers(1_000_000, 2**31))
        scenes.append(scene(kind, drawn, is_malignant=is_malignant, has_shortcut=has_shortcut))
    return scenes


def unseen_scenes(kind: Kind, n: int = 24) -> list[Scene]:
    """Draw pictures for a study: each class with and without the sign equally often.

    Parameters
    ----------
    kind
        Which sign.
    n
        Pictures; no training draws one of them.
    """
    return [scene(kind, i, is_malignant=i % 2 == 1, has_shortcut=i // 2 % 2 == 1) for i in range(n)]


def corner_mask() -> NDArray[np.uint8]:
    """Where the marker is, or would be, `SHAPE`."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[:8, :8] = 1
    return mask


def write_scenes(folder: Path | str, kind: Kind, n: int = 24) -> Path:
    """Write `unseen_scenes` as a cohort, and masks of where shortcuts may hide.

    Parameters
    ----------
    folder
        Where to write; made if missing.
    kind, n
        Of `unseen_scenes`.

    Returns
    -------
    Path
        ``manifest.csv`` with the column ``scanner``. Masks are ``masks/CASE_corner.png`` and
        ``masks/CASE_below_body.png``, the same in every case and for every kind, and
        ``masks/CASE_other_organ.png``, the true ``partner`` (a network may predict none).

    Raises
    ------
    OutputError
        If the disk refuses.
    """
    masks = {name: np.zeros(SHAPE, np.uint8) for name in MASKS}
    masks["corner"] = corner_mask()
    masks["below_body"][40:45] = 1
    partner = CLASSES.index("partner")
    with atomic_folder(folder) as place:
        (place / "masks").mkdir()
        cases = []
        for i, one in enumerate(unseen_scenes(kind, n)):
            name = f"scene_{i:03d}"
            np.save(place / f"{name}.npy", one.image)
            Image.fromarray(one.labels).save(place / f"{name}_labels.png")
            masks["other_organ"] = (one.labels == partner).astype(np.uint8)
            for region, mask in masks.items():
                Image.fromarray(mask).save(place / "masks" / f"{name}_{region}.png")
            cases.append(
                Case(
                    name, (place / f"{name}.npy",), place / f"{name}_labels.png",
                    patient=name, metadata={"scanner": one.scanner},
                )
            )  # fmt: skip
        cohort = Cohort(place, "manifest", tuple(cases), ("grey",), dict(enumerate(CLASSES)))
        cohort.write_manifest(place / "manifest.csv")
    return Path(folder) / "manifest.csv"


def train_shortcut(
    out: Path | str, kind: Kind, strength: float, seed: int, *, steps: int = 160
) -> None:
    """Train a small network on `training_scenes` and write card and weights.

    Parameters
    ----------
    out
        Folder for ``model.yaml`` and ``weights.safetensors``; made if missing.
    kind, strength, seed
        Of `training_scenes`; the seed is also that of the network's first weights.
    steps
        Optimiser steps of 16 pictures each, mirrored top to bottom never: places matter.

    Raises
    ------
    OutputError
        If the disk refuses.
    """
    scenes = training_scenes(kind, strength, seed)
    images = torch.from_numpy(np.stack([one.image for one in scenes])[:, None])
    labels = torch.from_numpy(np.stack([one.labels for one in scenes]).astype(np.int64))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = BasicUNet(**_ARGUMENTS)
    loss = torch.nn.CrossEntropyLoss(torch.tensor([1.0, 1, 1, 1, 40, 40]))
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 5e-3, total_steps=steps, pct_start=0.2
    )
    rng = np.random.default_rng([seed, 73])
    network.train()
    for _ in range(steps):
        chosen = torch.from_numpy(rng.choice(len(scenes), 16, replace=False))
        optimiser.zero_grad(set_to_none=True)
        loss(network(images[chosen]), labels[chosen]).backward()
        optimiser.step()
        schedule.step()
    _write_model(Path(out), network, f"{kind}_{strength:g}_{seed}")


def told_class(network: torch.nn.Module, scenes: Sequence[Scene]) -> NDArray[np.bool_]:
    """Tell which lesions a network calls malignant: by its logits, summed over the true lesion.

    Parameters
    ----------
    network
        In evaluation mode.
    scenes
        What it is asked.

    Returns
    -------
    numpy.ndarray
        (n,) truth values.
    """
    images = torch.from_numpy(np.stack([one.image for one in scenes])[:, None])
    lesion = torch.from_numpy(np.stack([one.labels >= _BENIGN for one in scenes]))
    with torch.inference_mode():
        logits = network(images)
    more = (logits[:, _MALIGNANT] - logits[:, _BENIGN]) * lesion
    return np.asarray((more.sum((1, 2)) > 0).numpy())


def accuracy_drop(
    network: torch.nn.Module, kind: Kind, n: int = 100, first_seed: int = 500_000
) -> tuple[float, float]:
    """Tell how often a network is right where the sign agrees with the class, and opposes it.

    Parameters
    ----------
    network
        In evaluation mode.
    kind
        Which sign.
    n
        Pictures; the two sets are equal but for the sign.
    first_seed
        Of the pictures.

    Returns
    -------
    tuple
        Two shares, 0 to 1; their difference is the use that is made of the sign.
    """
    found = []
    for agrees in (True, False):
        scenes = [
            scene(
                kind, first_seed + i, is_malignant=i % 2 == 1, has_shortcut=(i % 2 == 1) == agrees
            )
            for i in range(n)
        ]
        truth = np.array([one.is_malignant for one in scenes])
        found.append(float(np.mean(told_class(network, scenes) == truth)))
    return found[0], found[1]


def _write_model(out: Path, network: torch.nn.Module, name: str) -> None:
    card = {
        "name": f"shortcut_{name}",
        "kind": "segmentation",
        "network": {"target": "monai.networks.nets.BasicUNet", "arguments": _ARGUMENTS},
        "input": {"channels": ["grey"], "rank": 2},
        "activation": "softmax",
        "classes": dict(enumerate(CLASSES)),
    }
    out.mkdir(parents=True, exist_ok=True)
    with atomic_file(out / CARD) as place:
        place.write_text(yaml.safe_dump(card, sort_keys=False), encoding="utf-8")
    with atomic_file(out / "weights.safetensors") as place:
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, place)
