"""``voxplain report``: make the page again from what was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Scale = Literal["shared", "own"]

EPILOG = """Examples

voxplain report voxplain-ct --image ct.nii.gz --scale own

voxplain report voxplain-p7-instances --image flair.nii.gz --image mprage.nii.gz

voxplain report voxplain-assess"""


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Folder that voxplain explain, instances or assess wrote.",
            show_default=False,
        ),
    ],
    image: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="The image that was explained, which results do not hold; channels as then. Not "
            "for assessments.",
            show_default=False,
        ),
    ] = None,
    scale: Annotated[
        Scale,
        typer.Option(
            help="Colours of the report's maps: one scale for all targets, or own ones. Lesions "
            "always share one."
        ),
    ] = "shared",
) -> None:
    """Write report.html again from a saved result; needs neither model nor torch.

    Maps that were not saved are missing from it.
    """
    from voxplain.errors import ImageError, RecordError
    from voxplain.records import Explanation
    from voxplain.records.archive import INDEX
    from voxplain.records.lesion_tables import LesionResult
    from voxplain.records.unfinished import PLAN_FILE
    from voxplain.report import write_lesion_report, write_report
    from voxplain.space import read_image

    path = folder / "report.html"
    if (folder / "scores.parquet").is_file():
        from voxplain.records.assessment import Assessment
        from voxplain.report.assess_page import write_assess_report

        typer.echo(write_assess_report(Assessment.load(folder), path))
        return
    if not (folder / INDEX).is_file() and (folder / "unfinished" / PLAN_FILE).is_file():
        raise RecordError(
            f"{folder} holds an unfinished run and no result yet; the same command that began it "
            f"{_verb(folder / 'unfinished')}goes on, and writes the page"
        )
    if not image:
        raise ImageError(f"{folder} does not hold the image that was explained; give --image FILE")
    volume = read_image(image)
    if (folder / "instances.parquet").is_file():
        lesions = LesionResult.load(folder, volume)
        typer.echo(write_lesion_report(lesions, path))
    else:
        typer.echo(write_report(Explanation.load(folder, volume), path, scale=scale))


def _verb(unfinished: Path) -> str:
    """Name the verb, where the plan is one of an assessment."""
    from voxplain.records.unfinished import read_plan

    return "(voxplain assess …) " if "methods" in read_plan(unfinished) else ""
