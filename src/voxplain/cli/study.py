"""``voxplain study``: many cases explained, and what they say together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Score = Literal["logit", "probability", "log_odds", "margin"]
Reduce = Literal["sum", "mean", "weighted", "dice"]
Precision = Literal["float32", "float64", "bf16", "fp16"]

EPILOG = """Examples

voxplain study run --model unet --data cases.csv --methods gradient --out study

voxplain study status study

voxplain study report study"""

RUN_EPILOG = """Examples

What a study will cost, from one timed window:

voxplain study run --model unet --data cases.csv --methods smoothgrad:n=8 --out study --dry-run

Two classes, two processes; the same command goes on after a stop:

voxplain study run --model unet --data cases.csv --methods gradient --target class:heart --target class:aorta --workers 2 --out study

Two models and masks of effusions as a further region, on the machines of a Dask cluster:

voxplain study run --model unet --model other --data cases.csv --mask "effusion=masks/{case}_effusion.nii.gz" --scheduler tcp://10.0.0.5:8786 --out study

From a file:

voxplain study run study.yaml --out study"""  # noqa: E501

STATUS_EPILOG = """Examples

voxplain study status study"""

RETRY_EPILOG = """Examples

voxplain study retry study

voxplain study retry study --workers 2"""

REPORT_EPILOG = """Examples

voxplain study report study

Anomalies as published, fitted on another cohort:

voxplain study report external --reference train --anomalies agg2exp

Two cohorts, or two trainings of a model, side by side:

voxplain study report hospital_a --against hospital_b --out comparison"""

IMPORT_EPILOG = """Examples

A published table: one row a patient, columns heart_explanation_in_aorta_mass, heart_dice, age, …

voxplain study import b50.csv --out b50

voxplain study report b50"""

EXPORT_EPILOG = """Examples

voxplain study export study --out study.csv"""

app = typer.Typer(
    name="study",
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog=EPILOG,
    help="Explain many cases, and tell what they say together: what a model relies on, strange "
    "patients, bias.",
)

Folder = Annotated[
    Path,
    typer.Argument(
        metavar="DIR",
        help="Folder of a study, from [b]voxplain study run[/b] or [b]import[/b].",
        show_default=False,
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        min=1,
        help="Processes on this machine, each with its own copy of the models. 1: in this one.",
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Scheduler of a Dask cluster, e.g. tcp://10.0.0.5:8786; its workers see the same "
        "files. Instead of --workers.",
        show_default=False,
    ),
]
Resource = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=N",
        help="What a worker of the cluster must have for a case, e.g. GPU=1. Repeatable.",
        show_default=False,
    ),
]
TrustCode = Annotated[
    bool,
    typer.Option("--trust-code", help="Run code that comes with the models. Read it first."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.")]


@app.command(epilog=RUN_EPILOG, no_args_is_help=True)
def run(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[STUDY.yaml]",
            help="The study as a file, in place of the options, which change it.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[LABEL=]MODEL",
            help="Folder of a model: a model card, an nnU-Net results folder, a MONAI bundle; or "
            "totalseg:TASK. Repeat it to compare models.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Cases: a data folder, a datalist or a manifest; see [b]voxplain data[/b].",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the study.")] = Path(
        "voxplain-study"
    ),
    methods: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:KEY=VALUE],…",
            help="Attribution methods or presets, between commas; settings after colons. "
            "Repeatable. Default: smoothgrad:n=8.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TARGET",
            help="What is explained, e.g. class:liver; see [b]voxplain explain[/b]. Repeatable. "
            "Default: every class.",
            show_default=False,
        ),
    ] = None,
    score: Annotated[
        Score | None,
        typer.Option(
            help="Number of each voxel that the target adds up. Default: logit.",
            show_default=False,
        ),
    ] = None,
    reduce: Annotated[
        Reduce | None,
        typer.Option(
            help="How voxels become one number; see [b]voxplain explain[/b]. Default: sum.",
            show_default=False,
        ),
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="A further region, e.g. a pathology: masks with {case} in the name; a case "
            "without the file has none. Repeatable.",
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
    model_set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Setting of every model, e.g. folds=0. Repeatable.",
            show_default=False,
        ),
    ] = None,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    resource: Resource = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try again what failed before, too.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away the results that are in the folder.")
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of all draws. Default: 0.", show_default=False),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE", help="auto, cpu, cuda or cuda:N. Default: auto.", show_default=False
        ),
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Precision of the network's passes. Default: float32.", show_default=False
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Windows in one pass. Default: chosen from free memory.", show_default=False
        ),
    ] = None,
    planes: Annotated[
        bool | None,
        typer.Option(
            "--planes/--no-planes",
            help="Keep three small pictures of each case for the report. Default: yes.",
            show_default=False,
        ),
    ] = None,
    trust_code: TrustCode = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only tell passes, hours and storage; write nothing."),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Explain every case of a cohort; a run that was stopped goes on where it was.

    A case that fails is noted with its reason and does not stop the others. Results are Parquet
    files in DIR: regions (importance of each region for each target), classes (Dice with true
    labels), runs (what it cost, what failed), planes; beside them plan.json, cases.parquet and
    study.yaml.
    """
    from voxplain.cli.study_job import print_price, run_job, study_of

    asked = study_of(
        file, models=model or (), data=data, methods=methods or (), targets=target or (),
        score=score, reduction=reduce, masks=mask or (), split=split, n_cases=n_cases,
        model_settings=model_set or (), seed=seed, device=device, precision=precision,
        batch_size=batch_size, planes=planes,
    )  # fmt: skip
    if dry_run:
        print_price(asked, out, workers, scheduler, trust_code=trust_code)
        return
    run_job(
        asked, out, workers=workers, scheduler=scheduler, resources=resource or (), retry=retry,
        restart=restart, trust_code=trust_code, is_quiet=quiet,
    )  # fmt: skip


@app.command(epilog=STATUS_EPILOG, no_args_is_help=True)
def status(folder: Folder) -> None:
    """Tell what of a study is done, failed and left, how fast it goes and how long it will take.

    Reads the folder only: it can be asked while the study runs, also from another machine.
    """
    from voxplain.cli.study_summary import print_status
    from voxplain.study.store import Store

    print_status(Store(folder))


@app.command(epilog=RETRY_EPILOG, no_args_is_help=True)
def retry(
    folder: Folder,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    resource: Resource = None,
    trust_code: TrustCode = False,
    quiet: Quiet = False,
) -> None:
    """Try again the cases of a study that failed, and those that are left.

    Takes the settings from study.yaml in the folder.
    """
    from voxplain.cli.study_job import again, run_job

    run_job(
        again(folder), folder, workers=workers, scheduler=scheduler, resources=resource or (),
        retry=True, restart=False, trust_code=trust_code, is_quiet=quiet,
    )  # fmt: skip


@app.command(epilog=REPORT_EPILOG, no_args_is_help=True)
def report(
    folder: Folder,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for page and tables. Default: DIR/report.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Another study to compare with: the same models and methods, or one of each.",
            show_default=False,
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A study whose cases say what is ordinary. Default: the study itself, each case "
            "scored by a detector that has not seen its patient.",
            show_default=False,
        ),
    ] = None,
    anomalies: Annotated[
        Literal["default", "agg2exp"],
        typer.Option(
            help="default: Mahalanobis distance of log-ratios with conformal p-values; agg2exp: "
            "the published isolation forest on raw shares."
        ),
    ] = "default",
    detector: Annotated[
        Literal["mahalanobis", "isolation_forest", "lof"] | None,
        typer.Option(help="Another detector than the preset's.", show_default=False),
    ] = None,
    features: Annotated[
        Literal["clr", "share"] | None,
        typer.Option(
            help="Log-ratios of shares or raw shares, in place of the preset's.",
            show_default=False,
        ),
    ] = None,
    case: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A case to show against the cohort, beside the strangest. Repeatable.",
            show_default=False,
        ),
    ] = None,
    alpha: Annotated[
        float, typer.Option(help="Findings are told where q, the p-value after FDR, is at most it.")
    ] = 0.05,
    min_group: Annotated[
        int, typer.Option(min=2, help="Patients that a group needs to be compared.")
    ] = 5,
    n_boot: Annotated[
        int, typer.Option(min=1, help="Draws of whole patients behind an interval.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of draws and detectors.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Tell what a model relies on over the cohort, strange patients and bias, on one page.

    Writes report.html, importance.csv, cumulated.csv, contextual.csv, provenance.json and, where
    there is something to tell, anomalies.csv, drivers.csv, local.csv, dice.csv, low_dice.csv,
    bias.csv and comparisons.csv. Needs neither model nor images.
    """
    from voxplain.cli.study_report import report_job

    report_job(
        folder, out or folder / "report", against=against, reference=reference, preset=anomalies,
        detector=detector, features=features, cases=case or (), alpha=alpha,
        min_group=min_group, n_boot=n_boot, seed=seed,
        is_quiet=quiet,
    )  # fmt: skip


@app.command(name="import", epilog=IMPORT_EPILOG, no_args_is_help=True)
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Table (.csv, .tsv, .parquet) with a row a case and columns "
            "A_explanation_in_B_mass.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the study.", show_default=False)
    ],
    case_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Column that names the cases. Default: recognised.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[str, typer.Option(metavar="NAME", help="Label of the model.")] = "imported",
    method: Annotated[str, typer.Option(metavar="NAME", help="Label of the method.")] = "imported",
    extra: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGION",
            help="Region that overlaps others, e.g. a pathology. Repeatable. Default: recognised "
            "by shares that sum to more than 1.",
            show_default=False,
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Make a study of a published wide table, to be reported like one's own.

    Shares, means, Dice and IoU are recognised by the names of Agg²Exp's columns; all other
    columns are metadata.
    """
    from voxplain.study.wide_table import import_wide

    store = import_wide(file, out, case_column=case_column, model=model, method=method, extra=extra)
    if not quiet:
        for remark in store.plan.get("remarks", ()):
            typer.echo(remark)
        typer.echo(f"{len(store.cases())} cases in {out}")
        typer.echo(f"next: voxplain study report {out}")


@app.command(epilog=EXPORT_EPILOG, no_args_is_help=True)
def export(
    folder: Folder,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Table to write, .csv.", show_default=False)
    ],
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which, where there are several.", show_default=False),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which, where there are several.", show_default=False),
    ] = None,
) -> None:
    """Write a study as one wide table, a row a case, which voxplain study import reads back.

    Shares, means, signed sums and Dice; not IoU, voxels and costs. It holds the column patient
    and all metadata: as confidential as the data.
    """
    from voxplain.cli.study_report import known_values, one_partition
    from voxplain.space.write import atomic_file
    from voxplain.study.store import Store
    from voxplain.study.wide_table import export_wide

    store = Store(folder)
    table = store.table(*one_partition(store, model, method), values=known_values(store, ("mean",)))
    with atomic_file(out) as temporary:
        export_wide(table).to_csv(temporary, index=False)
    typer.echo(out)
