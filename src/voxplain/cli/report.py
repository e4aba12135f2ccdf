"""``voxplain report``: make the page again from what was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Scale = Literal["shared", "own"]

EPILOG = """Example

voxplain report voxplain-ct --image ct.nii.gz --scale own"""


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Folder that voxplain explain wrote.", show_default=False
        ),
    ],
    image: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE",
            help="The image that was explained, which results do not hold; channels as then.",
            show_default=False,
        ),
    ],
    scale: Annotated[
        Scale,
        typer.Option(help="Colours of the report's maps: one scale for all targets, or own ones."),
    ] = "shared",
) -> None:
    """Write report.html again from a saved explanation; needs neither model nor torch.

    Maps that were not saved are missing from it.
    """
    from voxplain.records import Explanation
    from voxplain.report import write_report
    from voxplain.space import read_image

    explanation = Explanation.load(folder, read_image(image))
    typer.echo(write_report(explanation, folder / "report.html", scale=scale))
