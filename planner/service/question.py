"""A question as it comes over the network: a scenario file's content as JSON, which may name no file of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath

from pydantic_core import from_json

from planner.catalog.files import is_file
from planner.demand.source import shapes
from planner.errors import ScenarioError
from planner.raw import Raw
from planner.scenario.records import Scenario
from planner.scenario.sources import Question, ask_of

OPENS = ("catalog", "tables")  # parts of a scenario that are files and nothing else
SHAPED = ("lengths", "demand")  # of a workload: a shipped shape by its name, else a file
PROFILES = (".csv", ".toml")  # what a profile ends with where it is a file
NO_FILES = "questions over the network name no files"


def question_of(body: bytes, folders: Sequence[str] = ()) -> Question:
    """The question of a JSON text, asked of the catalogue with the server's own ``folders``. Raises ScenarioError in one line."""
    try:
        content = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ScenarioError(f"is no JSON: {error}", "body") from None
    if not isinstance(content, dict):
        raise ScenarioError("is no JSON object", "body", 'such as {"workload": [{"qps": 200, "min_quality": 0.8}]}')
    for where, hint in files_named(content):
        raise ScenarioError(f"would open a file; {NO_FILES}", where, hint)
    return ask_of(content, {"catalog": list(folders)} if folders else {})


def files_named(content: Raw) -> Iterator[tuple[str, str]]:
    """(key, what to write instead) of everything in a scenario's content that would be opened."""
    for key in OPENS:
        if content.get(key):
            yield key, "the catalogue is the server's own (plan serve --catalog DIR)" if key == "catalog" else "give workloads"
    workloads = content.get("workload")
    for i, workload in enumerate(workloads if isinstance(workloads, list) else ()):
        for key, hint in _opened_by(workload if isinstance(workload, dict) else {}):
            yield f"workload.{i}.{key}", hint


def _opened_by(workload: Raw) -> Iterator[tuple[str, str]]:
    for key in SHAPED:
        name = workload.get(key)
        if isinstance(name, str) and (name not in shapes() or is_file(name)):
            yield key, f"a shipped shape ({', '.join(shapes())}), or the table that plan --save-scenario writes"
    profile = workload.get("profile")
    if isinstance(profile, str) and PurePath(profile).suffix in PROFILES:
        yield "profile", "a named profile, or a list of factors"


def scenario_schema() -> Raw:
    """The JSON Schema of a question: a scenario without what would open files."""
    schema = Scenario.model_json_schema()
    schema["properties"] = {name: part for name, part in schema["properties"].items() if name not in OPENS}
    return schema
