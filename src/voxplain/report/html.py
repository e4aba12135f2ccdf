"""Self-contained pages: one about an explained case, and what every page shares."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from voxplain.records.explanation import Explanation
from voxplain.records.finding import Finding
from voxplain.records.provenance import Provenance
from voxplain.report.layers import pack
from voxplain.report.page import WORST_FIRST, contents, flat_rows
from voxplain.report.scale import Scale
from voxplain.report.volumes import viewer_contents
from voxplain.report.wording import number, percent
from voxplain.space.write import atomic_file

_LEAST_ROOM = 200_000  # bytes; less is no volume worth a viewer


def write_report(
    explanation: Explanation, path: Path, *, scale: Scale = "shared", max_mb: float = 25.0
) -> Path:
    """Write a page that opens from disk, without network, in any browser.

    It holds the viewer (3D images), the maps in 8 bits, and static planes that stand in where
    there is no WebGL and in print. The page's own security policy forbids every connection and
    every script but the ones it was written with.

    Parameters
    ----------
    explanation
        What was computed; loaded from disk it serves as well.
    path
        File to write, e.g. ``report.html``; replaced whole or not at all.
    scale
        ``shared``: colours of all targets end at one value; ``own``: each at its own.
    max_mb
        Size of the file at most, in MB (10⁶ bytes). Volumes in the viewer are averaged over
        cubes until they fit, and the page says so; the static pictures are not reduced.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OutputError
        If the file cannot be written.
    ImageError
        If the explanation was loaded without its image.
    """
    page = contents(explanation, scale)
    full = with_viewer(
        page,
        explanation.image.grid.rank,
        max_mb,
        lambda room: viewer_contents(explanation, pack(explanation, room), page["places"]),
    )
    return write_page(full, path)


def write_page(page: Mapping[str, Any], path: Path | str) -> Path:
    """Write a page whole or not at all.

    Parameters
    ----------
    page
        What its template needs, by name; see `render`.
    path
        File to write.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    with atomic_file(path) as temporary:
        temporary.write_bytes(render(page))
    return path


def viewer_script() -> str | None:
    """Give the viewer's script as a page may carry it; None if it was never fetched.

    Its comments' web addresses are taken out, so that the page holds none; its licences stand
    before it.
    """
    folder = files("voxplain.report") / "viewer"
    script, licences = folder / "niivue.umd.js", folder / "LICENSES.txt"
    if not (script.is_file() and licences.is_file()):
        return None
    words = licences.read_text("utf-8").replace("*/", "* /")
    code = re.sub(r"https?://", "", f"/*!\n{words}*/\n{script.read_text('utf-8')}")
    return code.replace("\r", "").replace("</script", r"<\/script").replace("<!--", r"<\!--")


def plain(page: Mapping[str, Any], scripts: tuple[str, ...] = ("page.js",)) -> dict[str, Any]:
    """Return a page without viewer; `scripts` are assets."""
    return {
        **page, "viewer": False, "scripts": [asset(name) for name in scripts], "layers": [],
        "data": {}, "viewer_words": "",
    }  # fmt: skip


def with_viewer(
    page: Mapping[str, Any],
    rank: int,
    max_mb: float,
    volumes: Callable[[float], Mapping[str, Any]],
    scripts: tuple[str, ...] = ("page.js",),
) -> dict[str, Any]:
    """Add the viewer, or a note that says why there is none.

    Parameters
    ----------
    page
        Everything of a page but its viewer; ``notes`` are added to.
    rank
        Of the image; a 2D image needs no viewer.
    max_mb
        Size of the page at most.
    volumes
        Makes what the viewer needs, given the bytes that are left for it.
    scripts
        Assets of the page beside the viewer's.
    """
    without = plain(page, scripts)
    if rank == 2:
        return without
    script = viewer_script()
    if script is None:
        note = (
            "This page was made without the interactive viewer, whose file is not installed "
            "(the released wheel ships it; in a checkout run `make setup`)."
        )
        return {**without, "notes": [*page["notes"], note]}
    full = {**without, "viewer": True}
    full["scripts"] = [*without["scripts"], script, asset("viewer.js")]
    full["viewer_words"] = " The viewer is NiiVue (BSD-2-Clause)."
    used = len(render(without)) + len(script.encode()) + 50_000
    room = max_mb * 1e6 - used
    if room < _LEAST_ROOM:
        note = f"The interactive viewer is left out: with it the page would exceed {max_mb:g} MB."
        return {**without, "notes": [*page["notes"], note]}
    made = volumes(room)
    return {**full, **made, "notes": [*page["notes"], *made["notes"]]}


def sorted_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings, the worst first."""
    return sorted(findings, key=lambda f: WORST_FIRST.index(f.outcome))


def provenance_rows(provenance: Provenance) -> list[tuple[str, str]]:
    """Names and values of a record, for a page's last section."""
    return list(flat_rows(provenance.to_dict()))


def asset(name: str) -> str:
    """Read one of the package's own style or script files."""
    return (files("voxplain.report") / "assets" / name).read_text("utf-8")


def _policy(scripts: list[str]) -> str:
    """Content security policy: no connection, and only these scripts."""
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{h}'" for h in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; connect-src data:; base-uri 'none'; form-action 'none'"
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("voxplain.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(number=number, percent=percent)
    return environment


def render(page: Mapping[str, Any]) -> bytes:
    """Fill a template.

    Parameters
    ----------
    page
        ``template``, default ``page.html.j2``; ``styles``: more style files than every page's;
        ``scripts``: texts; and what the template needs.
    """
    styles = ("page.css", *page.get("styles", ()), "print.css")
    # S704: style and scripts are the package's own files, never a user's text
    text = (
        _environment()
        .get_template(page.get("template", "page.html.j2"))
        .render(
            **{
                **page,
                "policy": Markup(_policy(page["scripts"])),  # noqa: S704
                "scripts": [Markup(script) for script in page["scripts"]],  # noqa: S704
                "css": Markup("".join(map(asset, styles))),  # noqa: S704
            }
        )
    )
    return text.encode("utf-8")
