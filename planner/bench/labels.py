"""The names that benchmark data use, in the catalogue's terms: which card, GPU, engine and precision a label means.

Every alias of a model stands in a table here, so that a row is never matched by guesswork alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from planner.catalog.catalog import Catalog
from planner.catalog.hardware import gpus_meant, several, which
from planner.catalog.records import Card, Gpu

# Labels of public benchmark data that are no checkpoint's or card's name -> card. Base and re-named checkpoints share the architecture.
MODELS = {
    "meta-llama/llama-3.1-8b": "Llama-3.1-8B",
    "meta-llama/meta-llama-3.1-8b": "Llama-3.1-8B",
    "meta-llama/meta-llama-3.1-8b-instruct": "Llama-3.1-8B",
    "meta-llama/llama-3.1-70b": "Llama-3.1-70B",
    "meta-llama/meta-llama-3.1-70b": "Llama-3.1-70B",
    "meta-llama/meta-llama-3.1-70b-instruct": "Llama-3.1-70B",
    "meta-llama/llama-3.3-70b": "Llama-3.1-70B",
    "meta-llama/llama-3.1-405b": "Llama-3.1-405B",
    "meta-llama/meta-llama-3.1-405b": "Llama-3.1-405B",
    "meta-llama/meta-llama-3.1-405b-instruct": "Llama-3.1-405B",
    "meta-llama/llama-2-70b": "Llama-2-70B",
    "meta-llama/llama-2-70b-hf": "Llama-2-70B",
    "mistralai/mistral-7b-v0.1": "Mistral-7B",
    "mistralai/mixtral-8x7b-v0.1": "Mixtral-8x7B",
    "mistralai/mixtral-8x22b-v0.1": "Mixtral-8x22B",
    "zhipuai/glm-5": "GLM-5",
    "zhipuai/glm-4.5": "GLM-4.5",
    "zhipuai/glm-4.5-air": "GLM-4.5-Air",
    # Short labels of dashboards and MLPerf.
    "dsr1": "DeepSeek-V3",
    "deepseek-r1": "DeepSeek-V3",
    "deepseek-r1-0528": "DeepSeek-V3",
    "gptoss": "gpt-oss-120b",
    "gptoss120b": "gpt-oss-120b",
    "gpt-oss": "gpt-oss-120b",
    "llama2-70b": "Llama-2-70B",
    "llama3.1-8b": "Llama-3.1-8B",
    "llama3.1-70b": "Llama-3.1-70B",
    "llama3.3-70b": "Llama-3.1-70B",
    "llama70b": "Llama-3.1-70B",
    "llama3.1-405b": "Llama-3.1-405B",
    "mixtral-8x7b": "Mixtral-8x7B",
    "minimaxm2.5": "MiniMax-M2",
    "kimik2.5": "Kimi-K2",
    "qwen3.5": "Qwen3.5-397B-A17B",
    "glm5": "GLM-5",
}
# Where a source's label is called by several GPUs, and the source says which it means.
GPUS = {"rtx-pro-6000-blackwell": "RTX-PRO-6000-Server"}  # the server edition, by TensorRT-LLM's performance overview
ENGINES = {
    "vllm": "vllm",
    "vllm-gaudi": "vllm",
    "sglang": "sglang",
    "trtllm": "trtllm",
    "trt": "trtllm",
    "trt-llm": "trtllm",
    "tensorrt": "trtllm",
    "tensorrt-llm": "trtllm",
    "tensorrt_llm": "trtllm",
}
PRECISIONS = {
    "bf16": "bf16",
    "bfloat16": "bf16",
    "fp16": "bf16",
    "float16": "bf16",
    "half": "bf16",
    "fp8": "fp8",
    "float8": "fp8",
    "fp8_e4m3": "fp8",
    "fp8_block": "fp8",
    "int8": "int8",
    "w8a8": "int8",
    "nvfp4": "nvfp4",
    "mxfp4": "mxfp4",
    "int4": "int4",
    "w4a16": "int4",
    "awq": "int4",
    "gptq": "int4",
}
IN_LABEL = (("nvfp4", "nvfp4"), ("mxfp4", "mxfp4"), ("fp8", "fp8"), ("fp4", "nvfp4"), ("awq", "int4"), ("int4", "int4"), ("w4a16", "int4"), ("w8a8", "int8"))


@dataclass(frozen=True)
class Labels:
    """Look-ups over one catalogue; all keys in lower case."""

    cards: tuple[Card, ...]
    gpus: tuple[Gpu, ...]
    card_of: Mapping[str, int]  # card name, checkpoint id, or its unambiguous name without publisher
    precision_of: Mapping[str, str]  # checkpoint id
    gpu_of: Mapping[str, int]
    catalog: Catalog

    def card(self, label: str) -> int | str:
        """Index of the card a label means, or why there is none."""
        word = label.lower()
        for name in (word, MODELS.get(word, ""), bare_name(word)):
            if name.lower() in self.card_of:
                return self.card_of[name.lower()]
        return f"no model '{label}' in the catalogue"

    def gpu(self, label: str) -> int | str:
        """Index of the GPU a label means, or why there is none. Where boards of one chip are meant it is the only module (SXM) among them."""
        if not label:
            return "GPU not given"
        found = self.meant(label)
        return self.gpu_of[found[0]] if len(found) == 1 else f"{several(label)} ({which(found)})" if found else f"no GPU '{label}' in the catalogue"

    def meant(self, label: str) -> tuple[str, ...]:
        """The catalogue's names of the GPUs that a label may mean."""
        found = gpus_meant(label, self.catalog.gpus)
        if label.lower() in GPUS:
            return tuple(g for g in found if g == GPUS[label.lower()])
        modules = tuple(g for g in found if self.catalog.gpus[g].form_factor.startswith("SXM"))
        return modules if len(modules) == 1 else found

    def taken_as(self, label: str) -> str:
        """What a label that several boards are called by is taken as, in words; "" where it names one."""
        found = gpus_meant(label, self.catalog.gpus)
        return "" if len(found) == 1 else f"{label} taken as {self.meant(label)[0]}"

    def precision(self, given: str, label: str, card: int, gpu: int) -> str:
        """The precision in our terms, or "" where the word is unknown. Blank is the checkpoint's own; 'fp4' depends on checkpoint and GPU."""
        published = {c.precision for c in self.cards[card].checkpoint}
        if published == {"mxfp4"}:
            return "mxfp4"  # gpt-oss exists in no other precision, whatever the row calls it
        word = given.lower()
        if word == "fp4":
            return "mxfp4" if self.gpus[gpu].vendor == "AMD" else "nvfp4"
        if word:
            return PRECISIONS.get(word, "")
        own = self.precision_of.get(label.lower())
        return own or next((precision for part, precision in IN_LABEL if part in label.lower()), "bf16")


def labels_of(catalog: Catalog) -> Labels:
    """The look-ups of a catalogue."""
    names: dict[str, int] = {}
    bare: dict[str, set[int]] = {}
    precision_of = {}
    for i, card in enumerate(catalog.cards):
        names[card.name.lower()] = i
        for checkpoint in card.checkpoint:
            names[checkpoint.id.lower()] = i
            precision_of[checkpoint.id.lower()] = checkpoint.precision
            bare.setdefault(bare_name(checkpoint.id.lower()), set()).add(i)
    unambiguous = {name: next(iter(cards)) for name, cards in bare.items() if len(cards) == 1}
    gpus = tuple(catalog.gpus.values())
    return Labels(catalog.cards, gpus, {**unambiguous, **names}, precision_of, {g.name: i for i, g in enumerate(gpus)}, catalog)


def engine_of(label: str) -> str:
    """The engine a label means, or ""."""
    return ENGINES.get(label.lower(), "")


def bare_name(label: str) -> str:
    """A label without its publisher and the precision at its end: other publishers' quantised copies share the architecture."""
    name = label.rsplit("/", maxsplit=1)[-1]
    return re.sub(r"[-_](nvfp4|mxfp4|fp8|fp4|awq|bf16|quantized\.w8a8|quantized\.w4a16)([-_](dynamic|kv|v\d+))*$", "", name)
