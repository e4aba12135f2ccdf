"""``voxplain instances``: every lesion of an image, explained by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxplain.attribution.method import Method

Precision = Literal["float32", "float64", "bf16", "fp16"]
Rule = Literal["overlap", "iou", "adjusted_iou", "one_to_one"]
Maps = Literal["crop", "full", "none"]

EPILOG = """Examples

Lesions of two channels, typed against the truth, with 5 healthy regions beside them:

voxplain instances --model unet --image flair.nii.gz --image mprage.nii.gz --truth lesions.nii.gz --controls 5

The average and the maximum version, four noise copies each:

voxplain instances --model unet --image flair.nii.gz --image mprage.nii.gz --method smoothgrad:n=4,noise=0.05 --method gradient_max:n=4

As published (hours on a CPU): threshold, 18 neighbours, more than 5 voxels, 50 noise copies:

voxplain instances --model unet --image flair.nii.gz --image mprage.nii.gz --truth lesions.nii.gz --threshold 0.3 --min-voxels 6 --method ies-average --method ies-max --method ies-grad_cam_pp

A run that was stopped goes on where it was when the same command is given again."""  # noqa: E501


def instances(
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
            help="Image (NIfTI, DICOM folder, …). Repeat it for the channels, in the model's "
            "order; all on one grid.",
            show_default=False,
        ),
    ],
    truth: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Mask of the true lesions: every value but 0 counts. With it lesions are true "
            "positives, under-segmented, false positives or missed.",
            show_default=False,
        ),
    ] = None,
    within: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Mask where control regions may lie; give one for CT. Default: what is not "
            "background in the first channel.",
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
    neighbours: Annotated[
        int | None,
        typer.Option(
            metavar="6|18|26",
            help="Neighbours that make voxels one lesion (2D: 4 or 8). Default 18, or 4.",
            show_default=False,
        ),
    ] = None,
    min_voxels: Annotated[
        int, typer.Option(min=1, help="Smaller lesions are left out, on both sides.")
    ] = 1,
    min_mm3: Annotated[
        float, typer.Option(min=0, help="The same in cubic millimetres (2D: square).")
    ] = 0.0,
    rule: Annotated[
        Rule,
        typer.Option(
            help="When a predicted lesion is a true one: it touches one (overlap), its best or "
            "adjusted IoU reaches --rule-threshold, or so in a one-to-one matching."
        ),
    ] = "overlap",
    rule_threshold: Annotated[
        float, typer.Option(metavar="IOU", help="Least IoU of the rule.")
    ] = 0.1,
    controls: Annotated[
        int,
        typer.Option(
            min=0,
            help="Healthy control regions (true negatives), each of a lesion's shape, at random "
            "places.",
        ),
    ] = 0,
    margin_mm: Annotated[
        float, typer.Option(min=0, help="Least distance of a control region to any lesion, mm.")
    ] = 5.0,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:KEY=VALUE,…]",
            help="Attribution method or preset, with its settings; see [b]voxplain methods[/b]. "
            "Repeatable. Default: smoothgrad:n=8,noise=0.05 and gradient_max.",
            show_default=False,
        ),
    ] = None,
    shell: Annotated[
        str, typer.Option(metavar="MM,MM,…", help="Ends of the shells around a lesion.")
    ] = "0,2,4,6,8,10,15,20",
    maps: Annotated[
        Maps,
        typer.Option(
            help="Keep a lesion's maps around it (crop), beside them the whole maps on the image's "
            "grid (full), or none."
        ),
    ] = "crop",
    n_maps: Annotated[
        int,
        typer.Option(
            min=0, help="Lesions whose maps are kept and pictured: the largest of each type."
        ),
    ] = 40,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the results. Default voxplain-CASE-instances.",
            show_default=False,
        ),
    ] = None,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Throw away what an unfinished run left in the folder."),
    ] = False,
    case: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the case in tables and reports, never a patient's. Default: the file's.",
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
    checkpointing: Annotated[
        bool,
        typer.Option(
            "--checkpointing",
            help="Run blocks of the network forward again in each backward pass: less memory, "
            "more time, the same result.",
        ),
    ] = False,
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
    """Explain every lesion of an image by itself: which channel, which tissue, how far around.

    Finds the lesions that the model predicts, types them against the truth, and takes the
    saliency of each one's own voxels; missed lesions and healthy control regions are explained
    at their masks. Writes instances.csv, saliency.csv, shells.csv (and .parquet),
    instances.nii.gz, maps/, report.html and provenance.json.
    """
    from voxplain.attribution.words import key_values
    from voxplain.cli.instances_summary import print_instances
    from voxplain.cli.job import check_file_order, result_folder
    from voxplain.cli.progress import passes_bar
    from voxplain.inference.compute import Compute
    from voxplain.lesions.case import LesionSettings, lesion_model
    from voxplain.lesions.explain import explain_lesions
    from voxplain.lesions.saliency import SaliencySettings
    from voxplain.lesions.unfinished import take_full_maps
    from voxplain.models import load_model
    from voxplain.records.archive import slugs
    from voxplain.records.unfinished import remove_parts
    from voxplain.report import write_lesion_report
    from voxplain.space import read_image, read_labels

    methods = _methods(method or ("smoothgrad:n=8,noise=0.05", "gradient_max"))
    lesions = LesionSettings(
        class_name=class_, threshold=threshold, neighbours=neighbours, min_voxels=min_voxels,
        min_mm3=min_mm3, rule=rule, rule_threshold=rule_threshold, controls=controls,
        margin_mm=margin_mm,
    )  # fmt: skip
    saliency = SaliencySettings(edges_mm=_edges(shell), maps=maps, n_maps=n_maps)
    volume = read_image(image, name=case)
    true = None if truth is None else read_labels(truth, names={})
    healthy = None if within is None else read_labels(within, names={})
    options = key_values(model_set or (), "--model-set")
    loaded = lesion_model(load_model(model, trust_code=trust_code, **options), class_)
    loaded.check_image(volume)
    check_file_order(image, loaded.info.channel_names)
    place = out or Path(f"voxplain-{slugs([volume.name])[volume.name]}-instances")
    unfinished = place / "unfinished"
    if restart:
        remove_parts(unfinished)
    compute = Compute(
        device=device, precision=precision, batch_size=batch_size, checkpointing=checkpointing
    )
    try:
        with passes_bar(quiet) as progress:
            result = explain_lesions(
                loaded, volume, methods, truth=true, within=healthy, lesions=lesions,
                saliency=saliency, patient=patient, seed=seed, unfinished=unfinished,
                compute=compute, progress=progress,
            )  # fmt: skip
    except (KeyboardInterrupt, SystemExit):
        if any(unfinished.glob("*.part.json")):
            typer.echo(f"finished lesions are in {unfinished}; the same command goes on", err=True)
        raise
    with result_folder(place) as folder:
        take_full_maps(unfinished, folder)
        result.save(folder)
        if report:
            write_lesion_report(result, folder / "report.html")
        files = [file.name for file in folder.iterdir()]
    remove_parts(unfinished)
    if not quiet:
        print_instances(result, place, files)


def _methods(texts: Sequence[str]) -> dict[str, Method]:
    """Methods of texts ``NAME[:KEY=VALUE,…]``, by their label in the tables.

    The label is the name, or the whole text where a name comes with several settings.
    """
    from voxplain.attribution import method_of
    from voxplain.attribution.words import key_values
    from voxplain.errors import MethodError

    names = [text.partition(":")[0] for text in texts]
    methods: dict[str, Method] = {}
    for name, text in zip(names, texts, strict=True):
        settings = [one for one in text.partition(":")[2].split(",") if one]
        label = name if names.count(name) == 1 else text
        if label in methods:
            raise MethodError(f"--method {text} is given twice")
        methods[label] = method_of(name, key_values(settings, f"--method {name}:"))
    return methods


def _edges(text: str) -> tuple[float, ...]:
    from voxplain.errors import MethodError

    try:
        return tuple(float(one) for one in text.split(","))
    except ValueError:
        raise MethodError(f"--shell takes millimetres, e.g. --shell 0,2,4; got {text!r}") from None
