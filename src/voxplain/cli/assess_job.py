"""An assessment as the command line asks for it: read, priced, run and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import typer

from voxplain.assess.asked import Asked
from voxplain.assess.average_mask import AverageMask, average_masks
from voxplain.assess.baseline_maps import GIVEN, given_file
from voxplain.assess.boxes import box_masks, read_boxes
from voxplain.assess.finished import finished_assessment
from voxplain.assess.presets import PRESETS
from voxplain.assess.rows import ListedCase
from voxplain.assess.run import assess
from voxplain.assess.settings import AssessSettings, Preset
from voxplain.assess.subject import Mask, Subject, default_targets
from voxplain.attribution.methods import baseline_of
from voxplain.attribution.parse import targets_of
from voxplain.attribution.targets import Target, named_classes
from voxplain.attribution.words import key_values, methods_of
from voxplain.cli.assess_progress import PartLines
from voxplain.cli.assess_summary import print_assessment, print_passes
from voxplain.cli.faults import going_on
from voxplain.cli.job import result_folder
from voxplain.cli.progress import passes_bar
from voxplain.data import Case, Cohort, read_data
from voxplain.data.stamp import stamp
from voxplain.errors import DataError, ImageError, MethodError, ModelError
from voxplain.inference.compute import Compute
from voxplain.models import Model, load_model
from voxplain.records.unfinished import remove_parts
from voxplain.space.labelmap import BACKGROUND

_TRAIN = "train"

KEPT = "finished parts are kept; the same command, without --restart, goes on"


@dataclass(frozen=True, eq=False)
class AssessJob:
    """What the user asked for, read and checked.

    Parameters
    ----------
    asked
        See `voxplain.assess.asked.Asked`.
    """

    asked: Asked

    @classmethod
    def read(
        cls, models: Sequence[str], data: Path, *, methods: Sequence[str], metrics: str | None,
        preset: Preset, targets: Sequence[str], split: str | None, n_cases: int | None,
        boxes: Path | None, fill: str, removals: Sequence[str], orders: Sequence[str],
        baselines: Sequence[str] | None, model_settings: Sequence[str], seed: int, device: str,
        precision: Any, batch_size: int | None, trust_code: bool, **numbers: Any,
    ) -> AssessJob:  # fmt: skip
        """Read models and lists of cases, and check the words; images come when it is their turn.

        Raises
        ------
        VoxplainError
            If something is missing, unknown or does not fit.
        """
        choice = PRESETS[preset]
        words = [one.strip() for text in methods for one in text.split(",")]
        names = [one for one in words if one] or choice.methods
        trivial = tuple(baselines or AssessSettings.baselines)
        asked = [one.strip() for one in (metrics or "").split(",") if one.strip()]
        settings = AssessSettings(
            groups=tuple(asked) if metrics else choice.groups,  # type: ignore[arg-type]
            preset=preset, removals=tuple(removals), fill=baseline_of(fill),
            orders=tuple(orders),  # type: ignore[arg-type]
            baselines=trivial, **numbers,
        )  # fmt: skip
        cohort = read_data(data)
        cases = cohort.chosen(split, n_cases)
        loaded = _models(models, key_values(model_settings, "--model-set"), trust_code)
        first = next(iter(loaded.values()))
        is_own = preset == "arun2021" and first.info.kind == "classification"
        wanted = list(targets) or (["predicted"] if is_own else default_targets(first))
        answers = {name for one in loaded.values() for name in one.info.class_names}
        table = None
        if boxes is not None:
            table = read_boxes(boxes, cases={one.name for one in cohort}, targets=answers)
        averages: Mapping[str, AverageMask] = {}
        if "average_mask" in trivial:
            averages = _averages(cohort, cases, targets_of(wanted, first.answers))
        channels = first.info.channel_names

        def subject(case: Case) -> Subject:
            image = case.read_image(channels)
            found: dict[str, Mask] = {}
            if table is not None:
                found = box_masks(table, case.name, image.grid)
            labels = cohort.read_labels(case) if case.labels is not None else None
            return Subject(image, case.patient or case.name, labels, found)

        listed = [
            ListedCase(
                case.name,
                case.patient or case.name,
                partial(subject, case),
                stamp([*case.images, *case.label_files]),
            )
            for case in cases
        ]
        names_of_targets = [one.name for one in targets_of(wanted, first.answers)]
        given = _given(trivial, cases, names_of_targets)
        read_too = [*([] if boxes is None else [boxes]), *given]
        means = "".join(str(one.values.sum()) for one in averages.values())
        return cls(
            Asked(
                models=loaded, cases=listed, methods=methods_of(names, "--methods"), targets=wanted,
                settings=settings, seed=seed, averages=averages, extra=stamp(read_too) + means,
                compute=Compute(device=device, precision=precision, batch_size=batch_size),
            )
        )  # fmt: skip

    def print_estimate(self) -> None:
        """Tell the passes of each part of the first case, and what sharing saves."""
        print_passes(self.asked)

    def run(self, out: Path, *, restart: bool, report: bool, is_quiet: bool) -> None:
        """Measure, conclude and write; go on where an earlier run of the same was stopped.

        A folder that holds the finished result is left as it is, but for the page.

        Raises
        ------
        OutputError
            If the folder holds another assessment, finished or not, and `restart` is not set.
        """
        from voxplain.report.assess_page import write_assess_report

        unfinished = out / "unfinished"
        if restart:
            remove_parts(unfinished)
        else:
            found = finished_assessment(self.asked, out, unfinished)
            if found is not None:
                if report:
                    write_assess_report(found, out / "report.html")
                if not is_quiet:
                    page = ", the page was written again" if report else ""
                    typer.echo(f"{out}: already done{page}; --restart to measure again")
                return
        with going_on(KEPT):
            with passes_bar(is_quiet) as progress:
                result = assess(self.asked, unfinished, progress, PartLines(is_quiet=is_quiet))
            with result_folder(out) as folder:
                result.save(folder)
                if report:
                    write_assess_report(result, folder / "report.html")
                files = sorted(file.name for file in folder.iterdir())
        remove_parts(unfinished)
        if not is_quiet:
            print_assessment(result, out, files)


def _averages(
    cohort: Cohort, cases: Sequence[Case], targets: Sequence[Target]
) -> dict[str, AverageMask]:
    """Mean training mask of each target: of its class, or of all that is labelled."""
    train = [case for case in cohort if case.split == _TRAIN]
    if not train:
        raise DataError(
            "the baseline average_mask is the mean over the cases of the split train, and the data "
            "has no such case; name the splits in a manifest (column split), or leave it out"
        )
    found = {}
    for target in targets:
        names = named_classes(target) or [
            name for label, name in cohort.classes.items() if label and name != BACKGROUND
        ]
        if len(names) != 1:
            raise MethodError(
                f"the baseline average_mask needs one structure for the target {target.name}, "
                f"there are {len(names)}; name a class, or leave the baseline out"
            )
        read = cohort.read_labels
        found[target.name] = average_masks(train, cases, names, read=read)[names[0]]
    return found


def _given(baselines: Sequence[str], cases: Sequence[Case], targets: Sequence[str]) -> list[Path]:
    """Files of given maps, of every case and target; a missing one is refused."""
    patterns = [one.removeprefix(GIVEN) for one in baselines if one.startswith(GIVEN)]
    found = {
        given_file(pattern, case.name, target)
        for pattern in patterns for case in cases for target in targets
    }  # fmt: skip
    missing = sorted(str(file) for file in found if not file.is_file())
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ImageError(f"given maps that are not there: {', '.join(missing[:5])}{more}")
    return sorted(found)


def _models(
    places: Sequence[str], options: Mapping[str, str], trust_code: bool
) -> dict[str, Model]:
    """Load the models; of equal names each gets its folder's."""
    found: dict[str, Model] = {}
    loaded = []
    for place in places:
        model = load_model(place, trust_code=trust_code, **options)
        if not isinstance(model, Model):
            raise ModelError(
                f"{place} has {len(model.models)} parts; assess one of its models at a time"
            )
        loaded.append(model)
    names = [model.info.name for model in loaded]
    if len(set(names)) < len(names):
        names = [Path(place).name for place in places]
    for name, place, model in zip(names, places, loaded, strict=True):
        if name in found:
            raise ModelError(f"two models are called {name}; rename a folder, or drop {place}")
        found[name] = model
    first = loaded[0]
    for model in loaded[1:]:
        if model.info.kind != first.info.kind or model.info.rank != first.info.rank:
            raise ModelError(
                f"models that are compared are of one kind: {first.info.name} is a "
                f"{first.info.rank}D {first.info.kind} model, {model.info.name} a "
                f"{model.info.rank}D {model.info.kind} model"
            )
    return found
