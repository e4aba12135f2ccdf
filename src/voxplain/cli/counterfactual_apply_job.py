"""One image after the other through a generator, skipping those that are finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from voxplain.counterfactual.applied import finished, write_applied
from voxplain.counterfactual.apply import apply_image
from voxplain.counterfactual.classifier import Classifier
from voxplain.counterfactual.config import PostFilterConfig
from voxplain.counterfactual.generator import Generator
from voxplain.counterfactual.preparation import Preparation
from voxplain.errors import DataError, all_faults
from voxplain.records.archive import slugs
from voxplain.records.provenance import Cost, Provenance
from voxplain.space import nifti, picture
from voxplain.space.read import case_name, read_image
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

    def run(self, file: Path, case: str, place: Path, progress: Callable[[int], None]) -> Done:
        """Repair one image, unless its result is there."""
        begun = time.monotonic()
        volume = read_image(file, name=case)
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
        return Done(case, n_slices, n_abnormal, n_turned, int(applied.mask.sum()))

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


def image_files(paths: Sequence[Path]) -> dict[str, Path]:
    """Find the images that files and folders mean, by name of the case.

    A folder with image files is those; any other folder is a DICOM series.

    Raises
    ------
    DataError
        If two images have one name, or none is there.
    """
    known = (*nifti.SUFFIXES, *picture.SUFFIXES)
    files: list[Path] = []
    for path in paths:
        inside = sorted(path.iterdir()) if path.is_dir() else []
        images = [p for p in inside if p.is_file() and p.name.lower().endswith(known)]
        files += images or [path]
    found: dict[str, list[Path]] = {}
    for file in dict.fromkeys(files):
        found.setdefault(case_name(file), []).append(file)
    faults = [
        f"{' and '.join(map(str, same))} are both called {name}; rename or move one"
        for name, same in found.items()
        if len(same) > 1
    ]
    if faults:
        raise DataError(all_faults("--image", faults))
    safe = slugs(found)
    return {safe[name]: same[0] for name, same in found.items()}


def _is_8_bit(file: Path) -> bool:
    if file.suffix.lower() not in picture.PICTURES + picture.TIFFS:
        return False
    return bool(picture.read_picture(file)[0].dtype.itemsize == 1)
