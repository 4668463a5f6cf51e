"""Which checkpoint may serve which workload: quality floors, output factors, context length and the user's own choices."""

from __future__ import annotations

from dataclasses import dataclass

from planner.catalog.catalog import Catalog, Quality, Served
from planner.performance.lengths import met_by, refused_share
from planner.scenario.records import Policy, Scenario
from planner.scenario.workload import Workload

NEAR = 0.0101  # a floor's neighbourhood is shown with every plan: one point below and above


@dataclass(frozen=True)
class Eligible:
    """One checkpoint in one mode with, per workload, its quality, output factor and tokens; ``why[w]`` is "" where it may serve."""

    served: Served
    why: tuple[str, ...]
    quality: tuple[Quality | None, ...]
    factor: tuple[float, ...]
    tokens: tuple[float, ...]  # its own per token that lengths are stated in; 1 where that is not known, or not asked

    @property
    def name(self) -> str:
        """Checkpoint, and the mode where the checkpoint has two."""
        both = self.served.checkpoint.variant == "hybrid"
        return f"{self.served.checkpoint.id} ({'thinking' if self.served.mode == 'thinking' else 'no thinking'})" if both else self.served.checkpoint.id

    near: tuple[bool, ...]  # only quality keeps it out, by no more than NEAR: what a lower floor would admit

    @property
    def may_serve(self) -> bool:
        """Whether any workload may meet it."""
        return "" in self.why

    @property
    def is_surveyed(self) -> bool:
        """Whether it serves, or would at a slightly lower floor."""
        return self.may_serve or any(self.near)

    def may_serve_at(self, w: int, floor: float | None, policy: Policy) -> bool:
        """Whether workload w may meet it at a floor, margin included, that is at most NEAR below the scenario's."""
        quality = self.quality[w]
        return (self.why[w] == "" or self.near[w]) and (floor is None or (quality is not None and counted(quality, policy) >= floor))


def counted(quality: Quality, policy: Policy) -> float:
    """What a score counts for: as it is, or at the worst published recovery."""
    return quality.at_worst if policy.worst_recovery else quality.score


def score(e: Eligible, w: int, scenario: Scenario) -> float:
    """What its score counts for where it may serve workload w of a scenario that narrows the one surveyed, 0 without one; -1 where it may not."""
    workload, policy = scenario.workload[w], scenario.policy
    if is_excluded(e.served, policy.exclude_models) or not is_named(e.served, workload.models):
        return -1.0
    if not e.may_serve_at(w, needed(workload.min_quality, policy), policy):
        return -1.0
    quality = e.quality[w]
    return counted(quality, policy) if quality else 0.0


def needed(floor: float | None, policy: Policy) -> float | None:
    """What must be scored, or be scored on average, to clear a floor by the margin."""
    return None if floor is None else round(floor + policy.quality_margin, 9)


def eligibility(scenario: Scenario, catalog: Catalog) -> tuple[Eligible, ...]:
    """Every checkpoint and mode against every workload."""
    return tuple(_judge(served, scenario, catalog) for served in catalog.served)


def _judge(served: Served, scenario: Scenario, catalog: Catalog) -> Eligible:
    qualities = tuple(catalog.quality(served, w.quality_metric) for w in scenario.workload)
    factors = tuple(served.output_factor or w.output_factor or 0.0 for w in scenario.workload)
    tokens = tuple(_tokens(served, w, catalog) for w in scenario.workload)
    met = [met_by(w, t) for w, t in zip(scenario.workload, tokens, strict=True)]
    why = tuple(_why(served, scenario, w, q, f) for w, q, f in zip(met, qualities, factors, strict=True))
    near = tuple(r == "quality" and _nearly(q, w, scenario.policy) and bool(f) for r, q, w, f in zip(why, qualities, scenario.workload, factors, strict=True))
    return Eligible(served, why, qualities, factors, tokens, near)


def _tokens(served: Served, workload: Workload, catalog: Catalog) -> float:
    """Its tokens per token that the workload's lengths are stated in; taken as equal where nobody knows."""
    return (catalog.tokens_per_stated(served.card, workload.language, workload.tokenizer) or 1.0) if workload.language else 1.0


def _nearly(quality: Quality | None, workload: Workload, policy: Policy) -> bool:
    return quality is not None and counted(quality, policy) >= (needed(workload.min_quality, policy) or 0) - NEAR


def _why(served: Served, scenario: Scenario, workload: Workload, quality: Quality | None, factor: float) -> str:
    """The first reason why it may not serve, or ""."""
    policy = scenario.policy
    if not is_named(served, workload.models) or served.checkpoint.precision not in (policy.precisions or (served.checkpoint.precision,)):
        return "not asked for"
    if is_excluded(served, policy.exclude_models):
        return "not asked for"
    if quality is None and (workload.min_quality is not None or workload.mean_quality is not None):
        return "no score"
    floor = needed(workload.min_quality, policy)
    if quality is not None and floor is not None and counted(quality, policy) < floor:
        return "quality"
    if not factor:
        return "no output factor"
    return "context" if refused_share(workload, factor, context_of(served)) > workload.max_refused else ""


def context_of(served: Served) -> int:
    """Tokens of prompt and answer together that the checkpoint takes."""
    return served.checkpoint.max_context or served.card.architecture.max_context


def is_named(served: Served, names: tuple[str, ...]) -> bool:
    """Whether it is one of the models or checkpoints asked for (all when none is named).

    A name that checkpoints begin with means these (Qwen3-32B is not Qwen3-VL-32B, which shares its card); else it is a card's or family's.
    """
    return not names or any(_answers_to(served, n.lower()) for n in names)


def _answers_to(served: Served, name: str) -> bool:
    card, identity = served.card, served.checkpoint.id
    if name in (identity.lower(), card.family.lower()) or begins(identity, name):
        return True
    return name == card.name.lower() and not any(begins(c.id, name) for c in card.checkpoint)


def begins(identity: str, name: str) -> bool:
    """Whether a checkpoint's own name begins with these words: Qwen3-8B-FP8 with Qwen3-8B, not with Qwen3-8. A distillation is another model:
    DeepSeek-R1 does not mean DeepSeek-R1-Distill-Llama-8B."""
    base = identity.lower().split("/")[-1]
    rest = base[len(name) :]
    return base.startswith(name.lower()) and not rest[:1].isalnum() and not rest.startswith("-distill")


def is_excluded(served: Served, names: tuple[str, ...]) -> bool:
    """Whether it is a checkpoint, card or family that must not serve."""
    return not {n.lower() for n in names}.isdisjoint((served.checkpoint.id.lower(), served.card.name.lower(), served.card.family.lower()))
