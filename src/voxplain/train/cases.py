"""Cases as the network sees them: read, prepared, kept in memory or on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from monai.bundle import ConfigParser
from monai.data import CacheDataset, MetaTensor, PersistentDataset
from monai.transforms import Compose, CropForegroundd, EnsureTyped, SpatialPadd, Transform
from monai.transforms.utils import map_classes_to_indices
from numpy.typing import NDArray
from torch.utils.data import Dataset

from voxplain.data import Case
from voxplain.errors import ImageError, VoxplainError
from voxplain.models.metatensor import to_metatensor
from voxplain.train.classes import Joining
from voxplain.train.preparation import preparation
from voxplain.train.recipe import CropRecipe, InputRecipe

Cache = str | Path
"""``memory``, ``none``, or a folder."""
MOST_CENTRES = 20_000
"""So many voxels of a class are remembered as centres of crops, evenly spread."""


@dataclass(frozen=True)
class Reader:
    """How a case is read.

    Parameters
    ----------
    recipe
        What is done to the image.
    joining
        What becomes of the labels.
    channels
        Names of the channels.
    crop
        For training cases: what they are cut to and where crops may lie; None: nothing more.
    """

    recipe: InputRecipe
    joining: Joining
    channels: tuple[str, ...]
    crop: CropRecipe | None = None

    def transform(self, cases: Sequence[Case]) -> Compose:
        """Return all deterministic steps from the number of a case to its tensors."""
        parts: list[Callable[..., Any]] = [_Read(self, tuple(cases))]
        placed = preparation(self.recipe, ("image", "label"))
        parts += ConfigParser({"placed": placed}).get_parsed_content("placed")
        if self.crop is not None and self.crop.to_foreground:
            parts.append(CropForegroundd(["image", "label"], "image", select_fn=_is_not_zero))
        if self.crop is not None:
            parts.append(SpatialPadd(["image", "label"], self.crop.size))
        types = [torch.float32, torch.int16]
        parts.append(EnsureTyped(["image", "label"], dtype=types, track_meta=False))
        if self.crop is not None:
            parts.append(_Centres(self.crop.centre, len(self.joining.class_names)))
        return Compose(parts)

    def key(self, case_hash: str) -> str:
        """Everything that a prepared case depends on."""
        return json.dumps(
            {
                "case": case_hash,
                "placed": preparation(self.recipe, ("image", "label")),
                "classes": sorted(self.joining.class_of.items()),
                "labels": sorted(self.joining.labels.items()),
                "crop": self.crop and self.crop.model_dump(mode="json"),
            },
            sort_keys=True,
        )


class Prepared(Dataset[dict[str, Any]]):
    """Cases, prepared once and kept.

    Parameters
    ----------
    cases, hashes
        Cases, and the hash of each one's files.
    reader
        How they are read.
    cache
        ``memory``: up to `most_bytes`, the others are prepared again each time; a folder: all on
        disk, found again by the hash of their files and of `reader`; ``none``.
    most_bytes
        Of memory.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        hashes: Sequence[str],
        reader: Reader,
        cache: Cache,
        most_bytes: int,
    ) -> None:
        items = [{"index": i, "key": reader.key(key)} for i, key in enumerate(hashes)]
        transform = reader.transform(cases)
        with _own_errors():
            if cache == "memory":
                n = _fitting(transform(items[0]), most_bytes)
                self._kept = CacheDataset(items, transform, n, num_workers=None, progress=False)
            else:
                folder = None if cache == "none" else Path(cache)
                self._kept = PersistentDataset(items, transform, folder, track_meta=False)

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> dict[str, Any]:
        with _own_errors():
            return dict(self._kept[index])


@contextmanager
def _own_errors() -> Iterator[None]:
    """Take our own error out of those that MONAI wraps around it."""
    try:
        yield
    except RuntimeError as error:
        inner: BaseException | None = error
        while inner is not None and not isinstance(inner, VoxplainError):
            inner = inner.__cause__
        if inner is None:
            raise
        raise inner from None


def _fitting(sample: dict[str, Any], most_bytes: int) -> int:
    """How many cases like this fit in memory."""
    each = sum(sample[key].numel() * sample[key].element_size() for key in ("image", "label"))
    return int(most_bytes // max(each, 1))


class _Read(Transform):  # type: ignore[misc]
    """Image and classes of a case, channels first, with their place."""

    def __init__(self, reader: Reader, cases: tuple[Case, ...]) -> None:
        self.reader = reader
        self.cases = cases

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        case = self.cases[item["index"]]
        image = case.read_image()
        if image.grid.rank != 3:
            raise ImageError(f"{case.name}: a recipe trains on 3D images, got {image.grid.shape}")
        if image.n_channels != len(self.reader.channels):
            raise ImageError(
                f"{case.name}: expected {len(self.reader.channels)} channels "
                f"({', '.join(self.reader.channels)}), got {image.n_channels}"
            )
        labels = self.reader.joining.read(case, image.grid)
        placed = to_metatensor(image)
        return {
            "image": placed,
            "label": MetaTensor(torch.from_numpy(labels[None]), affine=placed.affine),
        }


class _Centres(Transform):  # type: ignore[misc]
    """Voxels that crops may be centred on: background, then each class or all classes as one."""

    def __init__(self, centre: Literal["voxel", "class"], n_classes: int) -> None:
        self.centre = centre
        self.n_classes = n_classes

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        label = sample["label"]
        n = self.n_classes
        if self.centre == "voxel":
            label, n = (label > 0).to(label.dtype), 2
        sample["centres"] = map_classes_to_indices(label, n, max_samples_per_class=MOST_CENTRES)
        return sample


def _is_not_zero(image: NDArray[Any]) -> Any:
    return image != 0
