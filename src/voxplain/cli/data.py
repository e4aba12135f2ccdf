"""``voxplain data``: what a data folder holds, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from voxplain.data import Cohort

LayoutName = Literal["nnunet", "datalist", "totalsegmentator", "bids", "manifest", "images"]

EPILOG = """Examples

voxplain data check Dataset042_Liver

voxplain data manifest Dataset042_Liver --out liver.csv"""

CHECK_EPILOG = """Examples

What is in a folder; headers only, which is quick:

voxplain data check Dataset042_Liver

Every voxel too, and everything that was found as JSON:

voxplain data check Dataset042_Liver --full --json check.json

A BIDS folder, two channels, lesion masks from its derivatives:

voxplain data check bids --channel FLAIR --channel T1w --labels desc-lesion_mask"""

MANIFEST_EPILOG = """Examples

voxplain data manifest Dataset042_Liver --out liver.csv

voxplain data manifest Task09_Spleen/dataset.json --out spleen.parquet"""

app = typer.Typer(
    name="data",
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog=EPILOG,
    help="Look at data folders: nnU-Net, Decathlon and MONAI datalists, TotalSegmentator, BIDS, "
    "manifests.",
)

Place = Annotated[
    Path,
    typer.Argument(
        metavar="DIR",
        help="Data folder, a datalist (.json) or a manifest (.csv, .tsv, .parquet).",
        show_default=False,
    ),
]
Layout = Annotated[
    LayoutName | None,
    typer.Option(
        help="How the files are laid out. Default: recognised by what lies there.",
        show_default=False,
    ),
]
Channels = Annotated[
    list[str] | None,
    typer.Option(
        "--channel",
        metavar="NAME",
        help="BIDS: suffix of a channel, e.g. FLAIR or acq-high_T1w. Manifest: name of its "
        "column, NAME or image_NAME. Repeat it for the channels, in order.",
        show_default=False,
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="BIDS: suffix of the label maps, e.g. dseg. Manifest: their column.",
        show_default=False,
    ),
]
Base = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder that the paths in a datalist or manifest are relative to. Default: its own.",
        show_default=False,
    ),
]


@app.command(epilog=CHECK_EPILOG, no_args_is_help=True)
def check(
    path: Place,
    layout: Layout = None,
    full: Annotated[
        bool, typer.Option("--full", help="Read every voxel: damage, NaN, label values, doubles.")
    ] = False,
    channel: Channels = None,
    labels: Labels = None,
    base: Base = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="Write what was found as JSON, too.", show_default=False
        ),
    ] = None,
) -> None:
    """Tell what a data folder holds and every fault of it at once.

    Faults (exit code 2) must be mended: files that are missing or damaged, grids that differ,
    labels that are not declared, a patient in two splits. Remarks deserve a look: empty labels,
    odd spacing. Nothing is changed.
    """
    from voxplain.cli.data_summary import print_check
    from voxplain.data import DataError, read_data
    from voxplain.data import check as check_cohort
    from voxplain.space import atomic_file

    cohort = read_data(
        path, layout, channels=channel or (), labels=labels, base=base, is_strict=False
    )
    with _files_bar() as progress:
        result = check_cohort(cohort, "full" if full else "quick", progress)
    if json_file is not None:
        with atomic_file(json_file) as temporary:
            temporary.write_text(json.dumps(result.to_json(), indent=1) + "\n", encoding="utf-8")
    print_check(result, path)
    if result.faults:
        n = len(result.faults)
        raise DataError(f"{path}: {n} {'fault' if n == 1 else 'faults'}, listed above; mend them")


@app.command(epilog=MANIFEST_EPILOG, no_args_is_help=True)
def manifest(
    path: Place,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Table to write: .csv, .tsv or .parquet. Names of labels go to labels.json "
            "beside it.",
            show_default=False,
        ),
    ],
    layout: Layout = None,
    channel: Channels = None,
    labels: Labels = None,
    base: Base = None,
) -> None:
    """Turn any data folder into a manifest: a table with one row a case.

    Files are not copied. The table holds patients and metadata as the folder tells them; add
    columns such as age or scanner as you like.
    """
    from voxplain.data import read_data

    cohort: Cohort = read_data(path, layout, channels=channel or (), labels=labels, base=base)
    written = cohort.write_manifest(out)
    typer.echo(f"{written}: {len(cohort)} cases of layout {cohort.layout}")


@contextmanager
def _files_bar() -> Iterator[Callable[[int, int], None]]:
    """Show files done and in all while they are checked, on stderr, only in a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("checking files", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
