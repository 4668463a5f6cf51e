"""`plan import` brings in what one already has: traces, logs and metrics as a demand TOML, benchmarks as evidence of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.demand import AsOption, MapOption, ModelOption, read_any
from planner.cli.help import Verb
from planner.cli.options import CatalogOption, FormatOption, OutputOption, bundled, check_writable, deliver, known_format, say
from planner.cli.setup import AskedSetup, BenchFiles, measured_points
from planner.errors import PlannerError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from planner.catalog.catalog import Catalog
    from planner.validation.calibrate import Learnt
    from planner.validation.kept import Kept

app = typer.Typer(help="Bring in what one already has: demand, benchmarks.", no_args_is_help=True, rich_markup_mode=None)
FolderOption = Annotated[Path, typer.Option("-o", "--output", help="catalogue folder of your own; plan with --catalog DIR", metavar="DIR")]
CONFIDENCE = 0.9  # of the bands shown


@app.command("demand")
def import_demand(
    path: Annotated[Path, typer.Argument(help="trace, log or metrics file, also gzipped", metavar="FILE")],
    as_format: AsOption = "",
    mapped: MapOption = None,
    model: ModelOption = "",
    output: OutputOption = None,
) -> None:
    """Write a demand TOML out of a trace, log or metrics file; plan --demand-file takes it.

    plan import demand trace.csv.gz -o demand.toml
    """
    check_writable(output)
    from planner.demand.records import to_toml
    from planner.report.demand import summary

    demand = read_any(str(path), as_format, mapped, model)
    deliver(to_toml(demand), output)
    say(summary(demand), err=True)


@app.command("bench", cls=Verb)
@bundled
def import_bench(*, paths: BenchFiles, output: FolderOption, asked_of: AskedSetup, form: FormatOption = "table", catalog: CatalogOption = None) -> None:
    """Take benchmarks into a catalogue folder of your own: measured points, and predictions corrected by them.

    plan import bench run.json -o mine --gpu H100-SXM-80GB --tp 4 --engine vllm@0.33.0 --precision fp8
    """
    known_format(form)
    from datetime import date

    from planner.catalog.load import holds_catalog, load_catalog
    from planner.report.imported import formatted
    from planner.validation.kept import kept_points, with_new
    from planner.validation.predictions import predict_points

    if output.exists() and not output.is_dir():
        raise PlannerError("is a file, not a folder", str(output), "give a folder of your own")
    folders = [*(catalog or ())]
    before = load_catalog([*folders, *([str(output)] if holds_catalog(output) else [])])
    kept = with_new(kept_points(output), measured_points(paths, asked_of), before)
    learnt, after = _written(kept, output, folders, date.today())
    seen = (*kept.added, *kept.known)
    answers = [predict_points(seen, c, CONFIDENCE) for c in (before, after)]
    deliver(formatted(kept, learnt, (answers[0], answers[1]), output, form), None)


def _written(kept: Kept, folder: Path, folders: Sequence[str], today: date) -> tuple[Learnt, Catalog]:
    """Writes points, configurations and the calibration by all points of the folder; what was learnt, and the catalogue with it. Raises PlannerError.

    Points that teach nothing are evidence of nothing either. What is learnt is learnt with the evidence there, as plans have it.
    """
    from planner.catalog.files import is_file, read_csv
    from planner.catalog.load import load_catalog
    from planner.catalog.records import MeasuredConfiguration
    from planner.files import check_target, make_folder, write_result
    from planner.report.calibrate import calibration_csv
    from planner.report.imported import configurations_csv, points_csv
    from planner.validation.calibrate import learn, source_of
    from planner.validation.kept import POINTS, configurations, with_own

    points, evidence, calibration = (folder / name for name in (POINTS, "evidence.csv", "calibration.csv"))
    make_folder(folder)
    for target in (points, evidence, calibration):
        check_target(target)
    held = read_csv(evidence, MeasuredConfiguration) if is_file(evidence) else []
    write_result(points, points_csv(kept.points))
    bare = load_catalog(folders)
    useless = {p.line for some in learn(kept.points, bare, "", today).unused.values() for p in some}
    teaching = [p for p in kept.points if p.line not in useless]
    write_result(evidence, configurations_csv(with_own(held, configurations(teaching, bare, today))))
    learnt = learn(kept.points, load_catalog([*folders, str(folder)]), source_of([points]), today)
    write_result(calibration, calibration_csv(learnt))
    return learnt, load_catalog([*folders, str(folder)])
