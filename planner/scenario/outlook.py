"""What may come: months of growing traffic, futures with probabilities, and the terms on which capacity can be committed to."""

from __future__ import annotations

import re
from math import exp, expm1, nan, sqrt
from statistics import NormalDist
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from planner.catalog.records import Name
from planner.scenario.problem import problem
from planner.scenario.units import parse_pairs, parse_share, parse_usd_per_hour

Term = Literal["1y", "3y"]
MONTHS: dict[str, int] = {"1y": 12, "3y": 36}
MOST_MONTHS, MOST_DRAWS = 36, 25


class Part(BaseModel):
    """A frozen record; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Future(Part):
    """One way that traffic may go: a factor on all of it, and how likely that is."""

    name: Name
    factor: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
    probability: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


def parse_futures(value: object) -> object:
    """[{name, factor, probability}] of "low=0.7@0.25"; anything else stays as it is. Raises ValueError."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
        return value
    found = []
    for text in value:
        match = re.fullmatch(r"\s*([^=@]+?)\s*=\s*([\d.eE+-]+)\s*@\s*([\d.eE+-]+)(%?)\s*", text)
        if not match:
            raise ValueError(f"'{text}' is no future; write low=0.7@25%: a name, a factor on all traffic, and its probability")
        name, factor, likely, percent = match.groups()
        found.append({"name": name, "factor": factor, "probability": float(likely) / (100 if percent else 1)})
    return found


def parse_discounts(value: object) -> object:
    """{"1y": 0.3} of ("1y=30%",) or of {"1y": "30%"}. Raises ValueError."""
    bare = [v for v in value if not all(str(v).partition("="))] if isinstance(value, (list, tuple)) else []
    if bare:
        raise ValueError(f"'{bare[0]}' is no term with its discount; write 1y=30%, a share off the price by the hour")
    pairs = parse_pairs(value)
    return {term: _discount(term, str(share)) for term, share in pairs.items()} if isinstance(pairs, dict) else pairs


def _discount(term: str, text: str) -> float:
    if term not in MONTHS:
        raise ValueError(f"'{term}' is no term to commit to; write 1y=30% or 3y=50%")
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = nan
    if not 0 <= share < 1:
        raise ValueError(f"'{text}' is no discount; write {term}=30% or {term}=0.3, less than the whole price")
    return share


def parse_risk(value: object) -> object:
    """{"level": 0.9, "usd_per_hour": 120} of "0.9=120/h"; "worst=120/h" is level 1. Raises ValueError."""
    if not isinstance(value, str):
        return value
    level, equals, amount = value.partition("=")
    if not equals:
        raise ValueError(f"'{value}' is no limit; write 0.9=120/h: a level and money per time, or worst=120/h")
    return {"level": 1.0 if level.strip() == "worst" else parse_share(level), "usd_per_hour": parse_usd_per_hour(amount)}


class RiskLimit(Part):
    """What the dearest futures, of a share 1 − level of all, may cost on average; level 1: the dearest one."""

    level: Annotated[float, Field(ge=0, le=1)]
    usd_per_hour: Annotated[float, Field(gt=0)]


class Outlook(Part):
    """The question of a contract: how long, how traffic grows, what may come, and what a commitment saves."""

    months: Annotated[int, Field(ge=1, le=MOST_MONTHS)] = 12
    monthly_growth: Annotated[float, Field(ge=-0.5, le=1, allow_inf_nan=False)] = 0.0
    future: Annotated[tuple[Future, ...], BeforeValidator(parse_futures)] = ()
    growth_spread: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0  # standard deviation of a year's growth, of the logarithm
    draws: Annotated[int, Field(ge=2, le=MOST_DRAWS)] = 5
    commit: Annotated[dict[Term, Annotated[float, Field(ge=0, lt=1)]], BeforeValidator(parse_discounts)] = {}
    upfront: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of a commitment that is paid when it is signed
    cost_of_capital: Annotated[float, Field(ge=0, le=1)] = 0.0  # a year
    risk: Annotated[RiskLimit | None, BeforeValidator(parse_risk)] = None

    @model_validator(mode="after")
    def _consistent(self) -> Outlook:
        total = sum(f.probability for f in self.future)
        if self.future and abs(total - 1) > 1e-6:
            raise problem(f"probabilities of the futures add up to {total:g}, not 1", "future")
        if len({f.name for f in self.future}) < len(self.future):
            raise problem("two futures have one name", "future")
        if self.future and self.growth_spread:
            raise problem("either name the futures, or have them drawn by growth_spread", "growth_spread")
        return self

    @property
    def futures(self) -> tuple[Future, ...]:
        """Those named; else drawn: so many equally likely ones, each the middle of its part of a lognormal growth; else one."""
        if self.future:
            return self.future
        if not self.growth_spread:
            return (Future(name="as stated", factor=1.0, probability=1.0),)
        middles = [NormalDist().inv_cdf((k + 0.5) / self.draws) for k in range(self.draws)]
        return tuple(Future(name=f"growth {k + 1}", factor=exp(self.growth_spread * z), probability=1 / self.draws) for k, z in enumerate(middles))

    def growth(self, future: Future, month: int) -> float:
        """Traffic in a month (0: the first) per traffic as stated. A drawn future parts from the others with the square root of time."""
        trend = (1 + self.monthly_growth) ** month
        return trend * (future.factor ** sqrt(month / 12) if self.growth_spread else future.factor)

    def committed_price(self, term: Term, usd_per_hour: float) -> float:
        """$/h of a commitment, paid evenly, that is worth what is paid: u of it when it is signed, at r a year, costs r·T/(1 − e^(−rT)) of that."""
        years, r = MONTHS[term] / 12, self.cost_of_capital
        early = r * years / -expm1(-r * years) if r else 1.0
        return usd_per_hour * (1 - self.commit[term]) * (1 - self.upfront + self.upfront * early)
