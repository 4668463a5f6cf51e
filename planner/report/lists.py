"""The catalogue as tables: models, GPUs, prices, quality, and what the doctor found."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from planner.catalog.catalog import Catalog
from planner.catalog.doctor import Shortfall
from planner.catalog.records import Card, Gpu
from planner.catalog.refresh import Change
from planner.report.sections import Grid, Section


def catalog_grid(catalog: Catalog, what: str, text: str) -> Grid:
    """One list of the catalogue, cut to the rows that contain ``text`` (case ignored)."""
    full = {"models": _models, "gpus": _gpus, "prices": _prices, "quality": _quality, "tokenizers": _tokenizers}[what](catalog)
    rows = tuple(r for r in full.rows if text.lower() in " ".join(r).lower())
    return Grid(full.header, rows, full.right)


def findings_grid(findings: Sequence[Shortfall]) -> Grid:
    """What the doctor found."""
    return Grid(("kind", "where", "what"), tuple((f.kind, f.where, f.what) for f in findings))


MOST_MOVES = 20  # of prices that are shown


def changes_grid(changes: Sequence[Change]) -> Grid:
    """The largest moves of prices."""
    moved = [c for c in changes if c.move and c.kind != "same"][:MOST_MOVES]
    rows = tuple((c.what, c.kind, f"${c.before:,.4g}", f"${c.after:,.4g}", f"{c.move:+.1%}") for c in moved)
    return Grid(("price", "change", "before", "after", "move"), rows, ("before", "after", "move"))


def changes_line(changes: Sequence[Change], unmapped: Mapping[str, int], file: str) -> str:
    """Counts of what changed, what could not be told, and where the rest was written."""
    counts = Counter(c.kind for c in changes)
    told = ", ".join(f"{counts[kind]:,} {kind}" for kind in ("new", "gone", "dearer", "cheaper", "same"))
    lost = "; left out: " + ", ".join(f"{n:,} ({why})" for why, n in unmapped.items()) if unmapped else ""
    gone = " (gone ones stay in the catalogue: --max-price-age leaves old prices out)" if counts["gone"] else ""
    read = sorted({c.what.split()[0] for c in changes if c.after is not None})
    return f"{told}{gone} at {', '.join(read)}{lost}; written to {file}"


def grid_text(title: str, grid: Grid, form: str) -> str:
    """One table in an output format."""
    if form == "json":
        return json.dumps([dict(zip(grid.header, row, strict=True)) for row in grid.rows], indent=1) + "\n"
    from planner.report import render

    if form == "csv":
        return render.csv_text(grid.header, grid.rows)
    if form == "markdown":
        return render.markdown([Section(f"{title}: {len(grid.rows)}", grid=grid)])
    lines = ("sources: --format csv, json or markdown",) if "source" in grid.header else ()
    return render.terminal([Section(f"{title}: {len(grid.rows)}", lines, _without(grid, "source"))])


def _without(grid: Grid, name: str) -> Grid:
    """The table without one column, which is too long for a terminal."""
    keep = [i for i, n in enumerate(grid.header) if n != name]
    return Grid(tuple(grid.header[i] for i in keep), tuple(tuple(row[i] for i in keep) for row in grid.rows), grid.right)


def _models(catalog: Catalog) -> Grid:
    rows = tuple(row for card in catalog.cards for row in _card_rows(card))
    header = ("model", "kind", "parameters", "active", "context", "checkpoint", "variant", "precision", "licence", "released", "source")
    return Grid(header, rows, ("parameters", "active", "context"))


def _card_rows(card: Card) -> Iterable[tuple[str, ...]]:
    a = card.architecture
    kind = " ".join(
        [("MoE" if a.experts else "dense"), a.attention.upper()]
        + (["sliding"] if a.sliding_layers else [])
        + (["linear"] if a.linear_layers else [])
        + (["sparse"] if a.sparse_context else [])
    )
    for c in card.checkpoint:
        context = c.max_context or a.max_context
        size = (f"{a.parameters / 1e9:,.1f} B", f"{a.active_parameters / 1e9:,.1f} B", f"{context:,}")
        yield (card.name, kind, *size, c.id, c.variant, c.precision, card.licence, card.released.isoformat(), c.source)


def _gpus(catalog: Catalog) -> Grid:
    def peak(value: float | None) -> str:
        return "-" if value is None else f"{value:,.0f}"

    def row(g: Gpu) -> tuple[str, ...]:
        peaks = (peak(g.bf16_tflops), peak(g.fp8_tflops), peak(g.fp4_tflops), peak(g.int8_tops))
        return (
            g.name,
            g.vendor,
            g.generation,
            f"{g.memory_gib:.2f}",
            peak(g.bandwidth_gb_s),
            *peaks,
            peak(g.link_gb_s),
            peak(g.tdp_w),
            " ".join(g.precisions),
            g.source,
        )

    header = ("GPU", "vendor", "generation", "GiB", "GB/s", "BF16", "FP8", "FP4", "INT8", "link GB/s", "W", "precisions", "source")
    return Grid(header, tuple(row(g) for g in catalog.gpus.values()), ("GiB", "GB/s", "BF16", "FP8", "FP4", "INT8", "link GB/s", "W"))


def _prices(catalog: Catalog) -> Grid:
    offers = sorted(catalog.offers, key=lambda o: (o.gpu, o.usd_per_hour / o.gpus_per_instance, o.provider, o.region))
    rows = tuple(
        (
            o.gpu,
            f"{o.usd_per_hour / o.gpus_per_instance:.3f}",
            f"{o.usd_per_hour:.3f}",
            f"{o.gpus_per_instance}",
            o.basis,
            f"{o.max_tp}",
            o.provider,
            o.kind,
            o.region,
            o.instance_type,
            o.purchase,
            o.as_of.isoformat() + ("" if o.dated_by == "row" else " (snapshot)"),
            o.source,
        )
        for o in offers
    )
    header = ("GPU", "$/GPU-h", "$/h", "GPUs", "basis", "max TP", "provider", "kind", "region", "instance", "purchase", "as of", "source")
    return Grid(header, rows, ("$/GPU-h", "$/h", "GPUs", "max TP"))


def _quality(catalog: Catalog) -> Grid:
    benchmarks = sorted({q.benchmark for card in catalog.cards for q in card.quality}, key=lambda b: (b != "mmlu-pro", b))
    rows = []
    for served in catalog.served:
        for benchmark in benchmarks:
            q = catalog.quality(served, benchmark)
            if q is not None:
                kind = ("derived, " if q.derived else "") + ("self-reported" if q.self_reported else "independent")
                factor = f"{served.output_factor:g}" if served.output_factor else "unknown"
                rows.append((benchmark, f"{q.score:.4f}", served.checkpoint.id, served.mode, served.checkpoint.precision, factor, kind, q.as_of, q.source))
    rows.sort(key=lambda r: (r[0] != "mmlu-pro", r[0], -float(r[1]), r[2]))
    header = ("benchmark", "score", "checkpoint", "mode", "precision", "output factor", "kind", "as of", "source")
    return Grid(header, tuple(rows), ("score", "output factor"))


def _tokenizers(catalog: Catalog) -> Grid:
    """One row per tokenizer and language; a model whose tokenizer is not known has one row without a factor."""
    users: dict[str, list[str]] = {}
    for card in catalog.cards:
        users.setdefault(card.tokenizer.name if card.tokenizer else "", []).append(card.name)
    rows = [
        (t.language, t.tokenizer, f"{t.factor:.3f}", f"{t.low:.3f} - {t.high:.3f}", ", ".join(users.get(t.tokenizer, ())), t.as_of.isoformat(), t.source)
        for t in catalog.tokens.values()
    ]
    rows.sort(key=lambda r: (r[0], float(r[2])))
    rows += [("any", "unknown", "", "", ", ".join(users.get("", ())), "", "")] if "" in users else []
    return Grid(("language", "tokenizer", "factor", "80 % of documents", "models", "as of", "source"), tuple(rows), ("factor",))
