"""Checks the start commands, which people paste: each line is read back as its engine would read it, and every setting compared with the
deployment's own fields. Shares no code with what wrote them, but the rule for the context limit and the table of parsers."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from math import ceil

from planner.check.case import Case, Rebuilt, batched_tokens_of
from planner.check.findings import Finding, Notes
from planner.emit.command import apart
from planner.emit.engine import context_to_serve
from planner.emit.reasoning import BUILT_IN, UNKNOWN_PARSER, reasoning_of
from planner.result.plan import Deployment

ROUNDED = 0.0051  # shares of memory stand in commands with two decimals
DRAFTED = {"vllm": 1, "sglang": 3, "trtllm": 3}  # tokens drafted per step in the runs that the gain was measured in; TensorRT-LLM 1 with attention DP
ROLES = ("prefill", "decode")


@dataclass(frozen=True)
class Settings:
    """What a command line sets up. ``memory``: in the engine's own terms; ``prefix_cache``: None where the engine has it on in any case."""

    checkpoint: str
    gpus: int  # of one pipeline stage
    stages: int
    attention_groups: int
    expert_gpus: int
    sequences: int  # as the engine counts them: of each attention group, SGLang of all
    batched_tokens: int
    chunked_prefill: bool
    context: int
    prefix_cache: bool | None
    memory: float
    fp8_kv: bool
    drafted: int
    role: str = ""
    engines: int = 1
    reasoning_parser: str = ""
    tokenizer: str = ""
    template_arguments: str = ""
    remarks: tuple[str, ...] = ()
    adapters: tuple[int, int] = (0, 0)  # LoRA: how many, and their rank


class Words:
    """The words of a command line: what starts, what stands by itself, and flags, each taken once. Raises ValueError for what cannot be read."""

    def __init__(self, line: str) -> None:
        command, self.remarks = apart(line)
        found = re.fullmatch(r"(\d+) (prefill|decode) engines?", self.remarks[0]) if self.remarks else None
        self.engines, self.role = (int(found.group(1)), found.group(2)) if found else (1, "")
        self.remarks = self.remarks[1:] if found else self.remarks
        self.flags: dict[str, str] = {}
        self.plain: list[str] = []
        name = ""
        for word in shlex.split(command):
            if word.startswith("--"):
                if word in self.flags:
                    raise ValueError(f"{word} stands twice")
                name, self.flags[word] = word, ""
            elif name:
                self.flags[name] = f"{self.flags[name]} {word}".strip()
            else:
                self.plain.append(word)

    def take(self, flag: str, default: str | None = None) -> str:
        """The value of a flag, which then counts as read."""
        value = self.flags.pop(flag, default)
        if value is None:
            raise ValueError(f"{flag} is missing")
        return value

    def number(self, flag: str, default: int | None = None) -> int:
        """The same as a whole number."""
        return int(self.take(flag, None if default is None else str(default)))

    def switch(self, flag: str) -> bool:
        """Whether a flag without a value stands there."""
        if self.flags.get(flag):
            raise ValueError(f"{flag} takes no value, and has '{self.flags[flag]}'")
        return self.flags.pop(flag, None) is not None


def command(case: Case) -> Finding:
    """Every deployment's start command says what its fields say, and nothing else."""
    notes = Notes("command")
    for i, (d, built) in enumerate(zip(case.plan.deployments, case.built, strict=True)):
        if built is None or not all(w in built.fits for w in built.serves) or not built.serves:
            continue
        lines, where = d.serve_command.split("\n"), case.where(i)
        roles = ROLES if d.decode_engines else ("",)
        notes.require(len(lines) == len(roles), where, f"has {len(lines)} start commands, needs {len(roles)}")
        for line, role in zip(lines, roles, strict=False):
            _compare(notes, d.engine, line, _right(case, d, built, role), where)
    return notes.finding(f"commands: {len(case.built)} read back flag by flag")


def _compare(notes: Notes, engine: str, line: str, right: Settings, where: str) -> None:
    try:
        found = READERS[engine](Words(line))
    except (ValueError, KeyError, TypeError) as error:
        notes.add(where, f"its start command cannot be read: {error}")
        return
    for f in fields(Settings):
        value, ought = getattr(found, f.name), getattr(right, f.name)
        agree = abs(value - ought) <= ROUNDED if f.name == "memory" else value == ought
        notes.require(agree, where, f"its start command has {f.name.replace('_', ' ')} {value}, the plan {ought}")


def _right(case: Case, d: Deployment, built: Rebuilt, role: str) -> Settings:
    """The settings that a deployment's fields ask for."""
    policy, asked = case.scenario.policy, [built.fits[w].workload for w in built.serves]
    longest = built.served.checkpoint.max_context or built.served.card.architecture.max_context
    context, tokens = context_to_serve(asked, max(built.fits[w].factor for w in built.serves), longest), batched_tokens_of(d)
    groups = 1 if d.engine == "sglang" else d.dp
    parser, tokenizer, arguments, remarks = _reasons(d, built)
    return Settings(
        checkpoint=d.checkpoint,
        gpus=d.tp,
        stages=d.pp,
        attention_groups=d.dp,
        expert_gpus=d.ep,
        sequences=ceil(d.max_num_seqs / groups),
        batched_tokens=tokens,
        chunked_prefill=policy.chunked_prefill,
        context=context if policy.chunked_prefill else min(context, tokens),
        prefix_cache=any(w.prefix_cache_hit for w in asked) if d.engine == "vllm" else None,
        memory=_memory(d, built, policy.gpu_memory_utilization),
        fp8_kv=d.kv_cache_dtype == "fp8",
        drafted=(1 if d.engine == "trtllm" and d.dp > 1 else DRAFTED[d.engine]) if d.speculative else 0,
        adapters=(policy.adapters, policy.adapter_rank) if policy.adapters else (0, 0),
        role=role,
        engines={"prefill": d.prefill_engines, "decode": d.decode_engines}.get(role, 1),
        reasoning_parser=parser,
        tokenizer=tokenizer,
        template_arguments=arguments,
        remarks=remarks,
    )


def _reasons(d: Deployment, built: Rebuilt) -> tuple[str, str, str, tuple[str, ...]]:
    """(parser, tokenizer mode, chat-template arguments, remarks) that make it think, or not, as planned: spelt out whatever the template's default."""
    thinks, is_hybrid = d.mode == "thinking", built.served.checkpoint.variant == "hybrid"
    family, remarks = reasoning_of(d.checkpoint), []
    if not thinks and not is_hybrid:
        return "", "", "", ()
    switch = "" if family is None else family.on if thinks else family.off
    if family is None and is_hybrid:
        remarks.append(f"how it is told {'' if thinks else 'not '}to think is not known")
    elif family and switch and family.by_system_prompt:
        remarks.append(f'every request needs the system prompt "{switch}"')
    elif switch and d.engine == "trtllm":
        remarks.append(f'every request needs "chat_template_kwargs": {switch}')
    parser = family.parsers.get(d.engine, "") if family and thinks else ""
    if thinks and not parser:
        remarks.append(UNKNOWN_PARSER)
    tokenizer = family.tokenizer if family and parser and d.engine == "vllm" else ""
    return "" if parser == BUILT_IN else parser, tokenizer, "" if remarks and remarks[0].startswith("every request") else switch, tuple(remarks)


def _memory(d: Deployment, built: Rebuilt, utilization: float) -> float:
    """Shares that the engines ask for: vLLM of the device for all, SGLang for weights and KV cache, TensorRT-LLM of what weights leave for KV cache."""
    fit = built.fits[built.serves[0]].memory
    device, weights, cache = built.gpu.memory_gib, float(fit.weights[0]), float(fit.kv_budget_gib[0])
    return {"vllm": utilization, "sglang": (weights + cache) / device, "trtllm": cache / (device - weights)}[d.engine]


def _vllm(words: Words) -> Settings:
    groups = words.number("--data-parallel-size", 1)
    gpus = words.number("--tensor-parallel-size") * groups
    config = json.loads(words.take("--speculative-config", "{}"))
    transfer = json.loads(words.take("--kv-transfer-config", "{}"))
    found = Settings(
        checkpoint=words.plain[-1],
        gpus=gpus,
        stages=words.number("--pipeline-parallel-size", 1),
        attention_groups=groups,
        expert_gpus=gpus if words.switch("--enable-expert-parallel") else 1,
        sequences=words.number("--max-num-seqs"),
        batched_tokens=words.number("--max-num-batched-tokens"),
        chunked_prefill=not words.switch("--no-enable-chunked-prefill"),
        context=words.number("--max-model-len"),
        prefix_cache=words.switch("--enable-prefix-caching"),
        memory=float(words.take("--gpu-memory-utilization")),
        fp8_kv=_fp8(words.take("--kv-cache-dtype", ""), "fp8"),
        drafted=_whole(config, {"method": "mtp"}, "num_speculative_tokens"),
        reasoning_parser=words.take("--reasoning-parser", ""),
        tokenizer=words.take("--tokenizer-mode", ""),
        template_arguments=words.take("--default-chat-template-kwargs", ""),
        adapters=_adapters(words, "--max-loras"),
    )
    role = {"kv_producer": "prefill", "kv_consumer": "decode"}.get(transfer.pop("kv_role", ""), "")
    return _finished(words, found, "vllm serve", role, transfer, {"kv_connector": "NixlConnector"})


def _adapters(words: Words, most: str) -> tuple[int, int]:
    """(adapters, their rank) where LoRA is enabled."""
    return (words.number(most), words.number("--max-lora-rank")) if words.switch("--enable-lora") else (0, 0)


def _sglang(words: Words) -> Settings:
    tokens, alone = words.number("--chunked-prefill-size"), words.number("--max-prefill-tokens", 0)
    steps, topk, drafted = (words.number(f"--speculative-{name}", 0) for name in ("num-steps", "eagle-topk", "num-draft-tokens"))
    if (words.take("--speculative-algorithm", ""), topk, drafted) != (("EAGLE", 1, steps + 1) if drafted else ("", 0, 0)):
        raise ValueError("its settings of speculative decoding contradict each other")
    found = Settings(
        checkpoint=words.take("--model-path"),
        gpus=words.number("--tp-size"),
        stages=words.number("--pp-size", 1),
        attention_groups=words.number("--attn-dp-size", 1),
        expert_gpus=words.number("--ep-size", 1),
        sequences=words.number("--max-running-requests"),
        batched_tokens=alone if tokens == -1 else tokens,
        chunked_prefill=tokens != -1,
        context=words.number("--context-length"),
        prefix_cache=None,
        memory=float(words.take("--mem-fraction-static")),
        fp8_kv=_fp8(words.take("--kv-cache-dtype", ""), "fp8_e4m3"),
        drafted=drafted,
        reasoning_parser=words.take("--reasoning-parser", ""),
        template_arguments=words.take("--default-chat-template-kwargs", ""),
        adapters=_adapters(words, "--max-loras-per-batch"),
    )
    if tokens != -1 and alone:
        raise ValueError("--max-prefill-tokens stands beside chunked prefill")
    if not words.switch("--enable-metrics"):
        raise ValueError("--enable-metrics is missing")
    role = words.take("--disaggregation-mode", "")
    backend = {"backend": words.take("--disaggregation-transfer-backend")} if role else {}
    return _finished(words, found, "python -m sglang.launch_server", role, backend, {"backend": "nixl"})


def _trtllm(words: Words) -> Settings:
    options = words.take("--extra_llm_api_options", "")
    inner = re.fullmatch(r"<\(echo \{?(.*?)\}?\)", options) if options else None
    if options and not inner:
        raise ValueError(f"options '{options}'")
    text = inner.group(1) if inner else ""
    dp, mtp = "enable_attention_dp: true", re.search(r"speculative_config: \{decoding_type: MTP, num_nextn_predict_layers: (\d+)\}?", text)
    rest = text.replace(dp, "").replace(mtp.group(0) if mtp else "\0", "").strip(", }")
    if rest:
        raise ValueError(f"options '{rest}'")
    gpus = words.number("--tp_size")
    found = Settings(
        checkpoint=words.plain[-1],
        gpus=gpus,
        stages=words.number("--pp_size", 1),
        attention_groups=gpus if dp in text else 1,
        expert_gpus=words.number("--ep_size", 1),
        sequences=words.number("--max_batch_size"),
        batched_tokens=words.number("--max_num_tokens"),
        chunked_prefill=words.switch("--enable_chunked_prefill"),
        context=words.number("--max_seq_len"),
        prefix_cache=None,
        memory=float(words.take("--kv_cache_free_gpu_memory_fraction")),
        fp8_kv=_fp8(words.take("--kv_cache_dtype", ""), "fp8"),
        drafted=int(mtp.group(1)) if mtp else 0,
        reasoning_parser=words.take("--reasoning_parser", ""),
    )
    return _finished(words, found, "trtllm-serve", "", {}, {})


READERS: Mapping[str, Callable[[Words], Settings]] = {"vllm": _vllm, "sglang": _sglang, "trtllm": _trtllm}


def _finished(words: Words, found: Settings, program: str, role: str, given: Mapping[str, object], needed: Mapping[str, object]) -> Settings:
    """The settings, when nothing of the line is left unread. Raises ValueError."""
    started = [w for w in words.plain if w != found.checkpoint]
    if " ".join(started) != program or words.plain.count(found.checkpoint) > 1:
        raise ValueError(f"it starts '{' '.join(words.plain)}'")
    if words.flags:
        raise ValueError(f"{', '.join(words.flags)} is none of the settings that the plan relies on")
    if (role and given != needed) or role != words.role:
        raise ValueError(f"as {role or 'one engine'} it is started by {dict(given)}, {words.role or 'no role'}")
    return replace(found, role=role, engines=words.engines, remarks=words.remarks)


def _whole(config: dict[str, object], needed: Mapping[str, object], number: str) -> int:
    """A number of a small JSON object that must hold nothing else than is needed; 0 for none."""
    if not config:
        return 0
    value = config.pop(number)
    if config != needed or not isinstance(value, int):
        raise ValueError(f"{config} is no setting of speculative decoding")
    return value


def _fp8(value: str, name: str) -> bool:
    if value not in ("", name):
        raise ValueError(f"KV cache '{value}'")
    return value == name
