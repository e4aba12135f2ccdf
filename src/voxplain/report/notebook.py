"""Results that show themselves in a notebook: small pieces of HTML, pictures inside."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from voxplain.records.attribution import Attribution
from voxplain.records.explanation import Explanation
from voxplain.report.colours import GROUND, over_ground
from voxplain.report.pictures import strip
from voxplain.report.plane_figures import planes
from voxplain.report.scale import is_signed, limit
from voxplain.report.wording import number, percent, short
from voxplain.space.plane import planes_through

_CAPTION = Markup('<div style="font-size:13px;color:#5d6875;margin:4px 0 10px">{}</div>')


@dataclass(frozen=True)
class Fragment:
    """A piece of HTML that a notebook shows as such."""

    html: str

    def _repr_html_(self) -> str:
        return self.html


def show(result: Explanation | Attribution, target: str | None = None) -> Fragment:
    """Show a result in a notebook.

    Parameters
    ----------
    result
        An explanation or one map.
    target
        Of an explanation: the target whose planes are shown; default the first with a map.

    Returns
    -------
    Fragment
        Shows itself; ``.html`` is the text.
    """
    if isinstance(result, Attribution):
        return Fragment(attribution_html(result))
    return Fragment(explanation_html(result, target))


def explanation_html(explanation: Explanation, target: str | None = None) -> str:
    """Three planes of one target and the strongest regions of all, as HTML.

    Parameters
    ----------
    explanation
        Without an image (loaded from disk) only the table is shown.
    target
        Default: the first one with a map, else the first.

    Raises
    ------
    TargetError
        If there is no such target.
    """
    named = [t.name for t in explanation.targets]
    chosen = target or next((n for n in named if n in explanation.attributions), named[0])
    parts = [
        Markup("<div><b>{}</b>, {}: {} of {} in {}").format(
            explanation.provenance.model,
            explanation.method,
            explanation.kind,
            explanation.provenance.case,
            explanation.unit,
        )
    ]
    if explanation.has_image:
        drawing = planes(explanation, chosen)
        region, share = drawing.table["region"].iloc[0], drawing.table["share"].iloc[0]
        where = f"strongest region {region}, {percent(share)}" if region else "no region stands out"
        parts += [_image(drawing.png(dpi=90), f"planes of {chosen}"),
                  _CAPTION.format(f"{chosen}: {where}")]  # fmt: skip
    rows = []
    for summary in explanation.targets:
        top = explanation.table.top(summary.name, 3)
        strongest = ", ".join(f"{r} {percent(s)}" for r, s in top["share"].items())
        rows.append((summary.name, number(summary.score), strongest))
    table = pd.DataFrame(rows, columns=["target", "score", "largest shares of |a|"])
    parts.append(Markup(table.to_html(index=False, border=0, justify="left")))  # noqa: S704
    if explanation.findings:
        parts.append(_CAPTION.format(_findings(explanation)))
    return str(Markup("").join(parts) + Markup("</div>"))


def _findings(explanation: Explanation) -> str:
    found = [f"{f.code} {f.title} ({f.target or 'case'})" for f in explanation.findings]
    rest = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return "Findings: " + ", ".join(found[:5]) + rest


def attribution_html(attribution: Attribution) -> str:
    """Planes through the peak of |a| of one map, as HTML; the map alone, without an image."""
    values = attribution.flat()
    end = limit(values)
    peak = tuple(int(i) for i in np.unravel_index(np.argmax(np.abs(values)), values.shape))
    cuts = planes_through(attribution.grid, peak)
    pictures = [over_ground(cut.take(values), end) for cut in cuts]
    png = strip(pictures, [cut.size_mm for cut in cuts], GROUND)
    ends = f"±{short(end)}" if is_signed(attribution) else f"0 and {short(end)}"
    scale = f"colours end at {ends}" if end > 0 else "zero everywhere"
    words = Markup("<div><b>{}</b>: {} in {}, score {}").format(
        attribution.target, attribution.kind, attribution.unit, number(attribution.score)
    )
    if attribution.gap is not None:
        words += escape(f", completeness gap {number(attribution.gap)}")
    caption = "; ".join(cut.title for cut in cuts)
    return str(
        words
        + _image(png, f"map of {attribution.target}")
        + _CAPTION.format(f"{caption}; {scale}")
        + Markup("</div>")
    )


def _image(png: bytes, words: str) -> Markup:
    text = base64.b64encode(png).decode("ascii")
    return Markup(
        '<img style="display:block;max-width:100%" alt="{}" src="data:image/png;base64,{}">'
    ).format(words, text)
