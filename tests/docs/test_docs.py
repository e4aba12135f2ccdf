"""The documentation is true: its code runs, its links lead somewhere, its tables are complete.

Every ``python`` and ``bash`` block of a page is run, in order, in one namespace and one empty
folder, unless the comment ``<!-- not run: REASON -->`` stands right before it. A ``text`` block
right after a block that is run is its expected output; ``...`` in it stands for anything.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
NOT_RUN = re.compile(r"<!-- not run: \S.* -->")
RUN = ("python", "bash")
IN_WORDS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """A fenced block that is run."""

    language: str
    code: str
    line: int
    output: str | None


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def tokens_of(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text("utf-8"))


def blocks_of(tokens: list[Token]) -> list[Block]:
    """Blocks that are run, each with the output that stands after it."""
    found = []
    for i, token in enumerate(tokens):
        if token.type != "fence" or token.info not in RUN:
            continue
        before = tokens[i - 1].content.strip() if i else ""
        if NOT_RUN.fullmatch(before):
            continue
        after = tokens[i + 1] if i + 1 < len(tokens) else None
        has_output = after is not None and after.type == "fence" and after.info == "text"
        assert token.map is not None
        output = after.content if after is not None and has_output else None
        found.append(Block(token.info, token.content, token.map[0] + 1, output))
    return found


def links_of(tokens: list[Token]) -> list[str]:
    """Targets of links and pictures."""
    inline = [child for token in tokens for child in token.children or ()]
    links = [str(t.attrs["href"]) for t in inline if t.type == "link_open"]
    return links + [str(t.attrs["src"]) for t in inline if t.type == "image"]


def run_python(block: Block, page: Path, namespace: dict[str, Any]) -> str:
    printed = io.StringIO()
    as_on_page = "\n" * block.line + block.code  # so that a traceback shows the page's line
    code = compile(as_on_page, str(page), "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, namespace)  # noqa: S102 (the page's own code)
    return printed.getvalue()


def run_bash(block: Block, page: Path) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.code],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, f"{page}:{block.line} ended with {done.returncode}\n{done.stderr}"
    return done.stdout


def run_page(page: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks_of(tokens_of(page)):
        if block.language == "python":
            printed = run_python(block, page, namespace)
        else:
            printed = run_bash(block, page)
        if block.output is not None:
            agrees = doctest.OutputChecker().check_output(block.output, printed, IN_WORDS)
            assert agrees, (
                f"{page}:{block.line} printed\n{printed}\nand the page says\n{block.output}"
            )


@pytest.mark.parametrize("page", [p for p in PAGES if blocks_of(tokens_of(p))], ids=page_id)
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("```python\nprint(1)\n```\n```text\n2\n```\n", "printed"),
        ("```bash\nfalse\n```\n", "ended with 1"),
        ("```bash\necho a; echo b\n```\n```text\na\nc\n```\n", "printed"),
        ("```python\nx = 1\n```\nwords\n```python\nassert x == 2, 'x is 1'\n```\n", "x is 1"),
    ],
)
def test_a_page_that_is_wrong_is_found(text: str, fault: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(AssertionError, match=fault):
        run_page(page)


def test_a_block_is_left_out_only_with_a_reason(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: slow -->\n\n```bash\nfalse\n```\n")
    run_page(page)
    page.write_text("<!-- not run: -->\n\n```bash\nfalse\n```\n")
    with pytest.raises(AssertionError):
        run_page(page)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_resolve(page: Path) -> None:
    for link in links_of(tokens_of(page)):
        if re.match(r"[a-z]+:", link) or link.startswith("#"):
            continue
        assert (page.parent / link.partition("#")[0]).exists(), f"{page_id(page)}: {link}"


def test_every_page_is_in_the_menu() -> None:
    menu = set(re.findall(r"[\w./-]+\.md", (ROOT / "mkdocs.yml").read_text("utf-8")))
    assert menu == {p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md")}


def test_every_code_has_a_page_with_its_title() -> None:
    from voxplain.records import CODES

    assert {f"{code.lower()}.md" for code in CODES} | {"index.md"} == {
        p.name for p in (DOCS / "checks").glob("*.md")
    }
    index = (DOCS / "checks" / "index.md").read_text("utf-8")
    for name, code in CODES.items():
        text = (DOCS / code.page).read_text("utf-8")
        assert text.startswith(f"# {name}: {code.title}\n")
        for heading in ("What it means", "How it is computed", "Threshold", "What to do"):
            assert f"\n## {heading}\n" in text, f"{code.page} has no {heading!r}"
        assert f"[{name}]({name.lower()}.md)" in index


DECISIONS = sorted((DOCS / "decisions").glob("0*.md"))


@pytest.mark.parametrize("page", DECISIONS, ids=lambda p: p.stem)
def test_a_decision_names_what_enforces_it(page: Path) -> None:
    text = page.read_text("utf-8")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == ["Context", "Decision", "Consequences", "Confirmation"]
    named = re.findall(r"`([\w./-]+)(?:::(\w+))?`", text.rpartition("## Confirmation")[2])
    files = [(path, test) for path, test in named if "/" in path]
    assert files, f"{page.name}: no file confirms it"
    for path, test in files:
        assert (ROOT / path).exists(), f"{page.name}: {path} is not there"
        if test:
            assert f"def {test}(" in (ROOT / path).read_text("utf-8"), f"{path} has no {test}"


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [p.name[:4] for p in DECISIONS] == [f"{i:04d}" for i in range(1, len(DECISIONS) + 1)]


def test_the_card_reference_names_every_key_and_step() -> None:
    from voxplain.models.card import Card, InputCard, NetworkCard, WindowCard
    from voxplain.models.intensity import Clip, Percentiles, Scale, ZScore

    text = (DOCS / "reference" / "model-card.md").read_text("utf-8")
    for prefix, part in (
        ("", Card), ("network.", NetworkCard), ("input.", InputCard), ("window.", WindowCard),
    ):  # fmt: skip
        for key in part.model_fields:
            assert f"| `{prefix}{key}` |" in text, f"{prefix}{key} is not in model-card.md"
    for step in (Clip, Scale, ZScore, Percentiles):
        name = step.model_fields["step"].default
        assert f"| `{name}` |" in text
        for key in set(step.model_fields) - {"step", "bounds"}:
            assert f"`{key.removesuffix('_')}`" in text, f"{name}.{key} is not in model-card.md"


def test_the_output_reference_names_every_column() -> None:
    from voxplain.records import COLUMNS

    text = (DOCS / "reference" / "outputs.md").read_text("utf-8")
    for column in (*COLUMNS, "share_error"):
        assert f"| `{column}` |" in text


def test_the_output_reference_names_every_column_of_counterfactuals() -> None:
    from voxplain.counterfactual import apply, calibration, slices
    from voxplain.counterfactual.classifier_loop import LOG_COLUMNS
    from voxplain.records.counterfactual_evaluation import POOLED, TABLES

    text = (DOCS / "reference" / "outputs.md").read_text("utf-8")
    run, applied, evaluated = re.split(
        r"\n### (?:Repaired images|Evaluated runs)\n",
        text.partition("\n## Counterfactuals\n")[2].partition("\n## ")[0],
    )
    beginnings = [
        "`methods`, ",
        "`curves`, ",
        "`classifiers`, ",
        "`validity`, ",
        "`repairs`, ",
        "`differences`, ",
    ]
    beginnings += ["`slices`, ", "`runs.csv`, ", "`pictures.npz` "]
    places = [evaluated.index(f"\n{word}") for word in beginnings]
    assert places == sorted(places)
    ends = [*places[1:], len(evaluated)]
    parts = [evaluated[start:end] for start, end in zip(places, ends, strict=True)]
    told = dict(zip([*TABLES, "runs"], parts[:-1], strict=True))
    tables = {name: (told[name], columns) for name, columns in {**TABLES, "runs": POOLED}.items()}
    tables["applied"] = (applied, apply.COLUMNS)
    for name, columns in (
        ("slices of a run", slices.COLUMNS),
        ("log of a classifier", LOG_COLUMNS),
        ("calibration", calibration.RELIABILITY_COLUMNS),
    ):
        tables[name] = (run, columns)
    for name, (part, columns) in tables.items():
        named = set(re.findall(r"`([^`\n]+)`", part))
        for column in columns:
            stem, _, end = column.rpartition("_")
            is_end = f"…_{end}" in named and stem in named
            assert column in named or is_end, f"{name}.{column} is not in outputs.md"


def test_the_method_reference_names_every_method_setting_and_preset() -> None:
    from voxplain.attribution import METHODS, PRESETS
    from voxplain.attribution.methods import describe_settings

    text = (DOCS / "reference" / "methods.md").read_text("utf-8")
    for name, kind in METHODS.items():
        (row,) = re.findall(rf"^\| `{name}` \|.*$", text, re.MULTILINE)
        assert f"| {kind.kind} |" in row
        for setting, default in describe_settings(kind).items():
            assert f"`{setting}={default.lower()}`" in row.lower(), f"{name}: {setting}={default}"
    for name in PRESETS:
        assert f"| `{name}` |" in text


def test_the_command_reference_names_every_verb_and_option_and_no_other() -> None:
    import typer

    from voxplain.cli import app

    sections = (DOCS / "reference" / "cli.md").read_text("utf-8").split("\n## voxplain ")[1:]
    told = {
        section.partition("\n")[0]: {
            option
            for row in re.findall(r"^\| (`-.*?) \|", section, re.MULTILINE)
            for option in re.findall(r"`(-[\w-]+)`", row)
        }
        for section in sections
    }
    group: Any = typer.main.get_command(app)
    verbs = {
        " ".join(words): command
        for name, verb in group.commands.items()
        for words, command in (
            [((name, inner), c) for inner, c in verb.commands.items()]
            if hasattr(verb, "commands")
            else [((name,), verb)]
        )
    }
    there = {
        verb: {
            option
            for parameter in command.params
            for option in (*parameter.opts, *parameter.secondary_opts)
            if option.startswith("-")
            and parameter.name != "help"
            and not getattr(parameter, "hidden", False)
        }
        for verb, command in verbs.items()
    }
    assert told == there


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed")
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    remote = re.compile(
        r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//"""
        r"""|<link\b[^>]*\bhref=["']?(?:https?:)?//(?![^>]*rel=["']?canonical)"""
        r"""|url\(["']?(?:https?:)?//"""
    )
    for page in [*site.rglob("*.html"), *site.rglob("*.css")]:
        assert not (hit := remote.search(page.read_text("utf-8"))), f"{page}: {hit}"
    shutil.rmtree(site)
