"""Pages of the site that are written elsewhere: the quick start is README.md, the sources are DATA_SOURCES.md, both references are made from the code."""

from __future__ import annotations

import re
from pathlib import Path

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click

import planner
from planner.cli.app import command

ROOT = Path(__file__).resolve().parent.parent.parent


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    pages = {"index.md": at_root("README.md"), "data-sources.md": at_root("DATA_SOURCES.md"), "cli.md": command_line(), "python.md": python()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links to files beside the documentation become their names, as the site has no such pages; outputs are no prompts, whatever begins with a dollar."""
    named = re.sub(r"\[([^]]+)\]\((?:\.\./)*(?:examples|benchmarks|tests)/[^)]*\)", r"\1", markdown)
    return named.replace("(../DATA_SOURCES.md)", "(data-sources.md)").replace("```console", "```text")


def at_root(name: str) -> str:
    """A page of the repository's root, its links as seen from docs/."""
    text = (ROOT / name).read_text()
    return re.sub(r"\]\(docs/", "](", text).replace("](DATA_SOURCES.md)", "](data-sources.md)")


def command_line() -> str:
    """Every verb and option, as --help has them."""
    whole = command()
    return get_docs_for_click(obj=whole, ctx=typer.Context(whole), name="plan", title="Command line")


def python() -> str:
    """Every public name, by where it lives."""
    names = "\n\n".join(f"::: {home}.{name}" for name, home in sorted(planner._HOMES.items(), key=lambda x: (x[0][0].isupper(), x[0])))
    return f"# Python\n\n{planner.__doc__.splitlines()[0]}\n\nAll of these are imported from `planner`.\n\n{names}\n"
