"""How much lengths vary, in words: the spread a plan supposes, and what contexts refuse of it."""

from __future__ import annotations

from collections.abc import Sequence

from planner.candidates.eligibility import Eligible, context_of
from planner.candidates.survey import Survey
from planner.demand.spread import CHAT_INPUT_CV, CHAT_OUTPUT_CV
from planner.performance.lengths import met_by, refused_share
from planner.result.plan import Deployment
from planner.scenario.workload import Workload

NOTICED = 1e-3  # of the requests: refusals worth a warning


def spread_in_words(w: Workload) -> tuple[str, ...]:
    """The spread of lengths where it is a default, and what lengths are cut to."""
    found = []
    stated = [cv is not None for cv in (w.input_cv, w.output_cv)]
    cvs = w.spreads
    if not w.lengths and not all(stated):
        parts = [f"{cv:g} {name}" for cv, name, given in zip(cvs, ("in", "out"), stated, strict=True) if not given]
        usual = all(given or cv == chat for cv, chat, given in zip(cvs, (CHAT_INPUT_CV, CHAT_OUTPUT_CV), stated, strict=True))
        whose = "of the Azure 2023 conversation trace" if usual else "less than in chat, for so long requests have no much longer ones beside them"
        found.append(f"length spread {whose} (CV {', '.join(parts)})")
    found += [f"prompts cut at {w.max_input:,.0f} tokens, their mean kept"] if w.max_input is not None and not w.lengths else []
    found += [f"requests cut at {w.max_request:,.0f} tokens, their mean kept"] if w.max_request is not None and not w.lengths else []
    found += [f"lengths cut at {w.max_input or w.max_request:,.0f} tokens"] if w.lengths and (w.max_input or w.max_request) else []
    found += [f"at most {w.max_refused:.3g} of requests too long for a context"] if w.max_refused != type(w).model_fields["max_refused"].default else []
    return tuple(found)


def refusals(surveyed: Survey, deployments: Sequence[Deployment]) -> tuple[str, ...]:
    """What the contexts of the deployments refuse, and which models are left out because theirs refuse more than the workload lets them."""
    found = [
        f"{d.checkpoint}: {d.refused_share:.2%} of requests are longer than its context and would be refused; the plan has room for them all the same"
        for d in deployments
        if d.refused_share is not None and d.refused_share > NOTICED
    ]
    for i, w in enumerate(surveyed.scenario.workload):
        lost = [e for e in surveyed.eligible if e.why[i] == "context"]
        by_context: dict[int, list[Eligible]] = {}
        for e in lost:
            by_context.setdefault(context_of(e.served), []).append(e)
        shares = {c: min(refused_share(met_by(w, t), f, c) for f, t in {(e.factor[i], e.tokens[i]) for e in those}) for c, those in by_context.items()}
        words = [f"{context:,} tokens {shares[context]:.2g} ({len(by_context[context])} checkpoints)" for context in sorted(by_context, reverse=True)]
        if words:
            more = f", … ({len(words) - 3} shorter ones)" if len(words) > 3 else ""
            name = f"{w.name}: " if len(surveyed.scenario.workload) > 1 else ""
            found.append(
                f"{name}{len(lost)} checkpoints are left out for the share of requests that their context would refuse: {', '.join(words[:3])}{more}; "
                f"up to {w.max_refused:g} is let pass (--max-refused; --max-input where callers send no longer prompts)"
            )
    return tuple(found)
