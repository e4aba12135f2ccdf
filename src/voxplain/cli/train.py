"""``voxplain train``: a recipe and labelled images become a model to explain."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from voxplain.train import Moment, Plan, Trained

EPILOG = """Examples

What a training would take, before it begins:

voxplain train --data Dataset042_Liver --out liver --dry-run

The chest model of Agg²Exp on the TotalSegmentator dataset, 24 ribs as one class:

voxplain train --data Totalsegmentator_dataset --recipe agg2exp --set classes.ribs="rib_*" --set classes.heart=heart --out chest

Lesions in FLAIR and T1w of a BIDS folder, another network, two GPUs:

voxplain train --data bids --channel FLAIR --channel T1w --labels desc-lesion_mask --recipe ies --set network.name=swin_unetr --gpus 2 --out lesions

Again after a crash (the same command continues), or from the start:

voxplain train --data Dataset042_Liver --out liver --fresh"""  # noqa: E501


def train(
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Images and labels: nnU-Net raw, datalist (.json), TotalSegmentator dataset, BIDS "
            "or manifest (.csv, …). See [b]voxplain data check[/b].",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="BUNDLE",
            help="Folder of the MONAI bundle; while it is trained, DIR/training holds the state "
            "and log.csv.",
            show_default=False,
        ),
    ],
    recipe: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            help="agg2exp (chest CT, SwinUNETR), ies (lesions in MR, normalised Dice + focal), "
            "unet (small, for a CPU), or a YAML file: preset: NAME and what differs.",
        ),
    ] = "unet",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a value of the recipe, e.g. epochs=50, network.name=dynunet, "
            "optimiser.learning_rate=3e-4, input.spacing=[1,1,3]. Repeatable; --dry-run shows all.",
            show_default=False,
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="YAML file, a line a class: 'ribs: rib_*' or 'lungs: [lung_left, 14]', by names, "
            "patterns or ids of labels. Default: every label is a class.",
            show_default=False,
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Layout of the data, where it is not recognised.",
            show_default=False,
        ),
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="BIDS suffix or manifest column of a channel. Repeat it in their order.",
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
            "--resume/--fresh",
            help="Continue what was interrupted, exactly, or begin anew.",
        ),
    ] = True,
    gpus: Annotated[
        int,
        typer.Option(
            min=1,
            help="So many processes, each with a GPU of its own (with --device cpu: all on the "
            "CPU). The batch of the recipe is that of each.",
        ),
    ] = 1,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")
    ] = "auto",
    workers: Annotated[
        int,
        typer.Option(
            min=0,
            help="Processes that prepare crops; with a GPU about 4. The result does not depend "
            "on it.",
        ),
    ] = 0,
    cache: Annotated[
        str,
        typer.Option(
            metavar="memory|none|DIR",
            help="Where prepared cases are kept: memory (as many as fit in half of what is free), "
            "a folder on a fast disk, or nowhere.",
        ),
    ] = "memory",
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Seed of weights, split and crops. Default: the recipe's.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Only print the recipe, cases, parameters, steps and a guess of memory.",
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.")
    ] = False,
) -> None:
    """Train a segmentation network that voxplain can explain.

    Ends in a standard MONAI bundle: configs, models/model.pt, docs, and the record of the
    training. Cases named as validation in the data choose the best epoch; else a share of the
    patients is drawn. Press Ctrl-C at any time: the same command continues.
    """
    from voxplain.data import read_data
    from voxplain.train import TrainingError, plan, read_recipe
    from voxplain.train import train as train_bundle

    changes = [*(set_ or ()), *([] if seed is None else [f"seed={seed}"])]
    settings = read_recipe(recipe, changes, classes)
    cohort = read_data(data, layout, channels=channel or (), labels=labels)
    if dry_run:
        _print_plan(plan(settings, cohort, gpus))
        return
    try:
        with _bar(quiet) as progress:
            trained = train_bundle(
                settings, cohort, out, resume=resume, device=device, processes=gpus,
                workers=workers, cache=cache,
                progress=progress,
            )  # fmt: skip
    except KeyboardInterrupt:
        raise TrainingError(
            "interrupted; the same command continues after the last whole epoch"
        ) from None
    if not quiet and os.environ.get("RANK", "0") == "0":  # torchrun starts many of us
        _print_trained(trained, out)


@contextmanager
def _bar(is_quiet: bool) -> Iterator[Callable[[Moment], None]]:
    """Show epoch, loss, Dice and the time left while a training runs."""
    from rich.progress import TextColumn

    from voxplain.cli.progress import timed_bar

    with timed_bar(is_quiet, TextColumn("{task.fields[numbers]}")) as bar:
        task = bar.add_task("reading", total=None, numbers="")
        is_begun = False

        def show(now: Moment) -> None:
            nonlocal is_begun
            done, total = now.epoch * now.n_steps + now.step, now.n_epochs * now.n_steps
            if now.n_steps and not is_begun:  # a training that is continued begins further on
                bar.reset(task, total=total, completed=done)
                is_begun = True
            words = f"{now.doing}, epoch {now.epoch + 1} of {now.n_epochs}"
            bar.update(task, completed=done, description=words, numbers=_numbers(now))

        yield show


def _numbers(now: Moment) -> str:
    parts = [f"loss {now.loss:.3f}"] if now.n_steps else []
    if now.dice is not None and now.best_dice is not None:
        parts.append(f"Dice {now.dice:.3f} (best {now.best_dice:.3f})")
    return ", ".join(parts)


def _print_plan(plan: Plan) -> None:
    from voxplain.report.wording import storage
    from voxplain.train import recipe_text

    typer.echo(recipe_text(plan.recipe))
    division, names = plan.division, plan.joining.class_names
    rows: dict[str, Any] = {
        "cases": f"{len(division.training)} to train on, {len(division.validation)} to validate",
        "channels": ", ".join(plan.channels),
        "classes": f"{len(names)}: {', '.join(names)}",
        "parameters": f"{plan.n_parameters:,}",
        "steps": f"{plan.n_steps:,} in {plan.recipe.epochs} epochs",
        "memory": f"about {storage(plan.memory_bytes)} for a step in float32 (a guess), and the "
        "cases that are kept",
    }
    for name, value in rows.items():
        typer.echo(f"{name:<11} {value}")
    typer.echo("dry run: nothing was written")


def _print_trained(trained: Trained, out: Path) -> None:
    for name, value in trained.dice_of.items():
        typer.echo(f"  {name:<22} {'in no validation case' if value is None else f'{value:.3f}'}")
    typer.echo(
        f"  {'mean Dice':<22} {trained.dice:.3f} on {trained.record['n_validation']} validation "
        f"cases, epoch {trained.best_epoch} of {trained.recipe.epochs}"
    )
    images = " ".join(f"--image {name}.nii.gz" for name in trained.channels)
    typer.echo(f"wrote {out}; explain it: voxplain explain --model {out} {images}")
