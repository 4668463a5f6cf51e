"""GPUs as people, drivers and benchmarks write them (H100-80GB, NVIDIA H100 80GB HBM3, rtx_pro_6000_server), in the catalogue's names.

A name means every GPU that all its words are true of; a word that is true of none is never passed over. One is taken, several are asked about.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from planner.catalog.records import Gpu
from planner.errors import CatalogError, did_you_mean

# Words that name no type, by vendor.
BRANDS = {
    "NVIDIA": {"nvidia", "geforce", "tesla", "gpu", "edition"},
    "AMD": {"amd", "instinct", "gpu"},
    "Intel": {"intel", "habana", "gpu"},
    "Google": {"google"},
}
FORMS = {"sxm": {"sxm", "hgx", "dgx"}, "nvl72": {"nvl", "nvl72"}}
# Words of drivers and vendors that neither name nor form says: the kind of memory, that of a GH200's CPU, and editions.
ALSO = {
    "H100-SXM-80GB": {"hbm3"},
    "H100-NVL-94GB": {"hbm3"},
    "H100-PCIe-80GB": {"hbm2e"},
    "H200-SXM-141GB": {"hbm3e"},
    "H200-NVL-141GB": {"hbm3e"},
    "GH200-96GB": {"hbm3", "480gb", "120gb"},
    "GH200-144GB": {"hbm3e"},
    "RTX-6000-Ada": {"generation"},
    "RTX-PRO-6000": {"workstation"},
}
# Memory as sold over memory as the driver shows it: from 1 GB of 1e9 bytes under ECC (24 GB, 22.5 GiB) to rounding.
SOLD_AS = (0.99, 1.08)
SIZE = re.compile(r"\d{1,6}gb")


def gpus_meant(name: str, gpus: Mapping[str, Gpu]) -> tuple[str, ...]:
    """The GPU of the catalogue called so, without regard to case, else all that the name's words are true of; empty where there is none."""
    exact = tuple(g for g in gpus if g.lower() == name.strip().lower())
    return exact or tuple(g for g, gpu in gpus.items() if _is_called(_words(name), gpu))


def known_gpus(name: str, gpus: Mapping[str, Gpu], where: str) -> tuple[str, ...]:
    """The GPUs that a name means. Raises CatalogError with did-you-mean where there is none."""
    found = gpus_meant(name, gpus)
    if not found:
        raise CatalogError(f"unknown GPU '{name}'", where, did_you_mean(name, gpus) or "see plan catalog gpus")
    return found


def known_gpu(name: str, gpus: Mapping[str, Gpu], where: str) -> str:
    """The one GPU that a name means. Raises CatalogError where there is none, or several are meant."""
    found = known_gpus(name, gpus, where)
    if len(found) > 1:
        raise CatalogError(several(name), where, which(found))
    return found[0]


def several(name: str) -> str:
    """What is wrong with a name that means more than one GPU."""
    return f"'{name}' is several GPU types"


def which(found: tuple[str, ...]) -> str:
    """The GPUs to choose from."""
    *others, last = sorted(found)
    return f"which: {', '.join(others)} or {last}?"


@lru_cache(maxsize=4096)
def _words(name: str) -> tuple[str, ...]:
    """h100_sxm5_80g -> h100, sxm5, 80gb; RTX4090 -> rtx, 4090; Gaudi 3 -> gaudi3."""
    text = re.sub(r"[^a-z0-9]+", " ", name.lower())
    text = re.sub(r"\b(\d+) ?(?:gib|gb|g)\b", r"\1gb", text)
    text = re.sub(r"(?<=\d)(?=(?:sxm|pcie|nvl)\d*\b)", " ", text)
    text = re.sub(r"\b(rtx)(?=pro|\d)|\b(pro)(?=\d)", lambda m: f"{m[0]} ", re.sub(r"\brtxpro", "rtx pro", text))
    return tuple(re.sub(r"\bgaudi (?=\d)", "gaudi", text).split())


def _is_called(words: tuple[str, ...], gpu: Gpu) -> bool:
    """Whether all words are true of a GPU, and one of them names its type."""
    types, true = _true_of(gpu.name, gpu.vendor, gpu.generation, gpu.form_factor)
    return not types.isdisjoint(words) and all(w in true or _is_size(w, gpu) for w in words)


@lru_cache(maxsize=4096)
def _true_of(name: str, vendor: str, generation: str, form_factor: str) -> tuple[frozenset[str], frozenset[str]]:
    """(words that name a GPU's type: its first, and those with a number; all words that are true of it)."""
    named, form = _words(name), form_factor.lower()
    forms = {form} | FORMS.get(form, set()) | FORMS.get(form.rstrip("0123456789"), set()) if "nvl" not in named else {"nvl"}  # none calls an NVL board PCIe
    types = {w for w in named if w not in forms and not SIZE.fullmatch(w) and (w == named[0] or any(c.isdigit() for c in w))}
    return frozenset(types), frozenset({*named, *forms, *BRANDS[vendor], *ALSO.get(name, ()), generation.lower()})


def _is_size(word: str, gpu: Gpu) -> bool:
    """Whether a word is a GPU's memory: as its driver shows it and, where its name does not tell, as it is sold."""
    if not SIZE.fullmatch(word):
        return False
    size, told = int(word[:-2]), any(SIZE.fullmatch(w) for w in _words(gpu.name))
    return size == round(gpu.memory_gib) or (not told and SOLD_AS[0] <= size / gpu.memory_gib <= SOLD_AS[1])
