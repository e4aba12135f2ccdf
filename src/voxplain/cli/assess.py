"""``voxplain assess``: whether the explanations of a model can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Precision = Literal["float32", "float64", "bf16", "fp16"]
Preset = Literal["default", "agg2exp", "arun2021"]

EPILOG = """Examples

Two methods on every case of a folder, their price first:

voxplain assess --model unet --data Dataset042_Liver --methods gradient,smoothgrad --dry-run

Only what is cheap, two classes:

voxplain assess --model unet --data cases.csv --methods gradient,shapley --metrics complexity,utility,efficiency --target class:liver --target class:spleen

Faithfulness, sensitivity, complexity and seconds as Agg²Exp defines them:

voxplain assess --model unet --data cases.csv --preset agg2exp

Three trainings of two networks, the eight methods and four criteria of Arun et al.:

voxplain assess --model inception_0 --model inception_1 --model densenet_0 --data xrays --boxes boxes.csv --preset arun2021

A run that was stopped goes on where it was when the same command is given again. A finished one is not measured again but with --restart."""  # noqa: E501


def assess(
    model: Annotated[
        list[str],
        typer.Option(
            metavar="MODEL",
            help="Folder of a model: a model card, an nnU-Net results folder, a MONAI bundle. "
            "Repeat it to compare trainings and architectures.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Cases: a data folder, a datalist or a manifest; see [b]voxplain data[/b].",
            show_default=False,
        ),
    ],
    methods: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:KEY=VALUE],…",
            help="Attribution methods or presets, between commas; settings after colons, e.g. "
            "smoothgrad:n=8:noise=0.1. Repeatable. Default: gradient, smoothgrad, "
            "integrated_gradients; with a preset the published ones.",
            show_default=False,
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="GROUP,…",
            help="What to measure: faithfulness, curves, road, stability, complexity, utility, "
            "randomisation, agreement, fills, efficiency. Default: all but road; with a preset "
            "what the paper has.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        Preset,
        typer.Option(help="Adds the published definitions beside ours: agg2exp or arun2021."),
    ] = "default",
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TARGET",
            help="What is explained, e.g. class:liver; see [b]voxplain explain[/b]. Repeatable. "
            "Default: every class but the background.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Cases of this split only. Default: test where the data has one, else all.",
            show_default=False,
        ),
    ] = None,
    n_cases: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many cases, the first ones.", show_default=False),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Table of true boxes: columns case, target, i0, j0 (k0), i1, j1 (k1), voxel "
            "indices, the second ones not included.",
            show_default=False,
        ),
    ] = None,
    removal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="What faithfulness removes at random: voxels, regions, supervoxels:N. "
            "Repeatable. Default voxels.",
            show_default=False,
        ),
    ] = None,
    runs: Annotated[int, typer.Option(min=3, help="Random removals of each kind.")] = 100,
    fill: Annotated[
        str,
        typer.Option(
            metavar="FILL",
            help="What stands where something is removed: a number (model intensities), mean, "
            "blur:MM, noise.",
        ),
    ] = "0",
    steps: Annotated[int, typer.Option(min=1, help="Steps of deletion and insertion.")] = 8,
    radius: Annotated[
        float, typer.Option(help="Half width of the noise of sensitivity, model intensities.")
    ] = 0.1,
    copies: Annotated[
        int, typer.Option(min=1, help="Noisy copies of the image, for sensitivity.")
    ] = 3,
    order: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORDER",
            help="How layers are randomised: top_down, bottom_up, independent. Repeatable. "
            "Default top_down.",
            show_default=False,
        ),
    ] = None,
    stages: Annotated[int, typer.Option(min=1, help="Steps of a cascade.")] = 8,
    randomisations: Annotated[int, typer.Option(min=1, help="Seeds of each cascade.")] = 1,
    smooth: Annotated[
        int,
        typer.Option(min=1, help="Noisy copies that each map of a cascade is averaged over."),
    ] = 1,
    pairs: Annotated[int, typer.Option(min=1, help="Random pairs of cases to compare with.")] = 50,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Trivial maps in the table: random, edges, intensity, center, prediction, "
            "average_mask (of the split train), given:FILE. Repeatable. Default: the first five.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the results.")] = Path(
        "voxplain-assess"
    ),
    restart: Annotated[
        bool,
        typer.Option(
            "--restart",
            help="Measure anew: throw away what an unfinished run left in the folder, and replace "
            "a finished result.",
        ),
    ] = False,
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
        typer.Option("--trust-code", help="Run code that comes with the models. Read it first."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only tell the passes of each part and the time; write nothing."
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.")
    ] = False,
) -> None:
    """Measure whether explanations can be trusted: one table, one page, verdicts with codes.

    Faithfulness, stability, complexity, agreement with true masks or boxes, what is left of a map
    when the weights are random, and what two trainings agree on, beside trivial maps. Writes
    scores.csv, summary.csv, comparisons.csv, stages.csv, pictures.csv (and .parquet),
    planes.npz, report.html and provenance.json.
    """
    from voxplain.cli.assess_job import AssessJob

    job = AssessJob.read(
        model, data, methods=methods or (), metrics=metrics, preset=preset, targets=target or (),
        split=split, n_cases=n_cases, boxes=boxes, removals=removal or ("voxels",), n_runs=runs,
        fill=fill, n_steps=steps, radius=radius, n_copies=copies, orders=order or ("top_down",),
        n_stages=stages, n_randomisations=randomisations, n_pairs=pairs, n_smooth=smooth,
        baselines=baseline,
        model_settings=model_set or (), seed=seed, device=device, precision=precision,
        batch_size=batch_size, trust_code=trust_code,
    )  # fmt: skip
    if dry_run:
        job.print_estimate()
        return
    job.run(out, restart=restart, report=report, is_quiet=quiet)
