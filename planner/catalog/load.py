"""Loads the shipped catalogue and any folders of the user's own, whose rows win over the shipped ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from planner.catalog.cards import read_card
from planner.catalog.catalog import Catalog
from planner.catalog.files import is_file, is_folder, numbered_csv
from planner.catalog.records import ApiPrice, Calibration, Card, Gpu, MeasuredConfiguration, Offer, PowerGrid, Recovery, TokenCount, TunedEngine
from planner.errors import CatalogError, did_you_mean

R = TypeVar("R", bound=BaseModel)
PACKAGE = Path(__file__).resolve().parent.parent


def shipped_folders() -> tuple[Path, Path]:
    """(models, catalogs) as shipped: inside an installed package, or beside it in a checkout."""
    inside = PACKAGE / "data"
    root = inside if inside.is_dir() else PACKAGE.parent
    return root / "models", root / "catalogs"


def load_catalog(folders: Sequence[str | Path] = (), shipped: bool = True) -> Catalog:
    """The catalogue of the shipped files under the user's folders, the last folder winning.

    A folder may hold ``models/*.toml`` and any of ``gpus.csv``, ``prices.csv``, ``api_prices.csv``, ``recovery.csv``,
    ``tokenizers.csv``, ``grid.csv``, ``tuning.csv``, ``calibration.csv``, ``evidence.csv``, ``coefficients.json``, ``speculation.csv``,
    ``disaggregated.json``, ``spot.csv``. Raises CatalogError with file and line.
    """
    models, catalogs = shipped_folders()
    places = [(models, catalogs)] if shipped else []
    for folder in map(Path, folders):
        if not is_folder(folder):
            raise CatalogError("no such folder", str(folder))
        if not holds_catalog(folder):
            raise CatalogError("holds no catalogue", str(folder), f"needs models/*.toml or one of {', '.join(_TABLES)}")
        places.append((folder / "models", folder))
    files = sorted({f for m, c in places for f in (*m.glob("*.toml"), *(c / n for n in (*_TABLES, *_FITTED))) if f.is_file()})
    cards: dict[str, Card] = {}
    for folder, _ in places:
        cards |= _cards(folder)
    if not cards:
        raise CatalogError("no model cards", str(places[-1][0]) if places else "", "the catalogue is empty")
    tables = {name: _merged([c / name for _, c in places], kind, key) for name, (kind, key) in _TABLES.items()}
    gpus = {g.name: g for g in tables["gpus.csv"] if isinstance(g, Gpu)}
    offers = tuple(o for o in tables["prices.csv"] if isinstance(o, Offer))
    for what, rows in (("GPUs", gpus), ("prices", offers)):
        if not rows:
            raise CatalogError(f"no {what}", str(places[-1][1]), "the catalogue is empty")
    return Catalog(
        cards=tuple(cards[n] for n in sorted(cards)),
        gpus=gpus,
        offers=offers,
        api_prices=tuple(a for a in tables["api_prices.csv"] if isinstance(a, ApiPrice)),
        recoveries={r.scheme: r for r in tables["recovery.csv"] if isinstance(r, Recovery)},
        measured=tuple(_with_weights(m, cards) for m in tables["evidence.csv"] if isinstance(m, MeasuredConfiguration)),
        coefficients_file=next((c / "coefficients.json" for _, c in reversed(places) if (c / "coefficients.json").is_file()), catalogs / "coefficients.json"),
        hash=_hash(files),
        folders=tuple(Path(f) for f in folders),
        tuned={(t.tuning, t.engine): t for t in tables["tuning.csv"] if isinstance(t, TunedEngine)},
        calibrated=tuple(c for c in tables["calibration.csv"] if isinstance(c, Calibration)),
        tokens={(t.tokenizer, t.language): t for t in tables["tokenizers.csv"] if isinstance(t, TokenCount)},
        spot_files=tuple(f for _, c in places if (f := c / "spot.csv").is_file()),
        grids={(g.provider, g.region): g for g in tables["grid.csv"] if isinstance(g, PowerGrid)},
    )


def holds_catalog(folder: Path) -> bool:
    """Whether a folder has anything that a catalogue is made of."""
    return is_folder(folder / "models") or any(is_file(folder / name) for name in (*_TABLES, *_FITTED))


def _with_weights(row: MeasuredConfiguration, cards: Mapping[str, Card]) -> MeasuredConfiguration:
    card = cards.get(row.architecture)
    return row.model_copy(update={"active_parameters": card.architecture.active_parameters}) if card else row


def _cards(folder: Path) -> dict[str, Card]:
    """Cards of one folder by name. Raises CatalogError when two carry one name, or one checkpoint stands on two."""
    found: dict[str, tuple[Card, Path]] = {}
    owner: dict[str, Path] = {}
    for path in sorted(folder.glob("*.toml")):
        card = read_card(path)
        if card.name in found:
            raise CatalogError(f"a second card for '{card.name}'", str(path), f"first in {found[card.name][1].name}")
        for checkpoint in card.checkpoint:
            if checkpoint.id in owner:
                raise CatalogError(f"checkpoint '{checkpoint.id}' stands on two cards", str(path), f"first in {owner[checkpoint.id].name}")
            owner[checkpoint.id] = path
        found[card.name] = (card, path)
    return {name: card for name, (card, _) in found.items()}


def _merged(paths: Iterable[Path], kind: type[R], key: Callable[[R], Hashable]) -> list[R]:
    """Rows of one table over all folders; a later folder's row replaces the earlier one with its key."""
    rows: dict[Hashable, R] = {}
    for path in paths:
        if not path.is_file():
            continue
        seen: dict[Hashable, int] = {}
        for line, row in numbered_csv(path, kind):
            if key(row) in seen:
                raise CatalogError(f"repeats line {seen[key(row)]}", f"{path}:{line}")
            seen[key(row)] = line
            rows[key(row)] = row
            if isinstance(row, Offer):
                _plausible(row, f"{path}:{line}")
    return list(rows.values())


def _plausible(offer: Offer, where: str) -> None:
    """Refuses fractions of a GPU, shapes that cannot be and what is no fact of an offer. Raises CatalogError."""
    if offer.carbon_usd_per_hour:
        raise CatalogError("what carbon costs is asked, not listed", where, "leave carbon_usd_per_hour out; see --carbon-price")
    if offer.available is not None and offer.minimum > offer.available:
        raise CatalogError(f"sold in no fewer than {offer.minimum} instances, and there are {offer.available}", where)
    if offer.basis == "gpu" and offer.gpus_per_instance != 1:
        raise CatalogError("an offer per GPU has gpus_per_instance 1", where)
    if offer.max_tp > max(offer.gpus_per_node, offer.gpus_per_instance):
        raise CatalogError(f"max_tp {offer.max_tp} is more than the {offer.gpus_per_node} GPUs of a node", where)


def _hash(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


_TABLES: dict[str, tuple[type[BaseModel], Callable[..., Hashable]]] = {
    "gpus.csv": (Gpu, lambda g: g.name),
    "prices.csv": (Offer, lambda o: (o.provider, o.region, o.zone, o.instance_type, o.gpu, o.purchase)),
    "api_prices.csv": (ApiPrice, lambda a: (a.provider, a.checkpoint, a.api_name)),
    "recovery.csv": (Recovery, lambda r: r.scheme),
    "tuning.csv": (TunedEngine, lambda t: (t.tuning, t.engine)),
    "calibration.csv": (Calibration, lambda c: (c.gpu, c.engine, c.architecture, c.tp)),
    "tokenizers.csv": (TokenCount, lambda t: (t.tokenizer, t.language)),
    "grid.csv": (PowerGrid, lambda g: (g.provider, g.region)),
    "evidence.csv": (MeasuredConfiguration, lambda m: (m.architecture, m.precision, m.gpu, m.engine, m.tp, m.dp)),
}


# Fitted; residuals.json and kernels.json belong to the coefficients beside them. They enter the hash, and are read where they are needed.
_FITTED = ("coefficients.json", "kernels.json", "residuals.json", "speculation.csv", "disaggregated.json", "spot.csv")


def known_name(word: str, known: Iterable[str], what: str, where: str, hint: str) -> str:
    """The catalogue's spelling of a name, found without regard to case. Raises CatalogError with did-you-mean."""
    names = {k.lower(): k for k in known}
    if word.lower() not in names:
        raise CatalogError(f"unknown {what} '{word}'", where, did_you_mean(word, names.values()) or hint)
    return names[word.lower()]
