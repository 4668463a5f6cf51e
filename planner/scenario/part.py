"""What the tables of a scenario are made of: flags, and fields that are read and written as users write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from planner.scenario.units import exact, format_duration, format_lead, parse_duration_s, parse_share, parse_usd_per_hour


@dataclass(frozen=True)
class Flag:
    """How a field is asked for on the command line."""

    name: str
    help: str
    metavar: str = "TEXT"


Seconds = Annotated[float, BeforeValidator(parse_duration_s), PlainSerializer(format_duration, when_used="always")]
UsdPerHour = Annotated[float, BeforeValidator(parse_usd_per_hour), PlainSerializer(lambda v: f"{exact(v)}/h", return_type=str, when_used="always")]
Quality = Annotated[float, BeforeValidator(parse_share)]
Rate = Annotated[float, Field(gt=0, le=1e7, allow_inf_nan=False)]
Tokens = Annotated[float, Field(ge=1, le=1e7, allow_inf_nan=False)]
Variation = Annotated[float, Field(ge=0, le=3, allow_inf_nan=False)]
Many = BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)
Lead = Annotated[
    float,
    BeforeValidator(lambda v: 0.0 if v in (0, "0", "0s") else parse_duration_s(v)),
    PlainSerializer(lambda v: format_lead(v), return_type=str, when_used="always"),
]


class Part(BaseModel):
    """A frozen table of the scenario; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
