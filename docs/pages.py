"""Hooks of mkdocs: pages that lie elsewhere in the project or are made of its tables, and their links.

A page is written for who reads it in the repository: its links are paths of files. Here they become links
between pages, and a path without a page is shown as text. A path that does not exist ends the build.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from infra import aws
from infra.ec2.error_table import ERROR_TABLE

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

# page -> the file of the project that it is
PAGES = {
    "index.md": "README.md",
    "embedded_cloud.md": "infra/local/README.md",
    "compatibility.md": "sparknet/caffe/COMPATIBILITY.md",
    "checks.md": "sparknet/caffe/CHECKS.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}
# a path of the project -> the page that stands for it
PLACES = {file: page for page, file in PAGES.items()} | {
    "docs/examples": "examples.md",
    "infra/ec2/error_table.py": "ec2_errors.md",
    "infra/aws.toml": "prices.md",
}

CODE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any, **_: object) -> Files:
    """Add the pages of ``PAGES``, and those that are made from tables of the project."""
    for page, file in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / file).read_text(encoding="utf-8")))
    for page, written in MADE.items():
        files.append(File.generated(config, page, content=written()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """``markdown`` with its links to files of the project turned into links to pages."""
    origin = ROOT / PAGES.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def linked(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = os.path.relpath(os.path.normpath(origin.parent / target), ROOT)
        if not (ROOT / path).exists():
            raise PluginError(f"{origin.relative_to(ROOT)} links to {target}, which is not there")
        if path in PLACES:
            return f"[{text}]({PLACES[path]}{anchor})"
        is_page = path.startswith("docs/") and path.endswith(".md")
        return f"[{text}]({path.removeprefix('docs/')}{anchor})" if is_page else text

    parts = CODE.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(linked, part) for part in parts)


def examples() -> str:
    """Every program of docs/examples, under the first sentence of its docstring."""
    parts = ["# Examples", "", "Each is run by a test.", ""]
    for file in sorted((DOCS / "examples").glob("*.py")):
        code = file.read_text(encoding="utf-8")
        said = (ast.get_docstring(ast.parse(code)) or file.stem).split("\n\n")[0].replace("\n", " ")
        parts += [f"## {file.name}", "", said, "", "```python", code.rstrip(), "```", ""]
    return "\n".join(parts)


def ec2_errors() -> str:
    """The table by which an error of EC2 becomes a sentence."""
    rows = [
        f"| `{code}` | {row.error.exit_status} | {row.what} {row.why} | {row.fix} |"
        for code, row in sorted(ERROR_TABLE.items())
    ]
    head = [
        "# Errors of EC2",
        "",
        "What a command says when EC2 answers with a code, and the exit status it leaves with.",
        "",
        "| code | status | what happened | what helps |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *rows, ""])


def prices() -> str:
    """On-demand prices as they are counted where AWS gives no answer."""
    rows = [f"| {name} | {price:.4f} |" for name, price in aws.on_demand_prices().items()]
    head = [
        "# Prices",
        "",
        f"Dollars an hour, on demand, Linux, us-east-1, as of {aws.prices_date()}. Spot machines cost a",
        "third to two thirds of that; `sparknet-ec2 plan` asks AWS for the price of the moment.",
        "",
        "| type | on demand |",
        "|---|---|",
    ]
    return "\n".join([*head, *rows, ""])


MADE: dict[str, Callable[[], str]] = {
    "examples.md": examples,
    "ec2_errors.md": ec2_errors,
    "prices.md": prices,
}
