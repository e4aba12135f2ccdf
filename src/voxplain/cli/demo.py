"""``voxplain demo``: a synthetic patient and a synthetic cohort, from scans to reports."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

EPILOG = """Examples

voxplain demo

voxplain demo --seed 905 --method gradient --no-cohort --out other-patient"""

_N = 2  # noise copies of the default method: two cores need less than two minutes


def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the patient and the results.")
    ] = Path("voxplain-demo"),
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Attribution method with its default settings. Default: smoothgrad with n={_N}, "
            "to be quick.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(min=0, help="Which synthetic patient; the model was trained on 100 to 135."),
    ] = 901,
    cohort: Annotated[
        bool,
        typer.Option(
            "--cohort/--no-cohort", help="Also study 80 small pictures with two networks."
        ),
    ] = True,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.")
    ] = False,
) -> None:
    """Explain a synthetic chest CT, study a synthetic cohort, and write their reports.

    The patient has a nodule in a lung. CT and true labels are written to DIR/data, the results
    to DIR. In the cohort, small drawn pictures, one patient is strange, and one of two networks
    has learnt a shortcut, a marker in the corner: DIR/cohort/report points at both.
    """
    from voxplain.cli.job import Job, result_folder
    from voxplain.cli.progress import passes_bar
    from voxplain.cli.summary import print_summary
    from voxplain.demo import model_path, write_patients

    settings = (f"n={_N}",) if method is None else ()
    with result_folder(out) as folder:
        (ct,) = write_patients(folder / "data", [seed], lesion=True)
        job = Job.read(model_path(), [ct], method=method or "smoothgrad", settings=settings)
        with passes_bar(quiet) as progress:
            explanation = job.run(folder, progress=progress)
        files = [path.name for path in folder.iterdir()]
    if not quiet:
        print_summary(explanation, out, files)
        words = ["--model", str(model_path()), "--image", str(out / "data" / ct.name)]
        words += ["--method", method or "smoothgrad", *(f"--set={s}" for s in settings)]
        words += ["--out", str(out)]
        typer.echo(f"the same by hand: voxplain explain {shlex.join(words)}")
    if cohort:
        _study(out / "cohort", quiet)
    typer.echo(f"open {out / 'report.html'}")


def _study(folder: Path, is_quiet: bool) -> None:
    """Study the demo's cohort in a folder, and report it."""
    from voxplain.cli.study_job import run_job
    from voxplain.cli.study_report import report_job
    from voxplain.demo.cohort import write_cohort
    from voxplain.engine.study_file import StudyFile

    made = write_cohort(folder / "data")
    asked = StudyFile.of(
        {
            "models": {label: {"place": str(place)} for label, place in made.models.items()},
            "data": str(made.manifest), "masks": dict(made.masks),
            "targets": list(made.targets), "methods": list(made.methods), "score": made.score,
        }
    )  # fmt: skip
    # a demo shows the whole way, also where an earlier one was
    run_job(
        asked, folder, workers=1, scheduler=None, resources=(), retry=False, restart=True,
        trust_code=False, is_quiet=is_quiet,
    )  # fmt: skip
    report_job(
        folder, folder / "report", against=None, reference=None, preset="default", detector=None,
        alpha=0.05, min_group=5, n_boot=1000, seed=0, is_quiet=is_quiet,
    )  # fmt: skip
    typer.echo(f"open {folder / 'report' / 'report.html'}")
