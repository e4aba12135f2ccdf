"""``voxplain response``: how a model answers to lesions that are put into healthy tissue."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    import pandas as pd

    from voxplain.lesions.response import Inserted

Precision = Literal["float32", "float64", "bf16", "fp16"]
Source = Literal["predicted", "truth"]

EPILOG = """Examples

Lesions like those that the model predicts here, at 5 healthy places:

voxplain response --model unet --image flair.nii.gz --image mprage.nii.gz

Like the true ones, in given sizes and contrasts:

voxplain response --model unet --image flair.nii.gz --image mprage.nii.gz --truth lesions.nii.gz --learn-from truth --diameters 3,5,8,12 --contrasts 0.5,1,2

In a healthy patient, like those of another one:

voxplain response --model unet --image healthy_flair.nii.gz --image healthy_mprage.nii.gz --intensity voxplain-patient_1-response/intensity.json --places 20

To look at what was inserted:

voxplain response --model unet --image flair.nii.gz --image mprage.nii.gz --places 1 --save-images"""  # noqa: E501


def response(
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="Folder of the model: a model card (model.yaml), an nnU-Net results folder or a "
            "MONAI bundle; or totalseg:TASK.",
            show_default=False,
        ),
    ],
    image: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE",
            help="Image (NIfTI, DICOM folder, PNG, …). Repeat it for the channels, in the "
            "model's order; all on one grid.",
            show_default=False,
        ),
    ],
    truth: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Mask of the true lesions: every value but 0 counts. Inserted lesions keep away "
            "from them, as from the predicted ones.",
            show_default=False,
        ),
    ] = None,
    learn_from: Annotated[
        Source,
        typer.Option(
            help="Lesions of this image whose contrast, border and texture the inserted ones get."
        ),
    ] = "predicted",
    intensity: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="intensity.json of another run, in place of learning: contrast, border and "
            "texture of its lesions, scaled by the spread of this image's healthy tissue.",
            show_default=False,
        ),
    ] = None,
    within: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Mask of the tissue where lesions may be put, e.g. white matter. Default: what "
            "is not background in the first channel.",
            show_default=False,
        ),
    ] = None,
    diameters: Annotated[
        str, typer.Option(metavar="MM,MM,…", help="Diameters of the lesions.")
    ] = "3,5,8,12",
    contrasts: Annotated[
        str,
        typer.Option(
            metavar="X,X,…",
            help="Factors of the real lesions' contrast: 1 is like them, 0.5 half as visible. "
            "0, the image as it is, is always told.",
        ),
    ] = "0.25,0.5,1,1.5,2",
    places: Annotated[
        int, typer.Option(min=1, help="Healthy places, drawn at random; each gets all lesions.")
    ] = 5,
    margin_mm: Annotated[
        float, typer.Option(min=0, help="Least distance to any predicted or true lesion, mm.")
    ] = 5.0,
    irregularity: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Change of the radius around the border, 0 to 0.5."),
    ] = 0.0,
    texture: Annotated[
        bool, typer.Option("--texture/--no-texture", help="Add the texture of real lesions.")
    ] = True,
    class_: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="Class of the lesions. Default: the only one beside the background.",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Probability from which a voxel is a lesion's. Default: where the class is "
            "predicted.",
            show_default=False,
        ),
    ] = None,
    save_images: Annotated[
        bool,
        typer.Option(
            "--save-images",
            help="Write each image with its lesion, and the lesion's mask, into images/.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the results. Default voxplain-CASE-response.",
            show_default=False,
        ),
    ] = None,
    case: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the case in tables. Default: the file's name.",
            show_default=False,
        ),
    ] = None,
    patient: Annotated[
        str | None,
        typer.Option(
            metavar="CODE",
            help="What is the same for all scans of one patient; a code, never a name. Default: "
            "the case.",
            show_default=False,
        ),
    ] = None,
    model_set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Setting of the model, e.g. folds=0. Repeatable.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all draws.")] = 0,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")
    ] = "auto",
    precision: Annotated[
        Precision, typer.Option(help="Precision of the network's passes.")
    ] = "float32",
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Windows in one pass. Default: chosen from free memory.", show_default=False
        ),
    ] = None,
    trust_code: Annotated[
        bool,
        typer.Option("--trust-code", help="Run code that comes with the model. Read it first."),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.")
    ] = False,
) -> None:
    """Insert lesions of known size and contrast into healthy tissue, and see which are detected.

    Learns from real lesions how they differ from the tissue around them, adds such changes to
    the image at random healthy places, and predicts the windows that hold them. Writes
    response.csv and .parquet (one row a lesion), curve.csv (detection by diameter and contrast,
    with intervals), half.csv (the diameter at which half are detected), intensity.json and
    provenance.json.
    """
    from voxplain.attribution.words import key_values
    from voxplain.cli.job import check_file_order, result_folder
    from voxplain.cli.progress import passes_bar
    from voxplain.cli.response_job import Questions, answers_of
    from voxplain.inference.compute import Compute
    from voxplain.lesions.case import LesionSettings, lesion_model
    from voxplain.lesions.intensity import LesionIntensity
    from voxplain.models import load_model
    from voxplain.records.archive import slugs
    from voxplain.space import read_image, read_labels

    questions = Questions(
        diameters_mm=_numbers(diameters, "--diameters", "3,5,8"),
        contrasts=_numbers(contrasts, "--contrasts", "0.5,1,2"),
        n_places=places, margin_mm=margin_mm, irregularity=irregularity, texture=texture,
    )  # fmt: skip
    lesions = LesionSettings(class_name=class_, threshold=threshold, margin_mm=margin_mm)
    known = None if intensity is None else LesionIntensity.load(intensity)
    volume = read_image(image, name=case)
    true = None if truth is None else read_labels(truth, names={})
    healthy = None if within is None else read_labels(within, names={})
    options = key_values(model_set or (), "--model-set")
    loaded = lesion_model(load_model(model, trust_code=trust_code, **options), class_)
    loaded.check_image(volume)
    check_file_order(image, loaded.info.channel_names)
    place = out or Path(f"voxplain-{slugs([volume.name])[volume.name]}-response")
    with result_folder(place) as folder:
        with passes_bar(quiet) as progress:
            result = answers_of(
                loaded, volume, questions, intensity=known, from_truth=learn_from == "truth",
                truth=true, within=healthy, lesions=lesions, patient=patient, seed=seed,
                compute=Compute(device=device, precision=precision, batch_size=batch_size),
                progress=progress, on_image=_writer(folder) if save_images else None,
            )  # fmt: skip
        result.save(folder)
    if not quiet:
        _print(result.curve, result.half, place)


def _numbers(text: str, option: str, example: str) -> tuple[float, ...]:
    from voxplain.errors import MethodError

    try:
        return tuple(float(one) for one in text.split(","))
    except ValueError:
        raise MethodError(
            f"{option} takes numbers with commas between, e.g. {option} {example}; got {text!r}"
        ) from None


def _writer(folder: Path) -> Callable[[Inserted], None]:
    """Write each image and its lesion's mask into ``images/``."""
    from voxplain.space import write_nifti

    (folder / "images").mkdir()

    def write(one: Inserted) -> None:
        row = one.row
        name = f"place{row['place']}_{row['diameter_mm']:g}mm_x{row['contrast']:g}"
        write_nifti(folder / "images" / f"{name}.nii.gz", one.image.data, one.image.grid)
        mask = one.mask.astype("uint8")
        write_nifti(folder / "images" / f"{name}_lesion.nii.gz", mask, one.image.grid)

    return write


def _print(curve: pd.DataFrame, half: pd.DataFrame, place: Path) -> None:
    """Show the share detected by diameter and contrast."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(title="share of inserted lesions that are detected")
    table.add_column("diameter")
    strengths = sorted(curve["contrast"].unique())
    for one in strengths:
        table.add_column(Text(f"× {one:g}" if one else "clean"), justify="right")
    for diameter, rows in curve.groupby("diameter_mm"):
        rates = rows.set_index("contrast")["rate"]
        table.add_row(f"{diameter:g} mm", *(f"{rates[one]:.0%}" for one in strengths))
    console.print(table)
    columns = half["contrast"].tolist(), half["diameter_mm"].tolist(), half["note"].tolist()
    for contrast, diameter_mm, note in zip(*columns, strict=True):
        size = "" if math.isnan(diameter_mm) else f"{diameter_mm:.2g} mm"
        words = ", ".join(one for one in (size, note) if one)
        console.print(Text(f"half are detected at contrast {contrast:g}: {words}"))
    console.print(Text(f"written to {place}: response.csv, curve.csv, half.csv, intensity.json"))
