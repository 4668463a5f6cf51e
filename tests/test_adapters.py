"""Facts about LoRA adapters: what they weigh, that they take the room of KV cache, and that engines are started with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner import Plan, Scenario, load_catalog, solve
from planner.check.check import check_plan
from planner.performance.memory import adapter_bytes

TINY = Path(__file__).parent / "data" / "tiny"


def asked(**policy: object) -> Scenario:
    return Scenario.model_validate({"workload": [{"qps": 20, "min_quality": 0.55, "models": ["Small-8B"]}], "policy": policy})


def test_an_adapter_of_llama_8b_by_hand() -> None:
    """Rank 16 on all seven projections of Llama-3.1-8B is 41,943,040 parameters, as PEFT prints: 32 layers x 16 x ((4096 + 4096) x 2 + (4096 + 1024) x 2
    + (4096 + 14336) x 3) = 41,943,040 with an MLP of 14,336; 84 MB in 16 bits."""
    llama = next(s.card.architecture for s in load_catalog(()).served if s.card.name == "Llama-3.1-8B")
    assert adapter_bytes(llama, 16) == 2 * 32 * 16 * ((4096 + 4096) * 2 + (4096 + 1024) * 2 + (4096 + 14336) * 3) == 2 * 41_943_040
    assert adapter_bytes(llama, 32) == 2 * adapter_bytes(llama, 16)


def test_adapters_take_the_room_of_kv_cache() -> None:
    catalog = load_catalog([TINY], shipped=False)
    plain, lora = (solve(asked(adapters=n, adapter_rank=64, engines=["vllm"]), catalog, compare=False) for n in (0, 20))
    a, b = plain.deployments[0], lora.deployments[0]
    architecture = next(s.card.architecture for s in catalog.served if s.card.name == b.model)
    if (a.gpu, a.tp, a.checkpoint, a.max_num_batched_tokens) == (b.gpu, b.tp, b.checkpoint, b.max_num_batched_tokens):
        assert b.memory_gib.weights - a.memory_gib.weights == pytest.approx(20 * adapter_bytes(architecture, 64) / 2**30, abs=0.02)
    assert lora.cost.usd_per_hour >= plain.cost.usd_per_hour
    assert "--enable-lora --max-loras 20 --max-lora-rank 64" in b.serve_command and "lora" not in a.serve_command
    assert check_plan(Plan.model_validate_json(lora.to_json()), catalog).ok
    stripped = b.model_copy(update={"serve_command": b.serve_command.replace(" --max-loras 20", " --max-loras 2")})
    assert not check_plan(lora.model_copy(update={"deployments": (stripped, *lora.deployments[1:])}), catalog).ok


def test_only_engines_whose_flags_are_known_serve_adapters() -> None:
    plan = solve(asked(adapters=4, engines=["sglang", "trtllm"]), load_catalog([TINY], shipped=False), compare=False)
    assert plan.deployments[0].engine == "sglang" and "--max-loras-per-batch 4 --max-lora-rank 16" in plan.deployments[0].serve_command
