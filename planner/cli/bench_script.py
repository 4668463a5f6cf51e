"""`plan bench-script` writes the benchmark that measures what a plan assumes, and says what each result would decide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.options import CatalogOption, deliver, say
from planner.cli.show import PlanFile, read_saved
from planner.errors import PlannerError, did_you_mean

if TYPE_CHECKING:
    from planner.deploy.release import Release
    from planner.deploy.tools import Client

ToolOption = Annotated[str, typer.Option("--tool", help="client: vllm, guidellm, aiperf or inference-perf", metavar="NAME")]
ScriptOption = Annotated[
    str | None, typer.Option("-o", "--output", help="write the script here, and the requests that it sends beside it; else print the script", metavar="FILE")
]


def bench_script(path: PlanFile, tool: ToolOption = "vllm", output: ScriptOption = None, catalog: CatalogOption = None) -> None:
    """Write the benchmark that settles a plan's doubt: its lengths, rates and prefixes, and what each result would decide.

    plan bench-script plan.json -o bench.sh
    """
    from planner.deploy.release import Settings, release
    from planner.files import check_target

    client = known_client(tool)
    found = release(read_saved(path), Settings({}))
    if output in (None, "-"):
        made = _scripts(found, client, "bench", catalog)
        deliver("".join(script for _, script, _ in made), None)
        say(f"note: the requests it sends are files beside it: {', '.join(n for *_, files in made for n, _ in files)} (write them with -o FILE)", err=True)
        return
    target = Path(str(output))
    check_target(target)
    write_scripts(script_files(found, client, target, catalog))


def script_files(found: Release, client: Client, target: Path, catalog: list[str] | None) -> list[list[tuple[Path, str]]]:
    """The files of each deployment's script, itself the last, as path and text. Raises PlannerError."""
    made = []
    for stem, script, files in _scripts(found, client, target.stem, catalog):
        place = target.with_name(f"{stem}{target.suffix or '.sh'}")
        made.append([*((target.with_name(name), text) for name, text in files), (place, script)])
    return made


def write_scripts(made: list[list[tuple[Path, str]]]) -> None:
    """Writes the scripts; says their names."""
    from planner.files import write_result

    for files in made:
        for place, text in files:
            write_result(place, text)
        say(f"{files[-1][0]} and {len(files) - 1} files that it reads")


def known_client(tool: str) -> Client:
    """The client of a name. Raises PlannerError."""
    from planner.deploy.tools import CLIENTS

    if tool not in CLIENTS:
        raise PlannerError(f"unknown tool '{tool}'", "--tool", did_you_mean(tool, CLIENTS) or f"one of {', '.join(CLIENTS)}")
    return CLIENTS[tool]


def _scripts(found: Release, client: Client, stem: str, catalog: list[str] | None) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """(stem, script, files beside it) of each deployment; one alone takes the stem as it is."""
    from planner.catalog.load import load_catalog
    from planner.deploy.bench import bench
    from planner.deploy.script import benchmark

    loaded = load_catalog(catalog if catalog is not None else list(found.plan.scenario.catalog))
    made = []
    for i, s in enumerate(found.served):
        each = stem if len(found.served) == 1 else f"{stem}-{s.name}"
        b = benchmark(found, bench(found, i, loaded), client, each)
        made.append((each, b.script, [(f.file, f.text) for f in b.files]))
    return made
