"""``voxplain counterfactual apply``: repair images, and mark what had to be repaired."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from voxplain.cli.counterfactual_apply_job import Done
    from voxplain.counterfactual.config import PostFilterConfig

Post = Literal["none", "paper", "open-close"]
FIXED = 0.25

EPILOG = """Examples

Every slice of a CT, with the threshold that was tuned on the validation slices:

voxplain counterfactual apply --run kidneys --image ct.nii.gz

A folder of chest X-rays, the paper's threshold and filter, into a folder of your choice:

voxplain counterfactual apply --run chest --image xrays/ --threshold 0.25 --post paper --out repaired

Slices 40 to 59, another generator of the run, only where the classifier says abnormal:

voxplain counterfactual apply --run kidneys --image ct.nii.gz --generator singla --slices 40:60 --gate"""  # noqa: E501


def apply(
    run: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder that voxplain counterfactual train wrote.",
            show_default=False,
        ),
    ],
    image: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE|DIR",
            help="Image (as for voxplain explain, one channel), a folder of images, a DICOM "
            "series, or a data folder or manifest. Repeatable.",
            show_default=False,
        ),
    ],
    generator: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Generator of the run. Default: the first of its configuration.",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="tuned|VALUE",
            help="A pixel is marked if it changes by more than this share of the window: tuned on "
            "the validation slices, or a number from 0 to 1. Default: tuned if the run knew the "
            "truth, else 0.25 as in the paper.",
            show_default=False,
        ),
    ] = None,
    post: Annotated[
        Post | None,
        typer.Option(
            help="Filter of the mask: none; open-close with 3 × 3 pixels; paper also keeps only "
            "the largest part of each slice. Default: the one that the run was evaluated with.",
            show_default=False,
        ),
    ] = None,
    min_pixels: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Parts of the mask with fewer pixels of the network's picture are removed.",
            show_default=False,
        ),
    ] = None,
    slices: Annotated[
        str | None,
        typer.Option(
            metavar="3,4|10:20",
            help="Only these slices, by number from the feet, the left or the back; 10:20 is 10 "
            "to 19. Default: all of them.",
            show_default=False,
        ),
    ] = None,
    gate: Annotated[
        bool,
        typer.Option("--gate", help="Leave slices alone that the classifier calls normal."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the results; images that are finished there are not done again. "
            "Default: RUN/applied/GENERATOR.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")
    ] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Slices in one pass.")] = 32,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.")
    ] = False,
) -> None:
    """Repair images until the classifier calls them normal, and mark what changed.

    Writes of each image NAME_counterfactual, NAME_difference, NAME_mask (NIfTI on the image's
    own grid; of pictures PNG, TIFF and NPY), NAME_slices.csv and NAME.json: all of them, or none.
    An image that fails does not stop the others.
    """
    from voxplain.cli.counterfactual_apply_job import ApplyJob, rank_of
    from voxplain.cli.counterfactual_images import image_files
    from voxplain.cli.faults import going_on
    from voxplain.counterfactual.applied import check_foreign
    from voxplain.counterfactual.run import open_run
    from voxplain.errors import DataError, OutputError, VoxplainError, all_faults
    from voxplain.inference.compute import Compute
    from voxplain.models.weights import weights_sha256

    files, told = image_files(image)
    opened = open_run(run)
    name = generator or opened.names[0]
    repairer = opened.generator(name)
    value, words = _threshold(threshold, opened.threshold(name), name)
    job = ApplyJob(
        preparation=opened.preparation,
        generator=repairer,
        name=name,
        generator_sha256=weights_sha256(repairer),
        classifier=opened.classifier(),
        threshold=value,
        post=_post(post, min_pixels, opened.config.evaluation.post_filter),
        slices=_numbers(slices),
        gate=gate,
        device=str(Compute(device=device).torch_device()),
        batch=batch,
        rank=rank_of(opened),
    )
    place = out or run / "applied" / name
    check_foreign(place, files)
    if not quiet:
        for line in told:
            typer.echo(line)
    faults, done = [], []
    with (
        _bar(quiet, len(files)) as show,
        going_on("finished images are kept; the same command goes on"),
    ):
        for number, (case, file) in enumerate(files.items()):
            try:
                done.append(job.run(file, case, place, partial(show, number, case)))
            except OutputError:
                raise
            except VoxplainError as error:
                faults.append(str(error) if str(file) in str(error) else f"{file}: {error}")
    if done and not quiet:
        _print_done(done, place, f"generator {name}, {words}")
    if faults:
        what = f"{len(faults)} of {len(files)} images could not be repaired"
        raise DataError(faults[0] if len(files) == 1 else all_faults(what, faults))


def _threshold(text: str | None, tuned: float | None, name: str) -> tuple[float, str]:
    """Threshold, and where it is from."""
    from voxplain.errors import DataError

    if text is None and tuned is None:
        return FIXED, f"threshold {FIXED} (the paper's: the run knew no truth to tune it on)"
    if text in (None, "tuned"):
        if tuned is None:
            raise DataError(
                f"--threshold tuned: the run knew no truth to tune generator {name} on; give a "
                f"number, e.g. {FIXED}"
            )
        return tuned, f"threshold {tuned:.3g} (tuned on the validation slices)"
    try:
        value = float(str(text))
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise DataError(f"--threshold is tuned or a number from 0 to below 1, got {text!r}")
    return value, f"threshold {value:g} (given)"


def _post(post: Post | None, min_pixels: int | None, own: PostFilterConfig) -> PostFilterConfig:
    change: dict[str, bool | int] = {} if min_pixels is None else {"min_pixels": min_pixels}
    if post is not None:
        change = {"min_pixels": 0, **change}
        change |= {"open_close": post != "none", "largest_only": post == "paper"}
    return own.model_copy(update=change)


def _numbers(text: str | None) -> tuple[int, ...] | None:
    """Numbers of slices: ``3,4``, ``10:20``, or both."""
    from voxplain.errors import DataError

    if text is None:
        return None
    found: set[int] = set()
    try:
        for part in text.split(","):
            first, mark, last = part.partition(":")
            found |= set(range(int(first), int(last) if mark else int(first) + 1))
    except ValueError:
        found = set()
    if not found or min(found) < 0:
        raise DataError(f"--slices are numbers such as 3,4 or 10:20 (10 to 19), got {text!r}")
    return tuple(sorted(found))


@contextmanager
def _bar(is_quiet: bool, n_images: int) -> Iterator[Callable[[int, str, int], None]]:
    """Show images and slices done while they run."""
    from rich.progress import MofNCompleteColumn, TextColumn

    from voxplain.cli.progress import timed_bar
    from voxplain.report.cohort_rows import counted

    with timed_bar(is_quiet, MofNCompleteColumn(), TextColumn("images,")) as bar:
        task = bar.add_task("reading", total=n_images)

        def show(number: int, case: str, n_slices: int) -> None:
            bar.update(task, completed=number, description=f"{case}, {counted(n_slices, 'slice')}")

        yield show


def _print_done(done: Sequence[Done], place: Path, words: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(title=Text(words))
    table.add_column("image", overflow="fold")
    for heading in ("slices", "called abnormal", "of them turned", "marked voxels"):
        table.add_column(heading, justify="right")
    for one in done:
        if one.n_slices:
            numbers = (one.n_slices, one.n_abnormal, one.n_turned, one.n_marked)
            table.add_row(Text(one.case), *map(str, numbers))
    if table.row_count:
        console.print(table)
    else:
        console.print(Text(words), soft_wrap=True)
    for one in done:
        for note in one.notes:
            console.print(Text(f"note: {one.case}: {note}"), soft_wrap=True)
    n_before = sum(one.n_slices == 0 for one in done)
    if n_before:
        console.print(Text(f"{n_before} of {len(done)} images were finished before"))
    console.print(Text(f"in {place}"), soft_wrap=True)
