"""How checkpoints are told to think or not, and which parser of an engine takes their thoughts out of the answer. What is not known is said, never guessed.

Names of parsers: docs.vllm.ai features/reasoning_outputs and vllm/reasoning/__init__.py; docs.sglang.io advanced_features/separate_reasoning and
sglang/srt/parser/reasoning_parser.py; tensorrt_llm/llmapi/reasoning_parser.py. Server-wide chat-template arguments: --default-chat-template-kwargs of
vLLM (github:vllm-project/vllm#31343) and SGLang (github:sgl-project/sglang#29579); TensorRT-LLM has none, so each request must bring them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

BUILT_IN = "built in"  # the engine knows the format without a flag


@dataclass(frozen=True)
class Reasoning:
    """One family. ``on`` and ``off``: chat-template arguments as JSON, or where ``by_system_prompt`` the system prompt; "" = nothing to say."""

    on: str = ""
    off: str = ""
    parsers: Mapping[str, str] = field(default_factory=dict)  # by engine; absent = not known
    by_system_prompt: bool = False
    tokenizer: str = ""  # vLLM's --tokenizer-mode, where the parser needs one


def _parsers(vllm: str = "", sglang: str = "", trtllm: str = "") -> dict[str, str]:
    return {engine: name for engine, name in (("vllm", vllm), ("sglang", sglang), ("trtllm", trtllm)) if name}


_ENABLE = ('{"enable_thinking":true}', '{"enable_thinking":false}')
_THINKING = ('{"thinking":true}', '{"thinking":false}')
_UNTIL_TAG = _parsers("deepseek_r1", "deepseek-r1", "deepseek-r1")
_MISTRAL = Reasoning(parsers=_parsers("mistral", "mistral"), tokenizer="mistral")
# (what the checkpoint's name without its publisher begins with, what it must hold beside, family); the first that fits counts
FAMILIES: tuple[tuple[str, str, Reasoning], ...] = (
    ("deepseek-r1", "", Reasoning(parsers=_UNTIL_TAG)),
    ("deepseek-v3", "", Reasoning(*_THINKING, _parsers("deepseek_v3", "deepseek-v3"))),
    ("qwen3-", "-thinking", Reasoning(parsers=_parsers("deepseek_r1", "qwen3-thinking", "deepseek-r1"))),
    ("qwen3", "", Reasoning(*_ENABLE, _parsers("qwen3", "qwen3", "qwen3"))),
    ("qwq-", "", Reasoning(parsers=_parsers("deepseek_r1"))),
    ("gpt-oss", "", Reasoning(parsers=_parsers("openai_gptoss", "gpt-oss", BUILT_IN))),
    ("glm-", "", Reasoning(*_ENABLE, _parsers("glm45", "glm45"))),
    ("kimi-k2-thinking", "", Reasoning(parsers=_parsers("kimi_k2", "kimi_k2", "kimi_k2"))),
    ("kimi-k2.", "", Reasoning(*_THINKING, _parsers("kimi_k2", "kimi_k2", "kimi_k25"))),
    ("minimax-m2", "", Reasoning(parsers=_parsers("minimax_m2_append_think", "minimax-append-think"))),
    ("minimax-m3", "", Reasoning('{"thinking_mode":"enabled"}', "", _parsers("minimax_m3", "minimax-m3", "minimax_m3"))),
    ("step-3.", "", Reasoning(parsers=_parsers("step3p5"))),  # github:vllm-project/recipes models/stepfun-ai
    ("mimo-v2", "", Reasoning(*_ENABLE, _parsers("mimo", "mimo"))),
    ("gemma-4", "", Reasoning(*_ENABLE, _parsers("gemma4", "gemma4", "gemma4"))),
    ("nvidia-nemotron-3", "", Reasoning(*_ENABLE, _parsers("nemotron_v3", "nemotron_3", "nano-v3"))),
    ("llama-3_3-nemotron-super-49b-v1_5", "", Reasoning("", "/no_think", by_system_prompt=True)),
    ("llama-3_3-nemotron-super-49b-v1", "", Reasoning("detailed thinking on", "detailed thinking off", by_system_prompt=True)),
    ("phi-4-reasoning", "", Reasoning(parsers=_parsers("deepseek_r1"))),
    ("ministral-3-", "-reasoning", _MISTRAL),
    ("magistral", "", _MISTRAL),
)


def reasoning_of(checkpoint: str) -> Reasoning | None:
    """The family of a checkpoint; None where it is not known."""
    name = checkpoint.rsplit("/", maxsplit=1)[-1].lower()
    return next((family for begin, held, family in FAMILIES if name.startswith(begin) and held in name), None)


def thinking_words(engine: str, checkpoint: str, thinks: bool, is_hybrid: bool) -> tuple[list[str], list[str]]:
    """(words of the start command, remarks to stand behind it) that let a checkpoint think, or answer at once, as planned."""
    if not thinks and not is_hybrid:
        return [], []
    family = reasoning_of(checkpoint)
    if family is None:
        unknown = [f"how it is told {'' if thinks else 'not '}to think is not known"] if is_hybrid else []
        return [], [*unknown, *([UNKNOWN_PARSER] if thinks else [])]
    words, remarks = [], []
    parser, asked = family.parsers.get(engine, ""), family.on if thinks else family.off
    if thinks and parser and parser != BUILT_IN:
        words += ["--tokenizer-mode", family.tokenizer] if family.tokenizer and engine == "vllm" else []
        words += ["--reasoning_parser" if engine == "trtllm" else "--reasoning-parser", parser]
    if asked and family.by_system_prompt:
        remarks.append(f'every request needs the system prompt "{asked}"')
    elif asked and engine == "trtllm":
        remarks.append(f'every request needs "chat_template_kwargs": {asked}')
    elif asked:
        words += ["--default-chat-template-kwargs", asked]
    return words, remarks + ([UNKNOWN_PARSER] if thinks and not parser else [])


UNKNOWN_PARSER = "its reasoning parser is not known: thoughts stay in the answer"
