"""A plan as targets need it: each deployment with a name, its start commands, its image, and the replicas of each period."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from planner.check.command import READERS, Words
from planner.clean import plain
from planner.deploy.hardware import is_amd, is_nvidia
from planner.deploy.names import label, unique
from planner.emit.command import Command, read_commands
from planner.errors import PlannerError, ScenarioError
from planner.result.plan import Deployment, Plan
from planner.scenario.write import to_flags
from planner.simulation.rebuild import refuse_broken

IMAGES = {"vllm": "vllm/vllm-openai", "sglang": "lmsysorg/sglang", "trtllm": "nvcr.io/nvidia/tensorrt-llm/release"}
AMD_IMAGES = {"vllm": "vllm/vllm-openai-rocm", "sglang": "lmsysorg/sglang-rocm"}
PORT = 8000
NAME_FLAGS = {"vllm": "--served-model-name", "sglang": "--served-model-name", "trtllm": "--served_model_name"}
IMAGE = re.compile(r"[\w./:@-]{1,400}", re.ASCII)
TIMEZONE = re.compile(r"[A-Za-z_]+(/[A-Za-z0-9_+-]+){0,2}", re.ASCII)
DAY = 24


@dataclass(frozen=True)
class Settings:
    """What a plan does not know of where it will run. ``images``: the user's, by engine, and "" for all; ``defaults``: what a target takes else."""

    images: Mapping[str, str] = field(default_factory=dict)
    timezone: str = "Etc/UTC"
    defaults: Mapping[str, str] = field(default_factory=lambda: IMAGES)


@dataclass(frozen=True)
class Served:
    """One deployment of a plan. ``replicas``: of each of the plan's periods, one for a plan that is the same at every hour."""

    name: str  # an RFC 1123 label, no other deployment's
    deployment: Deployment
    commands: tuple[Command, ...]
    image: str  # "" for a target that takes none
    is_own_image: bool  # named by the user
    replicas: tuple[int, ...]
    answers_to: str  # the model that requests name
    is_renamed: bool  # to a name that others answer to as well
    nodes: int  # that one engine stands on

    @property
    def engine_gpus(self) -> int:
        """GPUs of one engine; a replica that is no unit has one engine."""
        return self.deployment.tp * self.deployment.pp

    @property
    def is_unit(self) -> bool:
        """Whether a replica is several engines, of two roles."""
        return self.deployment.decode_engines > 0

    def arguments(self, command: Command) -> tuple[str, ...]:
        """What follows the program: the plan's settings, where it listens, and the name it answers to."""
        named = (NAME_FLAGS[self.deployment.engine], self.answers_to) if self.is_renamed else ()
        return (*command.arguments, "--host", "0.0.0.0", "--port", str(PORT), *named)


@dataclass(frozen=True)
class Release:
    """All of a plan that is deployed."""

    plan: Plan
    identity: str
    command: str  # that made the plan
    served: tuple[Served, ...]
    settings: Settings

    @property
    def name(self) -> str:
        """Of the whole: the scenario's, else of its first deployment."""
        return label(self.plan.scenario.name) if self.plan.scenario.name else self.served[0].name

    @property
    def is_hourly(self) -> bool:
        """Whether replicas change by the hour."""
        return any(len(set(s.replicas)) > 1 for s in self.served)


def plan_identity(plan: Plan) -> str:
    """A short name of a plan's content: equal plans have equal ones."""
    text = json.dumps(plan.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def plan_command(plan: Plan) -> str:
    """The command that asks for this plan; where flags cannot say it all, that the plan's own scenario does."""
    verb = "plan autoscale" if plan.kind == "hourly" else "plan"
    try:
        return plain(shlex.join([*verb.split(), *to_flags(plan.scenario)]))
    except ScenarioError:
        return f"{verb} -f scenario.toml (the scenario that the plan's JSON carries)"


def release(plan: Plan, settings: Settings) -> Release:
    """A plan made ready. Raises PlannerError for one that names no engines to start, whose parts do not fit together, or with start commands that are
    none of an engine's."""
    if plan.hosted and not plan.deployments:
        raise PlannerError("all of it is served by hosted APIs: there is no engine to start", "", "plan without --api for a fleet of one's own")
    if plan.kind != "own" and not plan.deployments:
        raise PlannerError("the plan has no deployments, so there is no engine to start", "", "plan check tells what does not hold")
    if plan.kind == "own":
        raise PlannerError("a plan from tables of one's own names no engine to start", "", "plan from the catalogue: plan --qps … without --capacities")
    refuse_broken(plan)
    names = unique([_called(d) for d in plan.deployments])
    shared = _shared(plan)
    alias = label(next((w.name for w in plan.workloads if len(_routed(w.routing)) > 1), "model"))
    served = tuple(_served(plan, i, names[i], settings, alias if i in shared else "") for i in range(len(plan.deployments)))
    return Release(plan, plan_identity(plan), plan_command(plan), served, settings)


def _served(plan: Plan, i: int, name: str, settings: Settings, alias: str) -> Served:
    d, where = plan.deployments[i], f"deployment {i} ({plan.deployments[i].checkpoint})"
    try:
        commands = read_commands(d.serve_command)
    except ValueError as error:
        raise PlannerError(f"its start command cannot be read: {plain(str(error))}", plain(where), "plan check tells what does not hold") from None
    roles = ["prefill", "decode"] if d.decode_engines else [""]
    if [c.role for c in commands] != roles or not all(_fits(c, d) for c in commands):
        raise PlannerError(f"its start command is none of {d.engine} in {d.layout}", plain(where), "plan check tells what does not hold")
    counts = tuple(p.deployments[i].replicas for p in plan.by_period)
    image = image_of(d, settings)
    own = d.engine in settings.images or "" in settings.images
    return Served(name, d, commands, image, own, counts, alias or d.checkpoint, bool(alias), _nodes(plan, d))


def _fits(command: Command, d: Deployment) -> bool:
    """Whether a command is one that the planner writes for the deployment: no flag that it never writes, and the sizes that the plan states."""
    if command.engine != d.engine:
        return False
    try:
        found = READERS[d.engine](Words(command.text))
    except (ValueError, KeyError, TypeError):
        return False
    sizes = (found.checkpoint, found.gpus, found.stages, found.attention_groups, found.expert_gpus)
    return sizes == (d.checkpoint, d.tp, d.pp, d.dp, d.ep)


def image_of(d: Deployment, settings: Settings) -> str:
    """The container image: the user's, else the engine's official repository, whose tag is left to be pinned."""
    if not settings.defaults:
        return ""
    amd = AMD_IMAGES if settings.defaults is IMAGES else {}
    known = settings.defaults if is_nvidia(d.gpu) else amd if is_amd(d.gpu) else {}
    found = settings.images.get(d.engine) or settings.images.get("") or known.get(d.engine)
    if not found:
        raise PlannerError(f"no official image of {d.engine} for {d.gpu} is known", "--image", "name one, such as --image registry/engine:tag")
    return found


def read_images(given: Sequence[str]) -> dict[str, str]:
    """Images as typed: of one engine (vllm=repository:tag), or of all. Raises PlannerError."""
    found = {}
    for text in given:
        engine, is_of_one, image = text.partition("=")
        engine, image = (engine, image) if is_of_one else ("", text)
        if engine and engine not in IMAGES:
            raise PlannerError(f"unknown engine '{plain(engine)}'", "--image", f"one of {', '.join(IMAGES)}, as in vllm=vllm/vllm-openai:v0.33.0")
        if not IMAGE.fullmatch(image):
            raise PlannerError(f"'{plain(image)}' is no image", "--image", "such as vllm/vllm-openai:v0.33.0")
        found[engine] = image
    return found


def known_timezone(name: str) -> str:
    """The name of a time zone, such as Europe/Berlin. Raises PlannerError for what cannot be one."""
    if not TIMEZONE.fullmatch(name):
        raise PlannerError(f"'{plain(name)}' is no time zone", "--timezone", "such as Etc/UTC or Europe/Berlin")
    return name


def is_pinned(image: str) -> bool:
    """Whether an image names its tag or digest."""
    return ":" in image.rsplit("/", maxsplit=1)[-1]


def _called(d: Deployment) -> str:
    """A deployment in few words: checkpoint, GPU and layout."""
    return f"{label(d.checkpoint.rsplit('/', maxsplit=1)[-1], 22)}-{label(d.gpu, 12)}-{d.layout}"


def _routed(routing: Sequence[object]) -> list[object]:
    return [r for r in routing if getattr(r, "share", 0) > 0]


def _shared(plan: Plan) -> set[int]:
    """Deployments that serve a workload together with others: requests name one model, so all of them must answer to it."""
    return {r.deployment for w in plan.workloads if len(_routed(w.routing)) > 1 for r in w.routing if r.share > 0}


def _nodes(plan: Plan, d: Deployment) -> int:
    """Instances that one engine is spread over; GPUs that are rented one by one are taken to stand together, as the plan does."""
    lines = [plan.purchases[h.purchase] for h in d.hosts]
    least = min((p.gpus_per_instance for p in lines if p.basis != "gpu"), default=d.tp * d.pp)
    return -(-d.tp * d.pp // max(least, 1))
