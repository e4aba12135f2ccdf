"""One explanation as the command line asks for it: read, priced, run and written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from voxplain.attribution import Estimate, Target, estimate, explain, method_of
from voxplain.attribution.method import Method
from voxplain.attribution.one import Progress
from voxplain.attribution.parse import targets_of
from voxplain.attribution.scores import Score
from voxplain.attribution.targets import Reduction
from voxplain.attribution.words import key_values
from voxplain.data.totalseg_labels import read_totalseg_labels
from voxplain.errors import ImageError
from voxplain.inference.compute import Compute
from voxplain.models import Model, Parts, load_model
from voxplain.models.load import TOTALSEG
from voxplain.records import Explanation
from voxplain.records.archive import saved_files
from voxplain.report import write_report
from voxplain.report.scale import Scale
from voxplain.space import LabelMap, Volume, atomic_folder, read_image, read_labels

FEW_TARGETS = 4
"""So many maps are saved unasked."""


@contextmanager
def result_folder(path: Path) -> Iterator[Path]:
    """Give a folder that becomes `path` whole or not at all, in place of an earlier result.

    Parameters
    ----------
    path
        May exist; only files of an earlier result are replaced or removed.

    Yields
    ------
    pathlib.Path
        Folder to write into.
    """
    before = saved_files(path)
    with atomic_folder(path) as folder:
        yield folder
        now = {file.relative_to(folder).as_posix() for file in folder.rglob("*")}
    for name in before - now:
        (path / name).unlink(missing_ok=True)
        if (path / name).parent != path:
            with suppress(OSError):  # another file lies there
                (path / name).parent.rmdir()


@dataclass(frozen=True)
class Job:
    """Everything that decides an explanation; nothing of how it is shown.

    Parameters
    ----------
    model, image, targets, method, regions, compute, seed
        See `voxplain.attribution.explain`; `regions` None takes the predicted classes.
    """

    model: Model | Parts
    image: Volume
    targets: Sequence[Target]
    method: Method
    regions: LabelMap | None
    compute: Compute
    seed: int

    @classmethod
    def read(
        cls,
        model: str | Path,
        images: Sequence[Path],
        *,
        method: str,
        settings: Sequence[str] = (),
        targets: Sequence[str] = ("all",),
        score: Score = "logit",
        reduction: Reduction = "sum",
        regions: str = "predicted",
        case: str | None = None,
        seed: int = 0,
        compute: Compute | None = None,
        trust_code: bool = False,
        model_settings: Sequence[str] = (),
    ) -> Job:
        """Read model, image and label maps, and check the words; cheap checks come first.

        Parameters
        ----------
        model, model_settings
            Folder or ``totalseg:TASK``, and texts ``KEY=VALUE``; see `voxplain.load_model`.
        images
            One file, or one a channel.
        method, settings
            Name, and texts ``KEY=VALUE``.
        targets, score, reduction
            See `voxplain.attribution.parse`.
        regions
            ``predicted``, the file of a label map, or ``totalseg:FILE``.
        case
            Name of the case; None takes the first file's.
        seed, compute, trust_code
            As in the Python interface.

        Raises
        ------
        VoxplainError
            If something is missing, damaged, unknown, or does not fit.
        """
        chosen = method_of(method, key_values(settings, "--set"))
        options = key_values(model_settings, "--model-set")
        image = read_image(images, name=case)
        loaded = load_model(model, trust_code=trust_code, **options)
        loaded.check_image(image)
        first = loaded.models[0] if isinstance(loaded, Parts) else loaded
        check_file_order(images, first.info.channel_names)
        return cls(
            model=loaded,
            image=image,
            targets=targets_of(targets, loaded.answers, score=score, reduction=reduction),
            method=chosen,
            regions=_regions(regions),
            compute=compute or Compute(),
            seed=seed,
        )

    def estimate(self) -> Estimate:
        """Tell what `run` will cost."""
        return estimate(
            self.model, self.image, self.targets, self.method,
            regions=self.regions, compute=self.compute,
        )  # fmt: skip

    def run(
        self,
        folder: Path,
        *,
        maps: bool | None = None,
        report: Scale | None = "shared",
        progress: Progress | None = None,
    ) -> Explanation:
        """Explain, and write the results into a folder.

        Parameters
        ----------
        folder
            Existing; the caller sees to it that it appears whole or not at all.
        maps
            Whether to save the maps; None saves those of up to `FEW_TARGETS` targets.
        report
            Where the colours of the report's maps end; None writes no report.
        progress
            Called with the passes done and in all.

        Returns
        -------
        Explanation
            What was written.
        """
        is_saved = len(self.targets) <= FEW_TARGETS if maps is None else maps
        keep: bool | Literal["auto"] = is_saved or (report is not None and "auto")
        explanation = explain(
            self.model, self.image, self.targets, self.method,
            regions=self.regions, keep=keep, seed=self.seed, compute=self.compute,
            progress=progress,
        )  # fmt: skip
        explanation.save(folder, maps=is_saved)
        if report is not None:
            write_report(explanation, folder / "report.html", scale=report)
        return explanation


def check_file_order(files: Sequence[Path], channels: Sequence[str]) -> None:
    """Refuse files whose names tell that they were given in another order than the channels.

    Parameters
    ----------
    files
        One a channel; any other number is let through, for others to judge.
    channels
        The model's, in order. Names decide only where every file's holds just one of them.

    Raises
    ------
    ImageError
        If file names and channels go together in another order.
    """
    words = [set(re.split(r"[^a-z0-9]+", file.name.lower())) for file in files]
    named = [[c for c in channels if c.lower() in found] for found in words]
    order = [one[0] for one in named if len(one) == 1]
    if sorted(order) == sorted(channels) and order != list(channels):
        raise ImageError(
            f"the model needs its channels in the order {', '.join(channels)}, the files are named "
            f"{', '.join(file.name for file in files)}: give --image in the model's order"
        )


def _regions(text: str) -> LabelMap | None:
    if text == "predicted":
        return None
    if text.startswith(TOTALSEG):
        return read_totalseg_labels(text.removeprefix(TOTALSEG))
    return read_labels(text)
