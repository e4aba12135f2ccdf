"""``voxplain instances-study``: lesions of many patients, compared by type."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """Examples

All results below a folder, with tables, tests and the error detector:

voxplain instances-study results

One method and two features, more draws behind the intervals:

voxplain instances-study results --method gradient_max --feature peak_positive --feature share --n-boot 10000

Results are put together by case; where a patient has several scans, tell voxplain instances whose they are."""  # noqa: E501


def instances_study(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR…",
            help="Folders with results of [b]voxplain instances[/b], at any depth.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the results.")] = Path(
        "voxplain-instances-study"
    ),
    feature: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Feature to compare: peak_positive, peak_negative, mean_inside, share, "
            "peak_distance_mm, volume_mm3, probability_mean. Repeatable. Default: all. The error "
            "detector always takes all of a map.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Method as the tables name it. Repeatable. Default: all.",
            show_default=False,
        ),
    ] = None,
    n_boot: Annotated[
        int, typer.Option(min=1, help="Draws of whole patients behind each interval.")
    ] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of draws and folds.")] = 0,
    report: Annotated[
        bool,
        typer.Option("--report/--no-report", help="Write report.html, a page that opens offline."),
    ] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no summary.")] = False,
) -> None:
    """Compare true, false and missed lesions of many patients, and try to tell false ones.

    Distributions by type with intervals, Kruskal-Wallis, Mann-Whitney with Holm correction and
    Cliff's delta, a mixed model with patients as random effect, and an error detector tested on
    patients that it was not trained on. Writes distributions.csv, tests.csv, effects.csv,
    mixed.csv, detector.csv, roc.csv, pr.csv, scores.csv, report.html and provenance.json.
    """
    from voxplain.cli.instances_study_result import (
        print_study,
        study_provenance,
    )
    from voxplain.cli.job import result_folder
    from voxplain.records.saved_tables import save_tables
    from voxplain.report.study_page import write_study_report
    from voxplain.study.error_detector import error_detector
    from voxplain.study.feature_values import FEATURES, feature_values
    from voxplain.study.gather import gather
    from voxplain.study.lesion_statistics import lesion_statistics

    instances, saliency, shells = gather(folders)
    statistics = lesion_statistics(
        instances, saliency, features=feature or FEATURES, methods=method, n_boot=n_boot, seed=seed
    )
    detector = error_detector(instances, saliency, shells, methods=method, n_boot=n_boot, seed=seed)
    tables = {**statistics._asdict(), **detector._asdict()}
    asked = {"features": feature or FEATURES, "methods": method, "n_boot": n_boot}
    provenance = study_provenance(instances, folders, asked, seed)
    with result_folder(out) as folder:
        save_tables(folder, tables, provenance, "voxplain instances study")
        if report:
            shown = ("detector", "effects", "tests", "mixed", "distributions")
            write_study_report(
                {name: tables[name] for name in shown},
                folder / "report.html",
                provenance,
                values=feature_values(
                    instances, saliency, features=feature or FEATURES, methods=method
                ),
                roc=tables["roc"],
                pr=tables["pr"],
            )
        files = sorted(file.name for file in folder.iterdir())
    if not quiet:
        print_study(instances, tables, out, files)
