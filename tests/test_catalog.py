"""The shipped catalogue is whole and consistent, loaders name file and line, and users' folders win over shipped files."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from planner.catalog.catalog import Catalog, Served
from planner.catalog.doctor import examine
from planner.catalog.hardware import gpus_meant, known_gpu
from planner.catalog.load import load_catalog, shipped_folders
from planner.catalog.records import Card
from planner.errors import CatalogError

TINY = Path(__file__).parent / "data" / "tiny"
NOT_JOINED: set[str] = set()  # models of curves.csv without a card: none


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


@pytest.fixture(scope="module")
def cards(catalog: Catalog) -> dict[str, Card]:
    return {c.name: c for c in catalog.cards}


# ---- the shipped cards


def test_cards_span_the_range_of_deployed_models(catalog: Catalog) -> None:
    sizes = [c.architecture.parameters for c in catalog.cards]
    assert len(catalog.cards) >= 45
    assert min(sizes) <= 1.5e9
    assert max(sizes) >= 1e12


@pytest.mark.parametrize(
    ("kind", "has"),
    [
        ("dense", lambda a: a.experts == 0),
        ("mixture of experts", lambda a: a.experts > 0),
        ("latent attention", lambda a: a.attention == "mla"),
        ("sliding window", lambda a: a.sliding_layers > 0 and a.sliding_window > 0),
        ("hybrid with linear attention", lambda a: a.linear_layers > 0 and a.linear_state_bytes > 0),
    ],
)
def test_every_kind_of_architecture_is_there(catalog: Catalog, kind: str, has: Callable[..., bool]) -> None:
    assert sum(has(c.architecture) for c in catalog.cards) >= 3, kind


def test_every_fact_of_a_card_has_a_source(catalog: Catalog) -> None:
    for card in catalog.cards:
        for fact in (card.architecture, *card.checkpoint, *card.quality, *card.output_factor):
            assert len(fact.source) > 8 and fact.as_of.year >= 2023, (card.name, fact)


def test_no_source_names_a_private_place(catalog: Catalog) -> None:
    words = [f.source for c in catalog.cards for f in (c.architecture, *c.checkpoint, *c.quality, *c.output_factor)]
    words += [o.source for o in catalog.offers] + [g.source for g in catalog.gpus.values()] + [a.source for a in catalog.api_prices]
    assert not [w for w in words if any(part.startswith(("file:", "~/", "/home", "/root", "localhost")) for part in w.split())]


def test_a_score_belongs_to_one_checkpoint_in_a_mode_it_answers_in(catalog: Catalog) -> None:
    for card in catalog.cards:
        variant = {c.id: c.variant for c in card.checkpoint}
        for q in card.quality:
            assert variant[q.checkpoint] in (q.mode, "hybrid"), (card.name, q.checkpoint, q.mode)
            assert 0 < q.score < 1


def test_base_checkpoints_answer_nobody_and_have_no_scores(catalog: Catalog) -> None:
    base = {c.id for card in catalog.cards for c in card.checkpoint if c.variant == "base"}
    assert not base & {q.checkpoint for card in catalog.cards for q in card.quality}
    assert not base & {s.checkpoint.id for s in catalog.served}


def test_a_derived_score_stays_within_its_variant_and_mode(catalog: Catalog) -> None:
    """Instruct, thinking and base never share a score."""
    for card in catalog.cards:
        by_id = {c.id: c for c in card.checkpoint}
        for c in card.checkpoint:
            if c.quantised_from:
                assert by_id[c.quantised_from].variant == c.variant, c.id


def test_quantised_checkpoints_name_their_scheme(catalog: Catalog) -> None:
    for card in catalog.cards:
        for c in card.checkpoint:
            assert bool(c.quantised_from) == bool(c.scheme), c.id


def test_a_checkpoint_stands_on_one_card(catalog: Catalog) -> None:
    ids = Counter(c.id for card in catalog.cards for c in card.checkpoint)
    assert not [i for i, n in ids.items() if n > 1]


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("Qwen3-235B-A22B", 21.5e9, 22.6e9),
        ("DeepSeek-V3", 36.5e9, 38e9),
        ("gpt-oss-120b", 5.1e9, 5.9e9),
        ("Qwen3-30B-A3B", 3.0e9, 3.6e9),
        ("Qwen3-8B", 8.1e9, 8.3e9),
    ],
)
def test_active_parameters_of_known_models(cards: dict[str, Card], name: str, least: float, most: float) -> None:
    assert least <= cards[name].architecture.active_parameters <= most


def test_parameter_counts_are_sane(catalog: Catalog) -> None:
    for card in catalog.cards:
        a = card.architecture
        assert a.expert_parameters < a.parameters, card.name
        assert 0 < a.active_parameters <= a.parameters, card.name
        assert (a.active_parameters < 0.75 * a.parameters) == bool(a.experts), card.name
        attention = a.layers * a.hidden_size * a.hidden_size  # no more than the order of magnitude of one square matrix per layer
        assert a.parameters > 0.5 * attention, card.name


# ---- the shipped tables


def test_every_measured_curve_joins_a_card_and_a_gpu(catalog: Catalog, cards: dict[str, Card]) -> None:
    with (shipped_folders()[1] / "curves.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 1000
    assert {r["model"] for r in rows} - set(cards) == NOT_JOINED
    assert {r["gpu"] for r in rows} <= set(catalog.gpus)


def test_every_row_of_evidence_joins(catalog: Catalog, cards: dict[str, Card]) -> None:
    for row in catalog.measured:
        assert row.architecture in cards and row.gpu in catalog.gpus, row
        assert row.source and row.as_of


def test_api_prices_are_of_checkpoints_on_cards(catalog: Catalog, cards: dict[str, Card]) -> None:
    assert len(catalog.api_prices) > 100
    for price in catalog.api_prices:
        assert price.checkpoint in {c.id for c in cards[price.model].checkpoint}, price


def test_gpus_have_their_peaks(catalog: Catalog) -> None:
    assert len(catalog.gpus) >= 25
    for gpu in catalog.gpus.values():
        assert gpu.bandwidth_gb_s > 0 and gpu.bf16_tflops > 0 and gpu.memory_gib > 8
        assert gpu.precisions and gpu.engines and gpu.source
    lacking = {
        (g.name, p)
        for g in catalog.gpus.values()
        for p, peak in (("fp8", g.fp8_tflops), ("nvfp4", g.fp4_tflops), ("int8", g.int8_tops))
        if p in g.precisions and peak is None
    }
    assert lacking == set()


def test_peaks_are_without_sparsity(catalog: Catalog) -> None:
    """A dense FP8 peak is at most twice the BF16 one (2.1: rounding in datasheets).

    FP4 reaches 6 times on B300 and 8 times on GeForce, whose BF16 and FP8 count FP32 accumulation.
    """
    for g in catalog.gpus.values():
        assert g.fp8_tflops is None or g.fp8_tflops <= 2.1 * g.bf16_tflops, g.name
        assert g.int8_tops is None or g.int8_tops <= 4.1 * g.bf16_tflops, g.name
        assert g.fp4_tflops is None or g.fp4_tflops <= (8.1 if g.form_factor == "PCIe" else 6.1) * g.bf16_tflops, g.name


def test_offers_are_of_known_gpus_and_possible_shapes(catalog: Catalog) -> None:
    assert len(catalog.offers) > 300
    for o in catalog.offers:
        assert o.gpu in catalog.gpus, o
        assert 0.05 < o.usd_per_hour / o.gpus_per_instance < 40, o
        assert o.max_tp <= max(o.gpus_per_node, o.gpus_per_instance), o
        assert o.source and o.licence, o
        assert date(2024, 1, 1) < o.as_of < date(2030, 1, 1), o


def test_the_default_supply_has_hyperscalers_and_neoclouds(catalog: Catalog) -> None:
    providers = {kind: {o.provider for o in catalog.offers if o.kind == kind and o.purchase == "on_demand"} for kind in ("hyperscaler", "neocloud")}
    assert {"aws", "azure", "gcp"} <= providers["hyperscaler"]
    assert len(providers["neocloud"]) >= 5


def test_recoveries_are_of_the_schemes_in_use(catalog: Catalog) -> None:
    schemes = {c.scheme for card in catalog.cards for c in card.checkpoint if c.scheme}
    assert set(catalog.recoveries) <= schemes
    for r in catalog.recoveries.values():
        assert 0.8 < r.lowest <= r.factor <= r.highest < 1.05 and r.source


# ---- quality


def served(catalog: Catalog, checkpoint: str, mode: str = "instruct") -> Served:
    return next(s for s in catalog.served if s.checkpoint.id == checkpoint and s.mode == mode)


def test_a_quantised_checkpoint_takes_its_originals_score_times_the_recovery() -> None:
    tiny = load_catalog([TINY], shipped=False)
    quality = tiny.quality(served(tiny, "example/small-8b-fp8"), "mmlu-pro")
    assert quality is not None and quality.derived and quality.score == pytest.approx(0.6 * 0.99)
    assert "fp8 recovery 0.99" in quality.source
    assert tiny.quality(served(tiny, "example/small-8b-fp8"), "gpqa") is None


def test_an_own_score_wins_over_a_derived_one(tmp_path: Path) -> None:
    folder = copy_of_tiny(tmp_path)
    card = folder / "models" / "small.toml"
    card.write_text(
        card.read_text()
        + '\n[[quality]]\ncheckpoint = "example/small-8b-fp8"\nmode = "instruct"\nbenchmark = "mmlu-pro"\n'
        + 'score = 0.55\nself_reported = true\nsource = "a test"\nas_of = 2026-01-01\n'
    )
    tiny = load_catalog([folder], shipped=False)
    quality = tiny.quality(served(tiny, "example/small-8b-fp8"), "mmlu-pro")
    assert quality is not None and not quality.derived and quality.score == 0.55 and quality.self_reported


def test_derived_scores_of_the_shipped_catalogue(catalog: Catalog) -> None:
    own = {(q.checkpoint, q.mode, q.benchmark): q.score for card in catalog.cards for q in card.quality}
    derived = 0
    for s in catalog.served:
        quality = catalog.quality(s, "mmlu-pro")
        if quality is None:
            continue
        key = (s.checkpoint.id, s.mode, "mmlu-pro")
        assert quality.derived == (key not in own)
        if quality.derived:
            derived += 1
            expected = own[s.checkpoint.quantised_from, s.mode, "mmlu-pro"] * catalog.recoveries[s.checkpoint.scheme].factor
            assert quality.score == pytest.approx(expected, abs=1e-5)
    assert derived > 50


# ---- overlays


def copy_of_tiny(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    shutil.copytree(TINY, folder)
    return folder


def header_of(table: str) -> str:
    return (TINY / table).read_text(encoding="utf-8").splitlines()[0]


def row_of(catalog: Catalog, table: str, **changed: object) -> str:
    """A row of the shipped prices or GPUs with cells changed."""
    record = catalog.offers[0] if table == "prices.csv" else next(iter(catalog.gpus.values()))
    cells = {**record.model_dump(mode="json"), **changed}
    values = [cells[name] for name in header_of(table).split(",")]
    text = ['"' + (" ".join(v) if isinstance(v, (list, tuple)) else "" if v is None else str(v)).replace('"', '""') + '"' for v in values]
    return header_of(table) + "\n" + ",".join(text) + "\n"


def test_a_users_price_wins_over_the_shipped_one(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text(row_of(catalog, "prices.csv", usd_per_hour=0.123))
    own = load_catalog([tmp_path])
    assert len(own.offers) == len(catalog.offers)
    assert own.offers[0].usd_per_hour == 0.123
    assert own.offers[1:] == catalog.offers[1:]
    assert own.hash != catalog.hash


def test_a_user_adds_a_card_a_gpu_and_a_price(catalog: Catalog, tmp_path: Path) -> None:
    own = load_catalog([copy_of_tiny(tmp_path)])
    assert {c.name for c in own.cards} == {c.name for c in catalog.cards} | {"Small-8B", "Large-60B"}
    assert set(own.gpus) == {*catalog.gpus, "GPU-24", "GPU-80"}
    assert len(own.offers) == len(catalog.offers) + 4
    assert own.recoveries["fp8"].factor == 0.99
    assert own.coefficients_file == catalog.coefficients_file


def test_the_last_of_two_folders_wins(catalog: Catalog, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for i, folder in enumerate(folders):
        folder.mkdir()
        (folder / "gpus.csv").write_text(row_of(catalog, "gpus.csv", memory_gib=100 + i))
    name = next(iter(catalog.gpus))
    assert load_catalog(folders).gpus[name].memory_gib == 101
    assert load_catalog(folders[::-1]).gpus[name].memory_gib == 100


def test_loading_twice_gives_the_same_catalogue(catalog: Catalog) -> None:
    assert load_catalog() == catalog


# ---- loader errors


def refused(folder: Path | str, shipped: bool = False) -> str:
    with pytest.raises(CatalogError) as caught:
        load_catalog([folder], shipped=shipped)
    line = str(caught.value)
    assert "\n" not in line and caught.value.exit_code == 2
    return line


def replaced(path: Path, old: str, new: str, count: int = 1) -> Path:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, count), encoding="utf-8")
    return path


CARD_ERRORS = {
    "malformed": ("layers = 32", "layers = = 32", "{file}:10: not valid TOML: "),
    "misspelt required key": ("kv_heads = 8", "kv_head = 8", "{file}:16: unknown key 'architecture.kv_head' (did you mean 'kv_heads'?)"),
    "misspelt key": (
        "head_dim = 128",
        "head_dim = 128\nslidng_layers = 3",
        "{file}:18: unknown key 'architecture.slidng_layers' (did you mean 'sliding_layers'?)",
    ),
    "unknown table": (
        '[[quality]]\ncheckpoint = "example/small-8b"',
        '[[qualty]]\ncheckpoint = "example/small-8b"',
        "{file}:39: unknown key 'qualty' (did you mean 'quality'?)",
    ),
    "missing key": ("parameters = 8e9\n", "", "{file}:8: 'architecture.parameters' is missing"),
    "missing source": ('precision = "bf16"\nsource = "invented for the tests"\n', 'precision = "bf16"\n', "{file}:23: 'checkpoint.source' is missing"),
    "negative": ("layers = 32", "layers = -32", "{file}:10: 'architecture.layers': input should be greater than 0, got -32"),
    "infinite": ("parameters = 8e9", "parameters = inf", "{file}:14: 'architecture.parameters': input should be a finite number, got inf"),
    "score as percentage": ("score = 0.6", "score = 60", "{file}:43: 'quality.score': input should be less than or equal to 1, got 60"),
    "unknown precision": ('precision = "fp8"', 'precision = "fp7"', "{file}:33: 'checkpoint.precision': input should be 'bf16', 'fp8'"),
    "wrong reference": (
        'quantised_from = "example/small-8b"',
        'quantised_from = "example/smal-8b"',
        "{file}:34: quantised_from names no checkpoint of this card; did you mean 'example/small-8b'?",
    ),
    "score of nobody": (
        '[[quality]]\ncheckpoint = "example/small-8b"',
        '[[quality]]\ncheckpoint = "example/small-9b"',
        "{file}:40: 'example/small-9b' is no checkpoint of this card; did you mean",
    ),
    "wrong mode": ('mode = "instruct"', 'mode = "thinking"', "{file}:41: a checkpoint of variant 'instruct' does not answer in mode 'thinking'"),
    "no scheme": ('scheme = "fp8"\n', "", "{file}:31: a quantised checkpoint needs its scheme"),
    "checkpoint twice": ('id = "example/small-8b-fp8"', 'id = "example/small-8b"', "{file}:31: checkpoint 'example/small-8b' stands twice"),
    "too many layers": ("full_attention_layers = 32", "full_attention_layers = 33", "{file}:10: more attention, sliding and linear layers than layers"),
}


@pytest.mark.parametrize("case", CARD_ERRORS)
def test_a_bad_card_is_named_with_the_line(case: str, tmp_path: Path) -> None:
    old, new, line = CARD_ERRORS[case]
    folder = copy_of_tiny(tmp_path)
    file = replaced(folder / "models" / "small.toml", old, new)
    assert refused(folder).startswith(line.format(file=file))


def test_two_cards_of_one_name(tmp_path: Path) -> None:
    folder = copy_of_tiny(tmp_path)
    shutil.copy(folder / "models" / "small.toml", folder / "models" / "twin.toml")
    assert refused(folder) == f"{folder / 'models' / 'twin.toml'}: a second card for 'Small-8B' (first in small.toml)"


def test_one_checkpoint_on_two_cards(tmp_path: Path) -> None:
    folder = copy_of_tiny(tmp_path)
    shutil.copy(folder / "models" / "small.toml", folder / "models" / "twin.toml")
    replaced(folder / "models" / "twin.toml", 'name = "Small-8B"', 'name = "Twin-8B"')
    assert "checkpoint 'example/small-8b' stands on two cards (first in small.toml)" in refused(folder)


NEO = "neo,neocloud,any,any,gpu-24,gpu,GPU-24,1,8,2,on_demand,0.5,2026-03-01,row,invented for the tests,none,"
PRICE_ERRORS = {
    "not a number": ("on_demand,0.5,", "on_demand,cheap,", ":4: 'usd_per_hour': input should be a valid number"),
    "nan": ("on_demand,0.5,", "on_demand,nan,", ":4: 'usd_per_hour': input should be a finite number, got 'nan'"),
    "infinite": ("on_demand,0.5,", "on_demand,inf,", ":4: 'usd_per_hour': input should be a finite number, got 'inf'"),
    "negative": ("on_demand,0.5,", "on_demand,-0.5,", ":4: 'usd_per_hour': input should be greater than 0, got '-0.5'"),
    "free": ("on_demand,0.5,", "on_demand,0,", ":4: 'usd_per_hour': input should be greater than 0, got '0'"),
    "blank": ("on_demand,0.5,", "on_demand,,", ":4: 'usd_per_hour' is blank"),
    "fraction of a GPU": ("GPU-24,1,8,2,", "GPU-24,0.5,8,2,", ":4: 'gpus_per_instance': input should be a valid integer"),
    "two per GPU": ("GPU-24,1,8,2,", "GPU-24,2,8,2,", ":4: an offer per GPU has gpus_per_instance 1"),
    "wider than the node": ("GPU-24,1,8,2,", "GPU-24,1,8,16,", ":4: max_tp 16 is more than the 8 GPUs of a node"),
    "unknown kind": (",neocloud,any,any,gpu-24", ",cloudy,any,any,gpu-24", ":4: 'kind': input should be 'hyperscaler', 'neocloud'"),
    "twice": (NEO, NEO + "\n" + NEO, ":5: repeats line 4"),
    "too few cells": (
        ",invented for the tests,none,\nneo,neocloud,any,any,gpu-80",
        ",none,\nneo,neocloud,any,any,gpu-80",
        ":4: 16 cells where the header has 17",
    ),
    "no date": ("0.5,2026-03-01", "0.5,March", ":4: 'as_of': input should be a valid date"),
    "unknown column": ("provider,kind", "provider,kinds", ":1: unknown column 'kinds' (did you mean 'kind'?)"),
    "missing column": ("provider,kind,", "kind,", ":1: column 'provider' is missing"),
}


@pytest.mark.parametrize("case", PRICE_ERRORS)
def test_a_bad_price_is_named_with_the_line(case: str, tmp_path: Path) -> None:
    old, new, line = PRICE_ERRORS[case]
    folder = copy_of_tiny(tmp_path)
    file = replaced(folder / "prices.csv", old, new)
    assert refused(folder).startswith(f"{file}{line}")


def test_an_empty_table(tmp_path: Path) -> None:
    folder = copy_of_tiny(tmp_path)
    (folder / "prices.csv").write_text("")
    assert refused(folder).startswith(f"{folder / 'prices.csv'}: the file is empty (needs a header line with provider,")
    (folder / "prices.csv").write_text(header_of("prices.csv") + "\n")
    assert "no prices (the catalogue is empty)" in refused(folder)
    (folder / "gpus.csv").write_text(header_of("gpus.csv") + "\n")
    assert "no GPUs (the catalogue is empty)" in refused(folder)
    shutil.rmtree(folder / "models")
    assert "no model cards (the catalogue is empty)" in refused(folder)


@pytest.mark.parametrize("shipped", [True, False])
def test_a_folder_that_holds_nothing(tmp_path: Path, shipped: bool) -> None:
    tables = "gpus.csv, prices.csv, api_prices.csv, recovery.csv, tuning.csv, calibration.csv, tokenizers.csv, grid.csv, evidence.csv"
    assert refused(tmp_path, shipped) == f"{tmp_path}: holds no catalogue (needs models/*.toml or one of {tables})"
    assert refused(tmp_path / "absent", shipped) == f"{tmp_path / 'absent'}: no such folder"


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    folder = copy_of_tiny(tmp_path)
    (folder / "gpus.csv").write_bytes(b"\xff\xfe\x00\x01")
    assert refused(folder) == f"{folder / 'gpus.csv'}: cannot read the file: not UTF-8 text"


def test_a_spreadsheets_byte_order_mark_and_line_ends_are_fine(tmp_path: Path) -> None:
    folder = copy_of_tiny(tmp_path)
    text = (folder / "prices.csv").read_text(encoding="utf-8")
    (folder / "prices.csv").write_bytes(("﻿" + text.replace("\n", "\r\n")).encode())
    assert load_catalog([folder], shipped=False).offers == load_catalog([TINY], shipped=False).offers


# ---- the doctor


def test_the_doctor_finds_stale_prices_by_the_date_given(catalog: Catalog) -> None:
    newest = max(o.as_of for o in catalog.offers)
    oldest = min(o.as_of for o in catalog.offers)

    def stale(today: date) -> list[str]:
        return [f.what for f in examine(catalog, today) if f.kind == "stale" and "days old" in f.what]

    assert not stale(oldest)
    assert len(stale(date(newest.year + 1, 12, 31))) >= len({o.provider for o in catalog.offers})


def test_the_doctor_counts_days() -> None:
    tiny = load_catalog([TINY], shipped=False)
    assert not [f for f in examine(tiny, date(2026, 5, 30)) if "days old" in f.what]  # 90 days
    stale = [(f.where, f.what) for f in examine(tiny, date(2026, 5, 31)) if "days old" in f.what]
    assert ("cloud", "2 prices of 2026-03-01, 91 days old") in stale
    assert ("neo", "1 prices of 2026-03-01 (the snapshot's date; the rows are undated), 91 days old") in stale


def test_the_doctor_finds_gaps_and_conflicts(tmp_path: Path) -> None:
    folder = copy_of_tiny(tmp_path)
    replaced(folder / "prices.csv", "neo,neocloud,any,any,gpu-80,gpu,GPU-80", "neo,neocloud,any,any,gpu-80,gpu,GPU-99")
    replaced(
        folder / "prices.csv",
        "c24.1,instance,GPU-24,1,1,1,on_demand,0.8",
        "c24.1,instance,GPU-24,1,1,1,on_demand,0.8,2026-03-01,row,x,none,\nother,hyperscaler,north,eu,c24.1,instance,GPU-24,1,1,1,on_demand,9",
    )
    card = folder / "models" / "small.toml"
    card.write_text(card.read_text().split("[[quality]]")[0])
    replaced(folder / "api_prices.csv", "Large-60B,example/large-60b,large", "Large-60B,example/large-61b,large")
    replaced(folder / "evidence.csv", "Large-60B,fp8", "Larger-61B,fp8")
    found = {(f.kind, f.where, f.what) for f in examine(load_catalog([folder], shipped=False), date(2026, 3, 2))}
    for expected in (
        ("gap", "Small-8B", "no score on any benchmark: never eligible under a floor"),
        ("gap", "Large-60B", "reasoning without an output factor, eligible only with --output-factor: example/large-60b-thinking"),
        ("gap", "GPU-99", "on offer without specifications: never used"),
        ("gap", "Larger-61B", "measured, but there is no such card: the curves are not joined"),
        ("gap", "example/large-61b", "has an API price, but is on no card"),
        ("gap", "GPU-24", "no measured curve"),
        ("conflict", "GPU-24", "hyperscaler on-demand prices per GPU run from $0.80 (cloud) to $9.00 (other)"),
    ):
        assert expected in found


# ---- GPUs as people write them


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        # nvidia-smi, rocm-smi and hl-smi
        ("NVIDIA H100 80GB HBM3", "H100-SXM-80GB"),
        ("NVIDIA H100 PCIe", "H100-PCIe-80GB"),
        ("NVIDIA H100 NVL", "H100-NVL-94GB"),
        ("NVIDIA H200 NVL", "H200-NVL-141GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-SXM-80GB"),
        ("NVIDIA A100 80GB PCIe", "A100-PCIe-80GB"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX-6000-Ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000-Server"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX-PRO-6000"),
        ("AMD Instinct MI300X", "MI300X"),
        # AIConfigurator, clouds, people
        ("h100_sxm", "H100-SXM-80GB"),
        ("rtx_pro_6000_server", "RTX-PRO-6000-Server"),
        ("GB300-NVL72", "GB300"),
        ("H100-SXM5-80G", "H100-SXM-80GB"),
        ("HGX H200 141 GB", "H200-SXM-141GB"),
        ("H100SXM", "H100-SXM-80GB"),
        ("B200", "B200-SXM"),
        ("B200-192GB", "B200-SXM"),
        ("L4 24GB", "L4"),
        ("L40S-48GB", "L40S"),
        ("MI300X 192GB", "MI300X"),
        ("RTX4090", "RTX-4090"),
        ("Intel Gaudi 3", "Gaudi3"),
        ("H20", "H20-96GB"),
        ("NVIDIA GH200 480GB", "GH200-96GB"),  # the driver names the CPU's memory
        ("NVIDIA GH200 144G HBM3e", "GH200-144GB"),
        ("NVIDIA RTX PRO 5000 72GB Blackwell", "RTX-PRO-5000-72GB"),
        ("RTX PRO 4500 Blackwell", "RTX-PRO-4500"),
        ("NVIDIA A40", "A40"),
        ("MI350X", "MI350X"),
        ("rtx-pro-6000", "RTX-PRO-6000"),  # the catalogue's own spelling is that GPU
    ],
)
def test_a_gpu_is_known_by_the_names_that_drivers_vendors_and_people_give_it(catalog: Catalog, written: str, meant: str) -> None:
    assert known_gpu(written, catalog.gpus, "--gpu") == meant


@pytest.mark.parametrize(
    ("written", "candidates"),
    [
        ("H100", "H100-NVL-94GB, H100-PCIe-80GB or H100-SXM-80GB?"),
        ("NVIDIA H100-80GB", "H100-PCIe-80GB or H100-SXM-80GB?"),
        ("A100 80GB", "A100-PCIe-80GB or A100-SXM-80GB?"),
        ("GH200", "GH200-144GB or GH200-96GB?"),
        ("RTX PRO 6000", "RTX-PRO-6000 or RTX-PRO-6000-Server?"),
    ],
)
def test_a_name_of_several_gpus_is_asked_about_in_one_line(catalog: Catalog, written: str, candidates: str) -> None:
    with pytest.raises(CatalogError) as error:
        known_gpu(written, catalog.gpus, "--quota")
    assert str(error.value) == f"--quota: '{written}' is several GPU types (which: {candidates[:-1]}?)"


@pytest.mark.parametrize(
    "other", ["H100 64GB", "H20-3e", "H20 141GB", "MI300A", "A100X", "L40G", "AMD H100", "RTX PRO 6000 Max-Q", "NVIDIA", "80GB", "server", "blackwell", ""]
)
def test_another_product_is_never_taken_for_one_that_is_known(catalog: Catalog, other: str) -> None:
    assert gpus_meant(other, catalog.gpus) == ()


def test_every_gpu_is_known_by_its_own_name(catalog: Catalog) -> None:
    assert all(gpus_meant(name.lower(), catalog.gpus) == (name,) for name in catalog.gpus)


# ---- electricity


def test_every_region_with_a_price_says_what_its_electricity_emits_and_no_other(catalog: Catalog) -> None:
    priced = {(o.provider, o.region) for o in catalog.offers if o.region != "any"}
    assert catalog.grids.keys() == priced
    assert all(g.g_co2e_per_kwh is not None and g.place and g.source and g.licence for g in catalog.grids.values())
    assert all((g.pue is None) == (not g.pue_source) for g in catalog.grids.values())


def test_hydro_and_nuclear_emit_less_than_coal(catalog: Catalog) -> None:
    def intensity(provider: str, region: str) -> float:
        return catalog.grids[provider, region].g_co2e_per_kwh or 0.0

    assert intensity("azure", "swedencentral") < intensity("nebius", "eu-west1") < 100 < intensity("azure", "germanywestcentral")
    assert intensity("azure", "germanywestcentral") < intensity("azure", "polandcentral") < intensity("lambda", "asia-south-1")


def test_a_users_grid_wins_and_what_it_leaves_blank_is_not_known(tmp_path: Path) -> None:
    header = "provider,region,place,g_co2e_per_kwh,pue,source,licence\n"
    (tmp_path / "grid.csv").write_text(f"{header}aws,us-east-1,our contract,20,,own,none\nmine,here,home,,1.3,own,none\n")
    grids = load_catalog([tmp_path]).grids
    assert (grids["aws", "us-east-1"].g_co2e_per_kwh, grids["aws", "us-east-1"].pue) == (20, None)
    assert (grids["mine", "here"].g_co2e_per_kwh, grids["mine", "here"].pue) == (None, 1.3)
    (tmp_path / "grid.csv").write_text(f"{header}aws,us-east-1,here,-5,,own,none\n")
    with pytest.raises(CatalogError, match=r"grid.csv:2.*g_co2e_per_kwh"):
        load_catalog([tmp_path])
