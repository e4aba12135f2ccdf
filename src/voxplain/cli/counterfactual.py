"""``voxplain counterfactual``: repair what a classifier calls abnormal; the change explains."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from voxplain.cli import counterfactual_apply

EPILOG = """Examples

All of it on drawn patients, about ten minutes:

voxplain counterfactual demo --out coin-demo

voxplain counterfactual train --config synthetic --data Totalsegmentator_dataset --out run --evaluate

voxplain counterfactual apply --run run --image ct.nii.gz --out repaired"""  # noqa: E501

TRAIN_EPILOG = """Examples

What would be learned from, before it begins:

voxplain counterfactual train --config synthetic --data Totalsegmentator_dataset --out run --dry-run

Tumours of KiTS, from slice labels; the same command continues after a stop:

voxplain counterfactual train --config kits --data Dataset220_KiTS2023 --out kits --evaluate

Your own settings: a YAML file 'preset: synthetic' and what differs, or single values:

voxplain counterfactual train --config synthetic --data cases.csv --set data.plane=coronal --set generators.coin.steps=3000 --out run

An existing classifier by its model card instead of a trained one:

voxplain counterfactual train --config chest-xray --data xrays.csv --set classifier.card=my_classifier --set data.intensity.model=my_classifier --set "data.intensity.window=[-1, 1]" --out run"""  # noqa: E501

EVALUATE_EPILOG = """Examples

voxplain counterfactual evaluate --run run

Three seeds together, and more attribution methods:

voxplain counterfactual evaluate --run seed0 --run seed1 --run seed2 --out three-seeds

voxplain counterfactual evaluate --run run --set "evaluation.methods=\\[rise:n=6000:keep=0.1, score_cam, layer_cam@stages]" """  # noqa: E501

DEMO_EPILOG = """Examples

voxplain counterfactual demo --out coin-demo

Another seed, and quicker:

voxplain counterfactual demo --seed 1 --set generators.coin.steps=400 --out coin-demo-1"""

app = typer.Typer(
    no_args_is_help=True,
    epilog=EPILOG,
    help="Repair images until a classifier calls them normal; the change is the explanation.",
)

_SET = typer.Option(
    "--set",
    metavar="KEY=VALUE",
    help="Change a value of the configuration, e.g. generators.coin.steps=3000. Repeatable; "
    "--dry-run of train shows all.",
    show_default=False,
)
_SET_EVALUATION = typer.Option(
    "--set",
    metavar="KEY=VALUE",
    help="Change how it is evaluated, e.g. evaluation.max_slices=200, or "
    '"evaluation.methods=[]" for generators alone. Repeatable.',
    show_default=False,
)
_DEVICE = typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")
_QUIET = typer.Option("--quiet", "-q", help="No progress bar and no summary.")


def train(
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Images, and labels where the configuration needs them: nnU-Net raw (KiTS), "
            "TotalSegmentator dataset, datalist, BIDS or manifest. See [b]voxplain data check[/b].",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="RUN", help="Folder of the run; finished parts in it are kept.",
            show_default=False,
        ),
    ],
    config: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            help="synthetic (drawn anomalies, 64², CPU), ablation (the paper's rows A–H), kits, "
            "chest-xray, coin-paper (as published), quick; or a YAML file: preset: NAME and what "
            "differs.",
        ),
    ] = "synthetic",
    set_: Annotated[list[str] | None, _SET] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Layout of the data, where it is not recognised.",
            show_default=False,
        ),
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="BIDS suffix or manifest column of the image.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="BIDS suffix or manifest column of labels.", show_default=False
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--fresh", help="Continue what was interrupted, exactly, or begin anew."
        ),
    ] = True,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, help="Seed of split, anomalies, weights and draws. Default: as configured.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, _DEVICE] = "auto",
    evaluate_: Annotated[
        bool,
        typer.Option(
            "--evaluate/--no-evaluate",
            help="Afterwards compare with attribution methods, and write the report.",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only print the configuration and count the cases."),
    ] = False,
    quiet: Annotated[bool, _QUIET] = False,
) -> None:  # fmt: skip
    """Train a classifier, a judge and generators that repair what is abnormal.

    The generator sees slice labels alone (normal or abnormal); masks serve to label slices, to
    place synthetic anomalies and to score. Press Ctrl-C at any time: the same command continues.
    """
    from voxplain.cli.counterfactual_job import evaluate_job, train_job
    from voxplain.counterfactual.config_file import config_text, read_config
    from voxplain.data import read_data
    from voxplain.report.cohort_rows import counted

    changes = [*(set_ or ()), *([] if seed is None else [f"seed={seed}"])]
    settings = read_config(config, changes)
    cohort = read_data(data, layout, channels=channel or (), labels=labels)
    if dry_run:
        typer.echo(config_text(settings))
        typer.echo(
            f"{counted(len(cohort), 'case')} of {cohort.layout}; dry run: nothing was written"
        )
        return
    train_job(settings, cohort, out, resume=resume, device=device, is_quiet=quiet)
    if evaluate_:
        evaluate_job([out], out / "evaluation", (), device=device, is_quiet=quiet)


def evaluate(
    run: Annotated[
        list[Path],
        typer.Option(
            metavar="RUN",
            help="Folder of a trained run. Repeat it for several seeds of one configuration.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of tables and report. Default: RUN/evaluation.",
            show_default=False,
        ),
    ] = None,
    set_: Annotated[list[str] | None, _SET_EVALUATION] = None,
    device: Annotated[str, _DEVICE] = "auto",
    quiet: Annotated[bool, _QUIET] = False,
) -> None:  # fmt: skip
    """Compare generators with attribution methods on one frozen test set.

    Overlap with the true lesions at tuned and fixed thresholds, validity by the classifier and
    by a judge that no generator saw, realism, and a page with pictures. Every method is scored
    on the same slices, its threshold tuned on the same validation slices.
    """
    from voxplain.cli.counterfactual_job import evaluate_job

    evaluate_job(
        run, out or run[0] / "evaluation", tuple(set_ or ()), device=device, is_quiet=quiet
    )


def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for patients, run and report.")
    ] = Path("coin-demo"),
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of anomalies, weights and draws.")
    ] = 0,
    config: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="Configuration; quick takes half a minute.")
    ] = "synthetic",
    set_: Annotated[list[str] | None, _SET] = None,
    device: Annotated[str, _DEVICE] = "auto",
    quiet: Annotated[bool, _QUIET] = False,
) -> None:  # fmt: skip
    """Draw CT patients, train on anomalies in their kidneys, evaluate, and report.

    The patients are drawn, not scanned: a phantom whose clean image is known. What the page
    shows is how the methods behave, not how they do on people.
    """
    from voxplain.cli.counterfactual_job import evaluate_job, train_job
    from voxplain.counterfactual.config_file import read_config
    from voxplain.data import read_data
    from voxplain.demo.kidneys import write_kidney_patients

    settings = read_config(config, [*(set_ or ()), f"seed={seed}"])
    n_train, n_test = (24, 6) if config == "quick" else (150, 24)
    folder = out / f"data-{n_train}-{n_test}"  # numbers of patients: another cohort, another place
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        manifest = write_kidney_patients(folder, n_train, n_test, n_test, seed=0)
    place = out / f"seed{seed}"
    train_job(settings, read_data(manifest), place, resume=True, device=device, is_quiet=quiet)
    evaluate_job([place], place / "evaluation", (), device=device, is_quiet=quiet)
    if not quiet:
        words = f"--config {config} --data {manifest} --seed {seed} --out {place} --evaluate"
        typer.echo(f"the same by hand: voxplain counterfactual train {words}")


app.command(epilog=TRAIN_EPILOG, no_args_is_help=True)(train)
app.command(epilog=counterfactual_apply.EPILOG, no_args_is_help=True)(counterfactual_apply.apply)
app.command(epilog=EVALUATE_EPILOG, no_args_is_help=True)(evaluate)
app.command(epilog=DEMO_EPILOG)(demo)
