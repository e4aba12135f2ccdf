"""Figures, notebook views and the self-contained page of an explained case."""

from voxplain.report.assess_page import write_assess_report
from voxplain.report.context_page import write_context_report
from voxplain.report.drawing import Drawing
from voxplain.report.figures import region_matrix, target_bars
from voxplain.report.html import write_report
from voxplain.report.lesions import write_lesion_report
from voxplain.report.notebook import Fragment, attribution_html, explanation_html, show
from voxplain.report.plane_figures import planes
from voxplain.report.study_page import write_study_report

__all__ = [
    "Drawing",
    "Fragment",
    "attribution_html",
    "explanation_html",
    "planes",
    "region_matrix",
    "show",
    "target_bars",
    "write_assess_report",
    "write_context_report",
    "write_lesion_report",
    "write_report",
    "write_study_report",
]
