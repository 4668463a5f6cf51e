"""What must be known beside a manifest: the plan it is of, and all of the plan that the target cannot say. What cannot be deployed at all is refused."""

from __future__ import annotations

from math import ceil

from planner.clean import plain
from planner.deploy.hardware import PRODUCTS
from planner.deploy.manifest import HOURS, PURCHASE, UNITS, WEIGHTS, Target
from planner.deploy.release import Release, Served, is_pinned
from planner.deploy.schedule import in_words, is_calendar
from planner.deploy.traffic import HEADER, splits
from planner.errors import PlannerError
from planner.result.plan import Plan

RATE = 0.25  # GiB/s of weights that a slow network or disk still reads
READY = 600  # seconds for all else of a start: compilation, CUDA graphs, links
UNIT_TARGETS = "dynamo, or kserve where the engine is vLLM"


def refuse(release: Release, target: Target) -> None:
    """Raises PlannerError for what no manifest of a target could start."""
    has_any = any(s.deployment.engine in target.engines for s in release.served)
    for s in release.served:
        d, where = s.deployment, plain(f"deployment {s.name} ({s.deployment.layout})")
        if d.engine not in target.engines and target.is_partial and has_any:
            continue
        if d.engine not in target.engines:
            others = f"plan emit {d.engine}" if target.is_partial else f"it starts {' and '.join(target.engines)}; plan again with --engine {target.engines[0]}"
            raise PlannerError(f"runs {d.engine}, which {target.name} does not start", where, others)
        if s.is_unit and (UNITS not in target.expresses or d.engine not in target.unit_engines):
            raise PlannerError(f"{target.name} cannot say a disaggregated unit: requests must reach both roles", where, f"plan emit {UNIT_TARGETS}")
        if s.nodes > 1:
            what = f"one engine on {s.engine_gpus} GPUs spans {s.nodes} instances, which no manifest here starts"
            raise PlannerError(what, where, "start it by hand from the plan's command, or plan with instances that hold it")


def header(release: Release) -> list[str]:
    """Which plan this is of."""
    return [
        f"Plan {release.identity}, by inference-planner {plain(release.plan.planner_version)}.",
        f"Made by: {release.command}",
        "Nothing was applied: read it, then apply it yourself.",
    ]


def remarks(release: Release, target: Target) -> list[str]:
    """All of the plan that the target does not say."""
    found = [line for s in release.served for line in _of_deployment(s, release, target)]
    found += _of_traffic(release, target)
    if release.is_hourly and HOURS not in target.expresses:
        found += [f"By the hour, which {target.name} is not told: {s.name} {in_words(s.replicas)} replicas; here it has the most." for s in release.served]
    elif release.is_hourly and not is_calendar(release):
        found.append("The plan's hours are no day and no week, which a calendar could repeat: each deployment has the most replicas of any hour.")
    elif release.is_hourly:
        lead = release.plan.scenario.policy.startup_lead
        found.append(f"Replicas follow the plan's hours in {release.settings.timezone} (--timezone), from {lead:g} s before each; a week begins on Monday.")
    found += [
        f"{_share_of(i, release.plan)} of {h.workload} go to {h.api_name} at {h.provider}, which nothing here starts: your router must send them there."
        for i, h in enumerate(release.plan.hosted)
    ]
    waiting = [w.name for w in release.plan.workloads if w.is_waiting]
    if waiting:
        found.append(f"Requests of {', '.join(waiting)} may wait: whoever sends them must hold them back, or send them at a lower priority.")
    return list(dict.fromkeys(plain(line) for line in found))


def _share_of(i: int, plan: Plan) -> str:
    """What an API has of its workload; by the hour, stretches together."""
    h = plan.hosted[i]
    if not plan.periods:
        return f"{100 * h.share:.4g}%"
    rates = next(w.rates for w in plan.workloads if w.name == h.workload)
    shares = [f"{100 * p.hosted[i] / rate if rate else 0:.3g}%" for p, rate in zip(plan.periods, rates, strict=True)]
    return f"By the hour ({in_words(shares)})"


def _of_deployment(s: Served, release: Release, target: Target) -> list[str]:
    d, lines = s.deployment, [release.plan.purchases[h.purchase] for h in s.deployment.hosts]
    if d.engine not in target.engines:
        return [f"{s.name} runs {d.engine}: plan emit {d.engine}."]
    found = [f"{s.name}: {d.checkpoint} on {d.gpu} {d.layout}, {d.engine}, {counted(d.replicas, 'replica')} on {counted(d.gpus, 'GPU')}."]
    if PURCHASE not in target.expresses:
        bought = dict.fromkeys(f"{p.instance_type} of {p.provider} ({p.purchase.replace('_', ' ')}, {p.region})" for p in lines)
        found.append(f"{s.name} stands on {', '.join(bought)}: buying that is not this manifest's.")
    if s.image and not s.is_own_image:
        found.append(f"The image {s.image} has no tag: pin the version that you measured (--image {d.engine}={s.image}:TAG).")
    elif s.image and not is_pinned(s.image):
        found.append(f"The image {s.image} has no tag: pin the version that you measured.")
    found += [f"{s.name}: {r}." for r in dict.fromkeys(r for c in s.commands for r in c.remarks)]
    if s.is_renamed:
        found.append(f"{s.name} shares a workload, so it answers to the model '{s.answers_to}' as the others do.")
    return found


def _of_traffic(release: Release, target: Target) -> list[str]:
    """Shares of workloads, where the target has no weights or cannot tell the workloads apart."""
    found, shared = [], splits(release)
    for split in shared if WEIGHTS not in target.expresses else ():
        shares = ", ".join(f"{weight / 10:g}% to {name}" for name, weight in split.weights)
        found.append(f"Workload {split.workload}: {shares}; {target.name} has no weights, so whatever is before the deployments must split them.")
    if len(shared) > 1 and WEIGHTS in target.expresses:
        found.append(f"Several workloads are split: their requests say which they are in the header {HEADER}.")
    if any(w.route_by for w in release.plan.scenario.workload):
        found.append("Requests are split by the length of their prompts, which whatever is before the deployments must tell.")
    return found


def counted(number: int, thing: str) -> str:
    """A number of things in words."""
    return f"{number} {thing}{'s' * (number != 1)}"


def unlabelled(release: Release) -> list[str]:
    """That nodes of a GPU without a known label are not selected."""
    gpus = dict.fromkeys(s.deployment.gpu for s in release.served if s.deployment.gpu not in PRODUCTS)
    return [plain(f"No label of nodes with {g} is known: add a nodeSelector where the cluster has other GPUs.") for g in gpus]


def start_seconds(s: Served) -> int:
    """How long a replica may take to start: its weights at a slow pace, and what else there is to do."""
    weights = s.deployment.memory_gib.weights if s.deployment.memory_gib else 0.0
    return READY + ceil(weights * s.engine_gpus / RATE)


def longest_seconds(s: Served, release: Release) -> int:
    """What requests in service may still take when a replica is stopped: the slowest workload's E2E at p99."""
    i = release.served.index(s)
    mine = [w for w in release.plan.workloads if any(r.deployment == i and r.share > 0 for r in w.routing)]
    return 30 + ceil(max((w.predicted.e2e_ms.p99 for w in mine if w.predicted), default=30_000.0) / 1000)
