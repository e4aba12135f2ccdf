"""``voxplain context``: how many millimetres around a lesion a model needs to find it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    import pandas as pd

Precision = Literal["float32", "float64", "bf16", "fp16"]
Shown = Literal["keep", "remove", "both"]

EPILOG = """Examples

The lesions that a network finds, with 0 to 30 mm of what is around them; the rest is 0:

voxplain context --model unet --image flair.nii.gz --image mprage.nii.gz

Two networks in one table, missed lesions too, the rest of the image blurred in place of 0:

voxplain context --model unet --model swin --image flair.nii.gz --image mprage.nii.gz --truth lesions.nii.gz --fill blur:5

The other way round: how near the surroundings are that are missed when they become healthy tissue:

voxplain context --model unet --image flair.nii.gz --image mprage.nii.gz --mode remove --fill inpaint:5 --distances 1,2,4,8,16

As published: lesions of 90 to 120 voxels, 34 dilations by a voxel, the rest 0:

voxplain context --model unet --image flair.nii.gz --image mprage.nii.gz --threshold 0.3 --steps 34 --min-voxels 90 --max-voxels 120"""  # noqa: E501


def context(
    model: Annotated[
        list[str],
        typer.Option(
            metavar="MODEL",
            help="Folder of the model: a model card (model.yaml), an nnU-Net results folder or a "
            "MONAI bundle; or totalseg:TASK. Repeat it to compare models; each is asked about "
            "the lesions that it finds itself.",
            show_default=False,
        ),
    ],
    image: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE",
            help="Image (NIfTI, DICOM folder, …). Repeat it for the channels, in the models' "
            "order; all on one grid.",
            show_default=False,
        ),
    ],
    truth: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Mask of the true lesions: every value but 0 counts. With it lesions are typed, "
            "and missed ones are asked about too.",
            show_default=False,
        ),
    ] = None,
    within: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Mask of the tissue that the fill inpaint takes. Default: what is not background "
            "in the first channel.",
            show_default=False,
        ),
    ] = None,
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
    distances: Annotated[
        str | None,
        typer.Option(
            metavar="MM,MM,…",
            help="How far the surroundings reach, from voxel centre to voxel centre. Default "
            "0,1,2,3,4,5,6,7,8,10,12,15,20,30.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="In place of millimetres: 1 to N dilations of the lesion by its 18 neighbours "
            "(2D: 8).",
            show_default=False,
        ),
    ] = None,
    mode: Annotated[
        Shown,
        typer.Option(
            help="keep: only the lesion and what is so near stand. remove: what is so near is "
            "taken away, lesion and all else stand."
        ),
    ] = "keep",
    fill: Annotated[
        str,
        typer.Option(
            metavar="FILL",
            help="What stands where the image is taken away, in the model's intensities: a "
            "number, mean, blur:MM, noise, inpaint:MM (healthy tissue around), inpaint:DIR (what a "
            "trained network continues; --mode remove), image:FILE.",
        ),
    ] = "0",
    min_voxels: Annotated[
        int, typer.Option(min=1, help="Smaller lesions are not asked about.")
    ] = 1,
    max_voxels: Annotated[
        int | None,
        typer.Option(min=1, help="Larger lesions are not asked about.", show_default=False),
    ] = None,
    share: Annotated[
        float,
        typer.Option(help="Of the final probability, for the millimetres in context_need.csv."),
    ] = 0.95,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the results. Default voxplain-CASE-context.",
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
            help="What is the same for all scans of one patient, for statistics; a code, never a "
            "name. Default: the case.",
            show_default=False,
        ),
    ] = None,
    model_set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Setting of every model, e.g. folds=0. Repeatable.",
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
    report: Annotated[
        bool,
        typer.Option("--report/--no-report", help="Write report.html, a page that opens offline."),
    ] = True,
    trust_code: Annotated[
        bool,
        typer.Option("--trust-code", help="Run code that comes with the model. Read it first."),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.")
    ] = False,
) -> None:
    """Show a model each lesion with more and more of its surroundings.

    For every distance: the probability of the lesion and whether it is still found. From it the
    millimetres that a lesion needs: from there on its probability is at least 95 % of that in
    the whole image. Only windows that hold a lesion are run. Writes context.csv,
    context_need.csv, context_medians.csv, context_curves.csv (and .parquet), report.html
    and provenance.json: all of them, or none if anything goes wrong.
    """
    import pandas as pd

    from voxplain.attribution.words import key_values
    from voxplain.cli.context_job import checked_model, chosen_lesions, context_asked
    from voxplain.cli.context_result import (
        context_provenance,
        model_labels,
        print_context,
        save_context,
    )
    from voxplain.cli.job import result_folder
    from voxplain.cli.progress import passes_bar
    from voxplain.errors import MethodError
    from voxplain.inference.compute import Compute
    from voxplain.lesions.case import LesionSettings, open_case
    from voxplain.lesions.context import context as ask
    from voxplain.models import load_model
    from voxplain.records.archive import slugs
    from voxplain.report import write_context_report
    from voxplain.space import read_image, read_labels
    from voxplain.study.context_need import context_curves, context_medians, context_need

    asked = context_asked(distances, steps, fill, mode, patient)
    if not 0 < share <= 1:
        raise MethodError(f"--share is above 0 and at most 1, e.g. 0.95; got {share}")
    if max_voxels is not None and max_voxels < min_voxels:
        raise MethodError(
            f"--max-voxels is at least --min-voxels, got {max_voxels} and {min_voxels}"
        )
    settings = LesionSettings(class_name=class_, threshold=threshold)
    volume = read_image(image, name=case)
    true = None if truth is None else read_labels(truth, names={})
    healthy = None if within is None else read_labels(within, names={})
    options = key_values(model_set or (), "--model-set")
    loaded = [
        checked_model(load_model(one, trust_code=trust_code, **options), class_, volume, image)
        for one in model
    ]
    labels = model_labels(model, [one.info.name for one in loaded])
    compute = Compute(device=device, precision=precision, batch_size=batch_size)
    frames: list[pd.DataFrame] = []
    provenance = []
    for label, one in zip(labels, loaded, strict=True):
        start = time.perf_counter()
        with (
            passes_bar(quiet) as progress,
            open_case(
                one, volume, truth=true, within=healthy, settings=settings, seed=seed,
                compute=compute,
            ) as opened,
        ):  # fmt: skip
            chosen = chosen_lesions(opened, min_voxels, max_voxels, progress)
            frame = ask(opened, lesions=chosen, progress=progress, **asked)
            frames.append(frame.assign(model=label))
            kept = {
                **asked,
                "fill": str(asked["fill"]),
                "min_voxels": min_voxels,
                "max_voxels": max_voxels,
            }
            provenance.append(
                context_provenance(opened, label, kept, seed, time.perf_counter() - start)
            )
    frame = pd.concat([one for one in frames if len(one)] or frames[:1], ignore_index=True)
    need = context_need(frame, share)
    tables = {
        "context": frame,
        "context_need": need,
        "context_medians": context_medians(need, seed=seed),
        "context_curves": context_curves(frame),
    }
    place = out or Path(f"voxplain-{slugs([volume.name])[volume.name]}-context")
    with result_folder(place) as folder:
        save_context(folder, tables, provenance)
        if report:
            write_context_report(
                frame, need, folder / "report.html", provenance, medians=tables["context_medians"]
            )
        files = sorted(file.name for file in folder.iterdir())
    if not quiet:
        print_context(volume.name, tables, provenance, place, files)
