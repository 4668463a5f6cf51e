"""The user's own benchmarks in a catalogue folder of theirs: points without duplicates, in the catalogue's names, and the configurations that they measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from planner.bench.labels import Labels, labels_of
from planner.bench.load import OFFLINE
from planner.bench.points import COLUMNS, MEASURED, MeasuredPoint, cells_of, read_points
from planner.catalog.catalog import Catalog
from planner.catalog.files import is_file
from planner.catalog.hardware import known_gpu
from planner.catalog.records import MeasuredConfiguration
from planner.clean import clipped
from planner.errors import CatalogError, PlannerError
from planner.limits import NAME_CHARACTERS
from planner.performance.replicas import ENGINES, PRECISIONS
from planner.performance.tuning import RECIPE
from planner.validation.mapping import Mapped, map_point

POINTS = "measured.csv"
SOURCE = "own benchmarks"
CAME = ("tool", "tool_version", "file", "file_sha256", "run", "token_source", "notes", "date", "source")  # columns that make no other measurement


@dataclass(frozen=True)
class Kept:
    """What a folder holds after an import. ``known``: runs that it held already; ``refused``: those that are not taken in, by reason."""

    points: tuple[MeasuredPoint, ...]
    added: tuple[MeasuredPoint, ...]
    known: tuple[MeasuredPoint, ...]
    refused: Mapping[str, tuple[MeasuredPoint, ...]]


def kept_points(folder: Path) -> list[MeasuredPoint]:
    """The points that a folder holds. Raises CatalogError."""
    return read_points(folder / POINTS) if is_file(folder / POINTS) else []


def with_new(held: Sequence[MeasuredPoint], new: Sequence[MeasuredPoint], catalog: Catalog) -> Kept:
    """The points held and the new ones that can be used: each run of a file once, and each measurement once, whatever file it stands in. Raises
    PlannerError where none can be used."""
    labels = labels_of(catalog)
    runs, measurements = {_run(p) for p in held}, {_content(p) for p in held}
    added: list[MeasuredPoint] = []
    known: list[MeasuredPoint] = []
    refused: dict[str, list[MeasuredPoint]] = {}
    for point in new:
        named = _named(point, labels)
        if isinstance(named, str):
            refused.setdefault(named, []).append(point)
        elif _run(named) in runs or _content(named) in measurements:
            known.append(named)
        else:
            runs.add(_run(named))
            measurements.add(_content(named))
            added.append(named)
    if refused and not added and not known:
        reason = max(refused, key=lambda why: len(refused[why]))
        first = refused[reason][0]
        raise PlannerError(f"nothing to take in: {reason}", first.provenance.file, _hint(reason))
    held_now = tuple(replace(p, line=i) for i, p in enumerate((*held, *added), 2))  # as they will stand in the file
    return Kept(held_now, tuple(added), tuple(known), {why: tuple(points) for why, points in refused.items()})


def _run(point: MeasuredPoint) -> tuple[str, str]:
    return point.provenance.file_sha256, point.provenance.run


def _content(point: MeasuredPoint) -> tuple[object, ...]:
    """What was measured, without where it was found."""
    return tuple(cell for name, cell in zip(COLUMNS, cells_of(point), strict=True) if name not in CAME)


def _named(point: MeasuredPoint, labels: Labels) -> MeasuredPoint | str:
    """A point with the GPU and precision that its words mean, or why it is not taken in. Raises CatalogError for a GPU that may be several."""
    if point.provenance.confidence != MEASURED:
        return f"{point.provenance.confidence}, not measured"
    if not point.unread and point.gpu and isinstance(labels.gpu(point.gpu), int):  # what is evidence is asked for, not taken for the likeliest
        try:
            point = replace(point, gpu=known_gpu(point.gpu, labels.catalog.gpus, "--gpu"))
        except CatalogError as error:
            raise PlannerError(error.what, point.provenance.file, f"say with --gpu {error.hint}") from None
    found = map_point(point, labels)
    if isinstance(found, str):
        return found
    if not point.measured:
        return "measured nothing"
    return replace(point, line=0, place="", precision=PRECISIONS[found[0].precision], engine=ENGINES[found[0].engine])


def _hint(reason: str) -> str:
    """The flag that helps."""
    if "no model" in reason:
        return "add --model with a checkpoint or model of the catalogue (plan catalog models), or add a card of your own"
    return "add --gpu with one of plan catalog gpus" if "GPU" in reason else ""


def configurations(points: Sequence[MeasuredPoint], catalog: Catalog, today: date) -> list[MeasuredConfiguration]:
    """What the points measured, by replica type: those of engines as plans suppose them, with a server and without drafted tokens."""
    labels = labels_of(catalog)
    found: dict[tuple[object, ...], list[MeasuredPoint]] = {}
    for point in points:
        mapped = map_point(point, labels)
        if not isinstance(mapped, str) and len(mapped) == 1 and point.tuning == RECIPE and point.load != OFFLINE and _is_plain(mapped[0]):
            m = mapped[0]
            found.setdefault((labels.cards[m.card].name, PRECISIONS[m.precision], labels.gpus[m.gpu].name, ENGINES[m.engine], m.tp, m.dp), []).append(point)
    names = ("architecture", "precision", "gpu", "engine", "tp", "dp")
    return [
        MeasuredConfiguration.model_validate(dict(zip(names, key, strict=True)) | _told(some, today))
        for key, some in sorted(found.items(), key=lambda f: str(f[0]))
    ]


def _is_plain(m: Mapped) -> bool:
    return m.pp == 1 and not m.draft and not m.pools


def _told(points: Sequence[MeasuredPoint], today: date) -> dict[str, object]:
    files = ", ".join(dict.fromkeys(p.provenance.file for p in points if p.provenance.file))
    as_of = max((p.date for p in points if p.date), default=today.isoformat())
    return {"points": len(points), "source": clipped(f"{SOURCE}: {files}", NAME_CHARACTERS), "as_of": as_of, "licence": "own"}


def with_own(held: Sequence[MeasuredConfiguration], own: Sequence[MeasuredConfiguration]) -> list[MeasuredConfiguration]:
    """The rows of a folder's evidence: those that are not of its points stay, and those of its points are made anew."""
    others = [m for m in held if not m.source.startswith(SOURCE)]
    keys = {_key(m) for m in others}
    return [*others, *(m for m in own if _key(m) not in keys)]


def _key(m: MeasuredConfiguration) -> tuple[object, ...]:
    return m.architecture, m.precision, m.gpu, m.engine, m.tp, m.dp
