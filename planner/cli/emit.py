"""`plan emit` writes a saved plan as manifests of a target, with the benchmark that tests them; it applies nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planner.cli.bench_script import known_client, script_files, write_scripts
from planner.cli.options import CatalogOption, deliver, say
from planner.cli.show import PlanFile, read_saved

TargetName = Annotated[
    str, typer.Argument(help="kubernetes, kserve, llm-d, dynamo, compose, ray, skypilot, or an engine's script: vllm, sglang, trtllm", metavar="TARGET")
]
FolderOption = Annotated[Path | None, typer.Option("-o", "--output", help="write the files into this folder, which is made; else print them", metavar="DIR")]
ImageOption = Annotated[list[str] | None, typer.Option("--image", help="container image, of one engine as vllm=REPOSITORY:TAG", metavar="IMAGE")]
TimezoneOption = Annotated[str, typer.Option("--timezone", help="time zone of the plan's hours, such as Europe/Berlin", metavar="ZONE")]


def emit(
    target: TargetName,
    path: PlanFile,
    output: FolderOption = None,
    image: ImageOption = None,
    timezone: TimezoneOption = "Etc/UTC",
    catalog: CatalogOption = None,
) -> None:
    """Write a saved plan as manifests of a target, and the benchmark that tests them.

    plan emit kubernetes plan.json -o deploy
    """
    from planner.deploy.release import Settings, known_timezone, read_images, release
    from planner.deploy.targets import known_target
    from planner.deploy.write import comment, written
    from planner.files import make_folder, write_result

    wanted = known_target(target)
    found = release(read_saved(path), Settings(read_images(image or ()), known_timezone(timezone), wanted.images))
    files = written(found, wanted)
    if output is None or str(output) == "-":
        left = ", ".join(f.file for f in files if not f.is_applied)
        further = [f"Beside these, with -o DIR: {left}."] if left else []
        further += [] if str(path) == "-" else [f"Test it: plan bench-script {path} -o bench.sh"]
        test = "".join(f"{line}\n" for line in comment(further))
        deliver("---\n".join(f.text for f in files if f.is_applied) + test, None)
        return
    tests = script_files(found, known_client("vllm"), output / "bench.sh", catalog)
    make_folder(output)
    for f in files:
        write_result(output / f.file, f.text)
        say(str(output / f.file))
    write_scripts(tests)
