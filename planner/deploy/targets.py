"""Every target, in order of use."""

from __future__ import annotations

from planner.deploy import compose, dynamo, kserve, kubernetes, llmd, ray, shell, skypilot
from planner.deploy.manifest import Target
from planner.errors import PlannerError, did_you_mean

TARGETS: dict[str, Target] = {
    t.name: t
    for t in (
        kubernetes.TARGET,
        kserve.TARGET,
        llmd.TARGET,
        dynamo.TARGET,
        compose.TARGET,
        ray.TARGET,
        skypilot.TARGET,
        shell.VLLM,
        shell.SGLANG,
        shell.TRTLLM,
    )
}


def known_target(name: str) -> Target:
    """The target of a name. Raises PlannerError."""
    if name not in TARGETS:
        raise PlannerError(f"unknown target '{name}'", "TARGET", did_you_mean(name, TARGETS) or f"one of {', '.join(TARGETS)}")
    return TARGETS[name]
