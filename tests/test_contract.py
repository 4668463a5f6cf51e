"""Contracts: what is signed now is the newsvendor's answer, every number stands a second derivation, and slips of the pen are told."""

from __future__ import annotations

from functools import cache
from itertools import islice
from math import exp, expm1
from pathlib import Path

import pytest
from conftest import Run
from pydantic import ValidationError

from planner.candidates.offers import with_known_names
from planner.catalog.load import load_catalog
from planner.check.contract import check_contract
from planner.deadline import Deadline
from planner.planning.contract import contract
from planner.planning.contract_question import searched
from planner.planning.contract_worth import worth_of
from planner.program.alike import cheapest_over_states
from planner.program.kinds import StateIndex
from planner.program.optimum import cheapest
from planner.program.problem import Column, Problem, Purchasable, Rules, State, Tier, Traffic
from planner.program.risk import dearest
from planner.program.solver import SolverOptions
from planner.report.contract import contract_sections
from planner.result.contract import Contract
from planner.scenario.outlook import Outlook
from planner.scenario.own_offers import OwnOffer
from planner.scenario.sources import ask
from planner.search.contract import priced

FUTURES = ("low=0.7@25%", "base=1@50%", "high=1.4@25%")
FLAGS = {"qps": "200", "min_quality": "0.7", "profile": "m-small", "gpu": ["B200"], "provider": ["verda"], "time_limit": "120s"}


@cache
def found(commit: float = 0.3, risk: str = "") -> Contract:
    outlook = Outlook.model_validate({"months": 12, "monthly_growth": 0.05, "future": FUTURES, "commit": {"1y": commit}, "risk": risk or None})
    return contract(ask(FLAGS).scenario, outlook)


def needed(c: Contract) -> list[int]:
    """GPUs that replicas stand on in each state."""
    each = [p.deployments[0].gpus_per_replica for p in c.parts]
    return [sum(g * sum(row.values()) for g, row in zip(each, s.replicas, strict=True)) for s in c.states]


def test_what_is_signed_is_the_newsvendors_quantile() -> None:
    """GPUs are sold one by one, so the k-th pays as a commitment if it is needed in more than 70 % of all expected hours; starts are not in that."""
    c = found()
    likely = [c.futures[i // 288].probability for i in range(len(c.states))]
    share = {k: sum(p for p, n in zip(likely, needed(c), strict=True) if n >= k) / 288 for k in range(1, max(needed(c)) + 1)}
    right = sum(s > 0.7 for s in share.values())
    assert sum(x.instances for x in c.commitments) == right > 0
    hour = c.lines[0].by_the_hour_usd
    usd = 0.7 * hour * right + hour * sum(s for k, s in share.items() if k > right)
    lead = c.scenario.policy.startup_lead / 3600
    starts = sum(p * n for p, s in zip(likely, c.states, strict=True) for n in s.started.values()) / 288
    assert c.usd_per_hour == pytest.approx(usd + starts * lead * hour)


def test_no_discount_signs_nothing() -> None:
    c = found(0.0)
    assert not c.commitments
    assert c.usd_per_hour == pytest.approx(c.by_the_hour_usd_per_hour, rel=0.03)


def test_futures_add_up_and_knowing_them_never_costs() -> None:
    c = found()
    assert sum(f.probability * f.usd_per_hour for f in c.futures) == pytest.approx(c.usd_per_hour)
    assert all(f.known_usd_per_hour is not None and f.known_usd_per_hour <= f.usd_per_hour * 1.001 for f in c.futures)
    saved = sum(f.probability * (f.usd_per_hour - (f.known_usd_per_hour or 0)) for f in c.futures) * c.hours
    assert c.perfect_information_usd == pytest.approx(saved, abs=1.0)


def test_a_limit_on_the_dearest_future_is_kept_and_costs() -> None:
    free = found()
    least = free.futures[-1].known_usd_per_hour or 0.0  # nothing serves the dearest future for less
    limit = (free.dearest_usd_per_hour + 2 * least) / 3
    assert least < limit < free.dearest_usd_per_hour
    c = found(risk=f"worst={limit}/h")
    assert c.dearest_usd_per_hour <= limit * (1 + 1e-6)
    assert c.usd_per_hour >= free.usd_per_hour * (1 - 1e-4)
    assert c.risk_premium_usd == pytest.approx((c.usd_per_hour - free.usd_per_hour) * c.hours, abs=0.001 * c.usd)


@pytest.mark.parametrize("level", [0.0, 0.5, 0.75, 0.9, 1.0])
def test_the_mean_of_the_dearest(level: float) -> None:
    """10 in a tenth of the cases, 4 in 0.4, 1 in half of them: half of all cost 0.1·10 + 0.4·4 = 2.6 of 0.5, and so on."""
    right = {0.0: 3.1, 0.5: 5.2, 0.75: (1 + 0.15 * 4) / 0.25, 0.9: 10.0, 1.0: 10.0}
    assert dearest([(0.5, 1.0), (0.1, 10.0), (0.4, 4.0)], level) == pytest.approx(right[level])


OWN = {"provider": "verda", "gpu": "B200-SXM", "gpus_per_instance": 1}
CALM = {"months": 12, "commit": {}}  # one future, no growth


def planned(flags: dict[str, object], outlook: dict[str, object], *offers: dict[str, object]) -> Contract:
    scenario = ask(FLAGS | flags).scenario
    supply = scenario.supply.model_copy(update={"offers": tuple(OwnOffer.model_validate(OWN | o) for o in offers)})
    return contract(scenario.model_copy(update={"supply": supply}), Outlook.model_validate(CALM | outlook))


def test_a_quote_for_a_term_is_signed_at_its_price_and_never_had_by_the_hour() -> None:
    """3 GPUs are needed day and night: 3 at $2.50 for a year, no discount of another term on it, and the rest by the hour at $4.89."""
    c = planned({}, {}, {"id": "lease", "usd_per_hour": 2.5, "purchase": "reserved_1y", "quota": 9})
    least = min(needed(c))
    assert least == 3
    lease = next(o for o, line in enumerate(c.lines) if line.purchase == "reserved_1y")
    assert c.lines[lease].term == "1y" and c.lines[lease].usd_per_hour == 2.5
    (signed,) = c.commitments
    assert (signed.line, signed.break_even) == (lease, pytest.approx(2.5 / 4.89))
    share = {k: sum(n >= k for n in needed(c)) / len(c.states) for k in range(1, max(needed(c)) + 1)}
    assert signed.instances == sum(s > 2.5 / 4.89 for s in share.values()) >= least
    assert c.by_the_hour_usd_per_hour is not None and c.by_the_hour_usd_per_hour > c.usd_per_hour
    assert "own offer lease" in page(c)


def test_a_quote_for_a_term_beside_a_discount_on_others() -> None:
    c = planned({}, {"commit": {"1y": 0.3}}, {"id": "lease", "usd_per_hour": 2.5, "purchase": "reserved_1y", "quota": 3})
    signed = {c.lines[x.line].purchase: (x.instances, c.lines[x.line].usd_per_hour) for x in c.commitments}
    assert signed == {"reserved_1y": (3, 2.5), "on_demand": (1, pytest.approx(0.7 * 4.89))}


def test_where_nothing_is_sold_by_the_hour_all_is_signed() -> None:
    c = planned({"provider": ["rack"]}, {}, {"provider": "rack", "id": "lease", "usd_per_hour": 2.0, "purchase": "reserved_3y"})
    assert [(x.instances, x.break_even) for x in c.commitments] == [(max(needed(c)), None)]
    assert c.usd_per_hour == pytest.approx(2.0 * max(needed(c)))
    assert c.by_the_hour_usd_per_hour is None and not c.notes  # there is no such plan: that is known
    assert c.commitments[0].obliged_after_usd == pytest.approx(c.usd_per_hour * 24 * 730)
    assert "not sold by the hour" in page(c)


def test_a_quota_counts_whatever_it_is_bought_for() -> None:
    """5 of the 7 GPUs at $2 at most, committed or by the hour: the others are the catalogue's."""
    c = planned({}, {"commit": {"1y": 0.3}}, {"id": "few", "usd_per_hour": 2.0, "quota": 5})
    mine = [o for o, line in enumerate(c.lines) if "few" in line.source]
    assert len(mine) == 2
    held = [sum(s.instances.get(o, 0) for o in mine) for s in c.states]
    assert max(needed(c)) == 7 and max(held) == 5


@pytest.mark.parametrize(
    ("flags", "outlook", "offers"),
    [
        ({}, {"commit": {"1y": 0.3, "3y": 0.5}}, ()),
        ({}, {"months": 18}, ({"id": "lease", "usd_per_hour": 2.5, "purchase": "reserved_1y"},)),
        ({}, {"months": 30, "commit": {"1y": 0.4}}, ({"id": "long", "usd_per_hour": 2.2, "purchase": "reserved_3y", "gpus_per_instance": 4},)),
        (
            {"purchase": ["on_demand", "spot"], "max_spot_share": "0.5"},
            {"commit": {"1y": 0.3}},
            ({"id": "lease", "usd_per_hour": 3, "purchase": "reserved_1y"},),
        ),
        ({"carbon_price": "500", "carbon_intensity": "400", "pue": "1.2"}, {"commit": {"1y": 0.5}, "upfront": 0.5, "cost_of_capital": 0.1}, ()),
        ({"provider": ["rack"]}, {}, ({"provider": "rack", "id": "lease", "usd_per_hour": 2.0, "purchase": "reserved_1y"},)),
    ],
)
def test_no_contract_costs_less_than_its_structures_bound(flags: dict[str, object], outlook: dict[str, object], offers: tuple[dict[str, object], ...]) -> None:
    scenario, catalog = ask(FLAGS | flags).scenario, load_catalog()
    scenario = scenario.model_copy(update={"supply": scenario.supply.model_copy(update={"offers": tuple(OwnOffer.model_validate(OWN | o) for o in offers)})})
    done = searched(with_known_names(scenario, catalog), Outlook.model_validate(CALM | outlook), catalog, Deadline.after(120))
    structures = [s for _, s in islice(done.field.cheapest_first(), 6) if s]
    assert structures
    for structure in structures:
        cost = priced(done.field, done.asked, structure, SolverOptions(gap=0.0, time_limit_s=60)).solution.cost
        assert structure.bound <= cost * (1 + 1e-6)


def test_a_discount_takes_nothing_off_carbon() -> None:
    """1 kW of a B200 at 400 g/kWh and $200 a tonne is $0.08 an hour, of which a term of 30 % takes nothing: 0.7·4.89 + 0.08."""
    c = planned({"carbon_price": "200", "carbon_intensity": "400", "pue": "1"}, {"commit": {"1y": 0.3}})
    (term,) = [line for line in c.lines if line.term]
    assert term.carbon_usd_per_hour == pytest.approx(0.08)
    assert term.by_the_hour_usd == pytest.approx(4.97)
    assert term.usd_per_hour == pytest.approx(0.7 * 4.89 + 0.08)
    wrong = tuple(line.model_copy(update={"usd_per_hour": 0.7 * 4.97}) if line.term else line for line in c.lines)
    report = check_contract(c.model_copy(update={"lines": wrong}), load_catalog())
    assert any(b.name == "offers" and "should be 3.5" in b.what for b in report.breaches)


def test_a_budget_is_on_what_is_paid_for_terms() -> None:
    """$0.08 of carbon an hour of each GPU is paid to nobody: 4 for a term and 3 by the hour are $28.36 paid and $28.92 charged."""
    carbon = {"carbon_price": "200", "carbon_intensity": "400", "pue": "1"}
    c = planned(carbon | {"budget": "28.5/h"}, {"commit": {"1y": 0.3}})
    charged = max(sum(c.lines[o].usd_per_hour * n for o, n in s.instances.items()) for s in c.states)
    assert charged == pytest.approx(4 * 0.7 * 4.89 + 3 * 4.89 + 7 * 0.08)
    assert charged - 7 * 0.08 < 28.5 < charged


def test_a_future_known_costs_its_newsvendors_answer() -> None:
    """With one future sure, the k-th GPU is committed to if more than 70 % of its hours need it; starts are on top."""
    c = found()
    for s, future in enumerate(c.futures):
        here = range(288 * s, 288 * (s + 1))
        hours = [sum(needed(c)[i] >= k for i in here) / 288 for k in range(1, max(needed(c)) + 1)]
        least = sum(min(0.7, share) for share in hours) * c.lines[0].by_the_hour_usd
        assert future.known_usd_per_hour is not None
        assert least <= future.known_usd_per_hour <= least * 1.01


def test_without_time_nothing_is_told_and_what_is_missing_is_named() -> None:
    outlook = Outlook.model_validate({"commit": {"1y": 0.3}, "future": FUTURES})
    catalog = load_catalog()
    scenario = with_known_names(ask(FLAGS).scenario, catalog)
    done = searched(scenario, outlook, catalog, Deadline.after(60))
    worth = worth_of(done, found().parts, scenario, catalog, Deadline.after(0))
    told = (worth.by_the_hour_usd_per_hour, worth.perfect_information_usd, worth.stochastic_usd, worth.robust, *worth.known_usd_per_hour)
    assert not any(told) and not worth.stress and not worth.measuring
    assert worth.missing == (
        "all by the hour", "the future low known", "the future base known", "the future high known", "signed for the mean of the futures", "traffic x 1.1",
        "traffic x 1.25", "traffic x 1.5", "#1 measured before signing", "capacities as uncertain as their evidence",
    )  # fmt: skip
    assert not found().notes
    assert "Not told: x." in page(found().model_copy(update={"notes": ("Not told: x.",)})).split("Assumed")[1]


def test_a_saved_contract_is_written_as_a_document(run: Run, tmp_path: Path) -> None:
    saved, html, md = (tmp_path / name for name in ("c.json", "c.html", "c.md"))
    c = found().model_copy(update={"scenario": found().scenario.model_copy(update={"name": "<b>year</b>"})})
    saved.write_text(c.model_dump_json())
    assert run("report", saved, "-o", html, "-o", md) == (0, "", "")
    for text in (html.read_text(), md.read_text()):
        assert f"${c.usd_per_hour:,.2f}" in text and f"${c.usd:,.0f} for 12 months" in text
        assert "Sign 5 x verda-b200-sxm-on-demand for 1y" in text and "70% of hours" in text
        assert all(w in text for w in ("Futures", "By month", "Serves", "Assumed", "Evidence and provenance", "if known", c.lines[0].as_of))
        assert "<b>year" not in text
    status, out, said = run("report", saved, "-o", tmp_path / "c.xlsx")
    assert (status, out, said.count("\n")) == (2, "", 1) and "not written as xlsx" in said
    assert not (tmp_path / "c.xlsx").exists()


def page(c: Contract) -> str:
    return "\n".join(str(s) for s in contract_sections(c)).replace("\\n", "\n")


def test_starts_that_cost_much_are_decided_beside_the_rest() -> None:
    """1, 2, 1, 2 GPUs and an hour and a half to start: holding the second through costs 8, starting it twice a day 6 + 3. Two days alike are one."""
    column = Column("a", "m", "k", "A", 1, {0: (Tier(1, 10.0),)}, {}, (0,), {0: 0.8})
    states = tuple(State(before=StateIndex(4 * (i // 4) + (i - 1) % 4)) for i in range(8))
    question = Problem((Traffic("w", (9.0, 19.0) * 4),), (column,), (Purchasable("x", "A", 1, 1.0),), Rules(lead_hours=1.5), states)
    solution = cheapest_over_states(question, SolverOptions(gap=0.0))
    assert solution.cost == pytest.approx(16.0)
    assert solution.bound == pytest.approx(16.0)
    assert not any(solution.started)


def edits() -> dict[str, dict[str, object]]:
    c = found()
    first = c.states[0]
    row = dict(first.replicas[0])
    line = next(iter(row))
    fewer = first.model_copy(update={"replicas": ({**row, line: row[line] - 1}, *first.replicas[1:])})
    idle = first.model_copy(update={"instances": {o: n + 1 for o, n in first.instances.items()}})
    lines = (c.lines[0].model_copy(update={"usd_per_hour": c.lines[0].usd_per_hour * 0.9}), *c.lines[1:])
    return {
        "a replica fewer": {"states": (fewer, *c.states[1:])},
        "an instance more in one hour": {"states": (idle, *c.states[1:])},
        "a lower price": {"lines": lines},
        "a lower cost": {"usd_per_hour": c.usd_per_hour * 0.99},
        "a better coverage": {"coverage": c.coverage + 0.05},
        "a better use": {"commitments": tuple(x.model_copy(update={"used": min(1.0, x.used + 0.05)}) for x in c.commitments)},
        "a future known for too little": {"futures": (c.futures[0].model_copy(update={"known_usd_per_hour": 1.0}), *c.futures[1:])},
        "a future known for too much": {"futures": (c.futures[0].model_copy(update={"known_usd_per_hour": c.futures[0].usd_per_hour * 1.05}), *c.futures[1:])},
        "more saved by knowing": {"perfect_information_usd": (c.perfect_information_usd or 0.0) + 0.01 * c.usd},
        "a cheaper future": {"futures": (c.futures[0].model_copy(update={"usd_per_hour": 1.0}), *c.futures[1:])},
        "less traffic": {"outlook": c.outlook.model_copy(update={"monthly_growth": 0.08})},
        "another discount": {"outlook": c.outlook.model_copy(update={"commit": {"1y": 0.2}})},
    }


@pytest.mark.parametrize("what", [
    "a replica fewer", "an instance more in one hour", "a lower price", "a lower cost", "a better coverage", "a better use", "a cheaper future",
    "less traffic", "another discount", "a future known for too little", "a future known for too much", "more saved by knowing",
])  # fmt: skip
def test_the_check_finds(what: str) -> None:
    assert not check_contract(found().model_copy(update=edits()[what]), load_catalog()).ok


def test_the_contract_passes_its_check_and_reads_back() -> None:
    again = Contract.model_validate_json(found().model_dump_json())
    assert again == found()
    assert check_contract(again, load_catalog()).ok


def test_a_term_paid_at_once_costs_what_the_money_would_earn() -> None:
    """At 10 % a year one dollar a year, paid over a year, is worth (1 − e^(−0.1))/0.1 dollars now."""
    outlook = Outlook(commit={"1y": 0.2}, upfront=1.0, cost_of_capital=0.1)
    assert outlook.committed_price("1y", 10.0) == pytest.approx(8.0 * 0.1 / (1 - exp(-0.1)))
    assert Outlook(commit={"1y": 0.2}, upfront=0.5, cost_of_capital=0.1).committed_price("1y", 10.0) == pytest.approx(4 + 4 * 0.1 / -expm1(-0.1))


def test_drawn_futures_part_with_the_root_of_time() -> None:
    futures = Outlook(growth_spread=0.3, draws=5)
    assert [f.probability for f in futures.futures] == [0.2] * 5
    last, middle = futures.futures[-1], futures.futures[2]
    assert futures.growth(middle, 12) == pytest.approx(1.0)
    assert futures.growth(last, 12) == pytest.approx(exp(0.3 * 1.2815515), rel=1e-6)  # the 90 % quantile of a normal distribution
    assert futures.growth(last, 3) == pytest.approx(exp(0.3 * 1.2815515 / 2), rel=1e-6)


def test_states_solved_as_one_cost_the_same() -> None:
    """A day of four hours of two kinds, committed or by the hour: with and without merging."""
    offers = (Purchasable("x", "A", 1, 1.0), Purchasable("x", "A", 1, 0.6, committed=True), Purchasable("x", "A", 4, 3.0))
    column = Column("a", "m", "k", "A", 1, {0: (Tier(1, 10.0),)}, {}, (0, 1, 2), {0: 0.8})
    states = tuple(State(times=t) for t in (3.0, 1.0, 2.0, 5.0))
    question = Problem((Traffic("w", (21.0, 58.0, 22.0, 57.0)),), (column,), offers, Rules(), states)
    options = SolverOptions(gap=0.0)
    assert cheapest_over_states(question, options).cost == pytest.approx(cheapest(question, options).cost)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"future": ["low=0.7@25%"]}, "add up to 0.25"),
        ({"future": ["low"]}, "is no future; write low=0.7@25%"),
        ({"future": ["a=1@50%", "a=2@50%"]}, "one name"),
        ({"future": ["a=1@1"], "growth_spread": 0.2}, "either name the futures"),
        ({"commit": ["1y=130%"]}, "'130%' is no discount"),
        ({"commit": ["2y=30%"]}, "'2y' is no term to commit to"),
        ({"risk": "0.9"}, "write 0.9=120/h"),
        ({"months": 99}, "less than or equal to 36"),
    ],
)
def test_slips_are_told(given: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Outlook.model_validate(given)


def test_the_command_names_the_flag(run: Run) -> None:
    status, _, said = run("contract", "--qps", 10, "--future", "low=0.7@25%")
    assert status == 2
    assert "--future" in said and "add up to 0.25" in said


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--requests-per-day", 10000), "requests that may wait"),
        (("--users", 500, "--think-time", "10s"), "users who wait for answers"),
        (("--qps", 10, "--isl", 2000, "--route-by", "input"), "routes by length"),
        (("--qps", 10, "--min-quality", 0.7, "--escalate", 0.2, "--escalate-quality", 0.8), "escalation"),
        (("--capacities", "examples/capacities.csv", "--demand", "examples/demand.csv"), "own tables"),
        (("--maximize", "qps", "--budget", "20/h"), "the most that a budget buys"),
        (("--qps", 10, "--shed"), "who goes short"),
        (("--qps", 10, "--redundancy", "n+1-instance"), "n+1-instance"),
        (("--qps", 10, "--redundancy", "spot"), "redundancy spot"),
        (("--qps", 10, "--api", "all"), "fleets alone"),
        (("--qps", 10, "--current", "examples/fleet.toml"), "today's fleet"),
    ],
)
def test_what_no_contract_is_planned_for_is_refused_in_a_line(run: Run, given: tuple[object, ...], says: str) -> None:
    status, out, said = run("contract", *given, "--commit", "1y=30%")
    assert (status, out, said.count("\n")) == (2, "", 1)
    assert says in said


@pytest.mark.parametrize("term", ["4y=30%", "1y", "1y=", "=30%", "1y=30", "1y=100%", "1y=-5%", "1y=much", "1y=nan", "1y=30%,3y=50%"])
def test_what_is_no_commitment_is_refused_with_what_to_write(run: Run, term: str) -> None:
    status, out, said = run("contract", "--qps", 10, "--commit", term)
    assert (status, out, said.count("\n")) == (2, "", 1)
    assert "--commit: '" in said and "write 1y=30%" in said


@pytest.mark.parametrize("verb", ["contract", "autoscale"])
def test_plans_over_time_are_not_made_from_todays_fleet(run: Run, verb: str) -> None:
    status, out, said = run(verb, "--qps", 10, "--profile", "m-small", "--current", "examples/fleet.toml")
    assert (status, out) == (2, "") and "today's fleet" in said
