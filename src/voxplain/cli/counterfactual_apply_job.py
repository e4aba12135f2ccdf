"""One image after the other through a generator, skipping those that are finished."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from voxplain.counterfactual.applied import finished, write_applied
from voxplain.counterfactual.apply import apply_image
from voxplain.counterfactual.classifier import Classifier
from voxplain.counterfactual.config import PostFilterConfig
from voxplain.counterfactual.cut import PICTURE
from voxplain.counterfactual.generator import Generator
from voxplain.counterfactual.preparation import Preparation
from voxplain.counterfactual.run import Run
from voxplain.counterfactual.slices import TABLE
from voxplain.errors import DataError
from voxplain.records.provenance import Cost, Provenance
from voxplain.space import picture
from voxplain.space.read import read_image
from voxplain.space.volume import Volume


@dataclass(frozen=True, eq=False)
class ApplyJob:
    """What is done to every image."""

    preparation: Preparation
    generator: Generator
    name: str
    generator_sha256: str
    classifier: Classifier
    threshold: float
    post: PostFilterConfig
    slices: tuple[int, ...] | None
    gate: bool
    device: str
    batch: int
    rank: int | None = None

    def run(self, file: Path, case: str, place: Path, progress: Callable[[int], None]) -> Done:
        """Repair one image, unless its result is there."""
        begun = time.monotonic()
        volume = read_image(file, name=case)
        if self.rank not in (None, volume.grid.rank):
            kinds = {2: "pictures (2D)", 3: "slices of volumes (3D)"}
            raise DataError(
                f"the run was trained on {kinds[self.rank or 2]}, and this image is "
                f"{volume.grid.rank}D; give images like those it was trained on, or another --run"
            )
        asked = self._provenance(volume)
        if finished(place, case, asked):
            return Done(case)
        applied = apply_image(
            volume, self.preparation, self.generator, self.classifier,
            threshold=self.threshold, post=self.post, batch=self.batch, slices=self.slices,
            device=self.device, gate=self.gate, progress=progress,
        )  # fmt: skip
        n_slices = len(applied.table)
        cost = Cost(n_forward=3 * n_slices, seconds=time.monotonic() - begun)
        record = replace(asked, cost=cost, created=datetime.now(UTC).isoformat(timespec="seconds"))
        write_applied(applied, place, case, record, is_8_bit=_is_8_bit(file))
        before, after = applied.table["logit_before"], applied.table["logit_after"]
        n_abnormal = int((before >= 0).sum())
        n_turned = int(((before >= 0) & (after < 0)).sum())
        return Done(case, n_slices, n_abnormal, n_turned, int(applied.mask.sum()), applied.notes)

    def _provenance(self, image: Volume) -> Provenance:
        return Provenance(
            model=self.classifier.name,
            model_sha256=self.classifier.sha256,
            case=image.name,
            image_sha256=image.sha256(),
            method=f"counterfactual {self.name}",
            parameters={
                "generator_sha256": self.generator_sha256,
                "preparation": asdict(self.preparation),
                "threshold": self.threshold,
                "post_filter": self.post.model_dump(),
                "slices": self.slices,
                "gate": self.gate,
                "device": self.device,
                "batch": self.batch,
            },
        )


@dataclass(frozen=True)
class Done:
    """What the summary says of an image; no slices: it was finished before."""

    case: str
    n_slices: int = 0
    n_abnormal: int = 0
    n_turned: int = 0
    n_marked: int = 0
    notes: tuple[str, ...] = ()


def rank_of(run: Run) -> int | None:
    """Return 2 if a run was trained on pictures, 3 if on slices of volumes.

    None if on both, or if the slices were removed from the run.
    """
    table = run.folder / "slices" / "train" / TABLE
    if not table.is_file():
        return None
    planes = set(pd.read_csv(table, usecols=["plane"], dtype=str, na_filter=False)["plane"])
    ranks = {2 if plane == PICTURE else 3 for plane in planes}
    return ranks.pop() if len(ranks) == 1 else None


def _is_8_bit(file: Path) -> bool:
    if file.suffix.lower() not in picture.PICTURES + picture.TIFFS:
        return False
    return bool(picture.read_picture(file)[0].dtype.itemsize == 1)
