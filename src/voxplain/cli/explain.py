"""``voxplain explain``: one image, one model, some targets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Score = Literal["logit", "probability", "log_odds", "margin"]
Reduce = Literal["sum", "mean", "weighted", "dice"]
Precision = Literal["float32", "float64", "bf16", "fp16"]
Scale = Literal["shared", "own"]

EPILOG = """Examples

All classes, each over the voxels predicted as it:

voxplain explain --model unet --image ct.nii.gz

One class, few noise copies, its price first:

voxplain explain --model unet --image ct.nii.gz --target class:liver --set n=8 --dry-run

An nnU-Net, one fold, without mirroring:

voxplain explain --model Dataset042_Liver/nnUNetTrainer__nnUNetPlans__3d_fullres --image ct_0000.nii.gz --model-set folds=0 --model-set mirroring=off

A DICOM series, with TotalSegmentator:

voxplain explain --model totalseg:total_fast --image series/ --target class:liver

Two channels; why a lesion here and not edema:

voxplain explain --model brats --image t1.nii.gz --image t2.nii.gz --target "class:tumor@mask:lesion.nii.gz minus class:edema@mask:lesion.nii.gz"

Own regions, Integrated Gradients:

voxplain explain --model unet --image ct.nii.gz --method integrated_gradients --set n=32 --regions organs.nii.gz"""  # noqa: E501


def explain(
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
            help="Image to explain (NIfTI, PNG, JPEG, TIFF, NPY, folder of a DICOM series; DIR#N "
            "is series N of a folder with several). Repeat it for the channels, in the model's "
            "order.",
            show_default=False,
        ),
    ],
    model_set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Setting of the model. nnU-Net: folds=0,1, checkpoint=best, mirroring=off, "
            "step=0.5; MONAI bundle: config=FILE, activation=softmax. Repeatable.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Attribution method or preset; see [b]voxplain methods[/b]."
        ),
    ] = "smoothgrad",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Setting of the method, e.g. n=8. Repeatable.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TARGET",
            help="What to explain: all, class:NAME, predicted (a classifier's likeliest class), "
            "mask:FILE, voxel:I,J,K, class:NAME@mask:FILE, class:NAME@voxel:I,J,K, "
            "class:NAME@instance:N, class:NAME@everywhere, or two with ' minus ' between. "
            "Repeatable; default all.",
            show_default=False,
        ),
    ] = None,
    score: Annotated[
        Score, typer.Option(help="Number of each voxel that the target adds up.")
    ] = "logit",
    reduce: Annotated[
        Reduce,
        typer.Option(
            help="How voxels become one number: sum or mean over the mask, weighted by the "
            "probability, or soft Dice with the mask."
        ),
    ] = "sum",
    regions: Annotated[
        str,
        typer.Option(
            metavar="predicted|FILE",
            help="Regions to sum the map over: the predicted classes, or a label map on any grid "
            "(names from labels.json beside it); totalseg:FILE is one that TotalSegmentator "
            "made, or its folder of masks.",
        ),
    ] = "predicted",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the results; files of the same name in it are replaced. Default "
            "voxplain-CASE.",
            show_default=False,
        ),
    ] = None,
    case: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the case in tables and reports. Default: the file's name.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all noise.")] = 0,
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
    checkpointing: Annotated[
        bool,
        typer.Option(
            "--checkpointing",
            help="Run blocks of the network forward again in each backward pass: less memory, "
            "more time, the same result.",
        ),
    ] = False,
    save_maps: Annotated[
        bool | None,
        typer.Option(
            "--save-maps/--no-save-maps",
            help="Write attribution_TARGET.nii.gz. Default: if there are at most 4 targets.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        bool,
        typer.Option("--report/--no-report", help="Write report.html, a page that opens offline."),
    ] = True,
    scale: Annotated[
        Scale,
        typer.Option(help="Colours of the report's maps: one scale for all targets, or own ones."),
    ] = "shared",
    trust_code: Annotated[
        bool,
        typer.Option(
            "--trust-code",
            help="Run code that comes with the model: a network class from outside MONAI and "
            "torch, the expressions in a bundle (there also --trust-bundle). Read it first.",
        ),
    ] = False,
    trust_bundle: Annotated[
        bool, typer.Option(hidden=True, help="The same as --trust-code.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only tell windows, passes, memory and time; write nothing."
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.")
    ] = False,
) -> None:
    """Explain what in an image made a model say what it says.

    Writes prediction.nii.gz, attribution_TARGET.nii.gz, regions.csv and .parquet, report.html
    and provenance.json: all of them, or none if anything goes wrong.
    """
    from voxplain.cli.job import Job, result_folder
    from voxplain.cli.progress import passes_bar
    from voxplain.cli.summary import print_estimate, print_summary
    from voxplain.inference.compute import Compute
    from voxplain.records.archive import slugs

    job = Job.read(
        model,
        image,
        method=method,
        settings=set_ or (),
        targets=target or ("all",),
        score=score,
        reduction=reduce,
        regions=regions,
        case=case,
        seed=seed,
        compute=Compute(
            device=device, precision=precision, batch_size=batch_size, checkpointing=checkpointing
        ),
        trust_code=trust_code or trust_bundle,
        model_settings=model_set or (),
    )
    if dry_run:
        print_estimate(job.estimate(), len(job.targets))
        return
    place = out or Path(f"voxplain-{slugs([job.image.name])[job.image.name]}")
    with result_folder(place) as folder:
        with passes_bar(quiet) as progress:
            explanation = job.run(
                folder, maps=save_maps, report=scale if report else None, progress=progress
            )
        files = [path.name for path in folder.iterdir()]
    if not quiet:
        print_summary(explanation, place, files)
