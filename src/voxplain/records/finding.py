"""A coded remark about a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

Outcome = Literal["issue", "tip", "passed", "not applicable", "skipped", "ignored"]


class Code(NamedTuple):
    """What a code stands for: a few words and its documentation page (below ``docs/``)."""

    title: str
    page: str


def _code(number: int, title: str) -> tuple[str, Code]:
    return f"VX{number}", Code(title, f"checks/vx{number}.md")


CODES: Mapping[str, Code] = MappingProxyType(
    dict(
        [
            _code(101, "vanishing cotangent"),
            _code(102, "completeness gap"),
            _code(103, "absent class"),
            _code(104, "attribution is zero everywhere"),
            _code(106, "standard error above tolerance"),
            _code(107, "dead map"),
            _code(108, "no lesion"),
            _code(109, "truth on another grid"),
            _code(201, "fails randomisation"),
            _code(202, "not better than a trivial map"),
            _code(203, "unstable"),
            _code(204, "mostly outside of the body"),
            _code(205, "utility not above chance"),
            _code(206, "depends on the fill"),
            _code(207, "too few patients to say"),
            _code(208, "off-target leakage"),
            _code(209, "not faithful"),
            _code(210, "contributions do not add up"),
            _code(211, "dead or constant maps"),
            _code(212, "not repeatable"),
        ]
    )
)
"""Every code in use; a number is never used again for another meaning."""


@dataclass(frozen=True)
class Finding:
    """One remark with a code that has a documentation page of its own.

    Make one with `finding`, which takes the title from `CODES`.

    Parameters
    ----------
    code
        e.g. ``VX101``; page ``docs/checks/vx101.md``.
    outcome
        One of six.
    title
        A few words.
    evidence
        What was seen, with its numbers.
    target
        Target it is about; None for the whole case.
    """

    code: str
    outcome: Outcome
    title: str
    evidence: str
    target: str | None = None


def finding(code: str, outcome: Outcome, evidence: str, target: str | None = None) -> Finding:
    """Make a finding whose code and outcome are known.

    Parameters
    ----------
    code
        A key of `CODES`.
    outcome
        One of six.
    evidence
        What was seen, with its numbers.
    target
        Target it is about; None for the whole case.

    Returns
    -------
    Finding
        With the title that the code stands for.

    Raises
    ------
    ValueError
        If the code or the outcome is not known: a fault of the program, not of the user.
    """
    if code not in CODES:
        raise ValueError(f"unknown code {code!r}; codes are {', '.join(CODES)}")
    if outcome not in get_args(Outcome):
        raise ValueError(
            f"unknown outcome {outcome!r}; outcomes are {', '.join(get_args(Outcome))}"
        )
    return Finding(code, outcome, CODES[code].title, evidence, target)
