"""``voxplain export``: a saved explanation as DICOM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """Examples

voxplain export voxplain-scan --source scan/ --out for_pacs

A result of a NIfTI file that was made from the series:

voxplain export voxplain-ct --source scan/ --image ct.nii.gz --out for_pacs

Only the prediction, of the second series in a folder:

voxplain export voxplain-scan --source "study/#2" --out for_pacs --only seg"""


def export(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Folder that voxplain explain wrote.", show_default=False
        ),
    ],
    source: Annotated[
        list[Path],
        typer.Option(
            metavar="DIR",
            help="DICOM series that was explained; DIR#N is series N of a folder with several. "
            "Repeat it for the channels, as then.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the DICOM files.", show_default=False)
    ],
    image: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="The image that was explained, if it was not the series itself but a NIfTI file "
            "made from it; channels as then.",
            show_default=False,
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="seg|map|key",
            help="Write only the prediction (seg), the maps (map) or the key images (key). "
            "Repeatable; default all.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write prediction, maps and key images as DICOM that references the explained series.

    The prediction becomes a Segmentation, each saved map a Parametric Map, and the planes through
    its peak a picture for viewers that show neither. What was anonymised stays anonymised.
    """
    from rich.console import Console

    from voxplain.export import PARTS, export_dicom
    from voxplain.records import Explanation
    from voxplain.space import read_image

    explanation = Explanation.load(folder, read_image(image) if image else None)
    console = Console(stderr=True)
    with console.status("reading the series") as status:
        files, generated = export_dicom(
            explanation, source, out, only=only or PARTS,
            progress=lambda name: status.update(f"writing {name}"),
        )  # fmt: skip
    for file in files:
        typer.echo(file)
    if generated:
        typer.echo(
            f"The series has no {', '.join(generated)}: references use generated ones, the same "
            "in every run, which an archive will not know.",
            err=True,
        )
