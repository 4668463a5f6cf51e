"""Tables of one's own: what they become, and an error with place and remedy for each way to get them wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from planner.candidates.tables import TableCandidate, TableProblem, read_tables
from planner.errors import PlannerError
from planner.program.optimum import cheapest
from planner.program.problem import Tier
from planner.program.solver import SolverOptions
from planner.scenario.records import Policy, Scenario, Supply, Tables
from planner.scenario.workload import Workload

HEADER = "candidate,gpu,gpus,usd_per_hour,class,max_qps\n"
CAPACITIES = HEADER + "big,H100,4,10,chat,8\nbig,H100,4,10,code,4\nsmall,L4,1,1.5,chat,1\n"
DEMAND = "class,qps\nchat,9\ncode,2\n"


def scenario(folder: Path, capacities: str = CAPACITIES, demand: str = DEMAND, single: bool = False, **more: Any) -> Scenario:
    (folder / "capacities.csv").write_text(capacities)
    (folder / "demand.csv").write_text(demand)
    tables = Tables(capacities=str(folder / "capacities.csv"), demand=str(folder / "demand.csv"), single_candidate_per_class=single)
    return Scenario(tables=tables, **more)


def read(folder: Path, capacities: str = CAPACITIES, demand: str = DEMAND, **more: Any) -> TableProblem:
    return read_tables(scenario(folder, capacities, demand, **more))


def cost(found: TableProblem) -> float:
    return cheapest(found.problem, SolverOptions(gap=0)).cost


def test_what_the_tables_become(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert found.classes == ("chat", "code") and not found.unused and not found.unserved
    assert found.candidates == (TableCandidate("big", "H100", 4, 10.0), TableCandidate("small", "L4", 1, 1.5))
    big, small = found.problem.columns
    assert (big.shared, big.tiers, big.offers, big.gpus) == ({0: 8.0, 1: 4.0}, {}, (0,), 4)
    assert (small.shared, small.tiers, small.offers) == ({}, {0: (Tier(1, 1.0),)}, (1,))
    assert [(o.location, o.gpu, o.gpus, o.usd_per_hour, o.whole) for o in found.problem.offers] == [("own", "H100", 4, 10.0, True), ("own", "L4", 1, 1.5, True)]


def test_optima_by_hand(tmp_path: Path) -> None:
    # code takes half a big one; the other half carries 4 chat/s, 5 are left: 5 × $1.5 < $10.
    assert cost(read(tmp_path)) == pytest.approx(10 + 5 * 1.5)
    assert cost(read(tmp_path, single=True)) == pytest.approx(20)  # all chat on big ones: 9/8 + 2/4 < 2; on small ones: 10 + 13.5
    assert cost(read(tmp_path, policy=Policy(max_slo_load=0.5))) == pytest.approx(30 + 2 * 1.5)  # 3 big ones at half load: 2 code/s and 8 chat/s
    assert cost(read(tmp_path, policy=Policy(spare_replicas=1))) == pytest.approx(29)  # 2 big ones of which one may fail, 5 small ones and a spare
    assert cost(read(tmp_path, supply=Supply(quota={"L4": 4}))) == pytest.approx(20)
    assert cost(read(tmp_path, supply=Supply(max_gpus=8))) == pytest.approx(20)
    assert cost(read(tmp_path, policy=Policy(max_gpu_types=1))) == pytest.approx(20)
    assert cost(read(tmp_path, policy=Policy(budget="17/h"))) == float("inf")


def test_one_class(tmp_path: Path) -> None:
    found = read(tmp_path, demand="class,qps\nchat,9\n")
    assert found.unused == ("code",) and cost(found) == pytest.approx(10 + 1.5)
    assert cost(read(tmp_path, demand="class,qps\nchat,9\n", single=True)) == pytest.approx(9 * 1.5)


def test_a_replica_of_any_size_is_bought_as_one_thing(tmp_path: Path) -> None:
    for gpus in (1, 3, 6, 7, 12):
        assert cost(read(tmp_path, f"{HEADER}a,X,{gpus},2,chat,4\n", "class,qps\nchat,9\n")) == pytest.approx(6)


def test_a_candidate_without_a_demanded_class_is_left_out(tmp_path: Path) -> None:
    found = read(tmp_path, demand="class,qps\ncode,2\n")
    assert [c.name for c in found.candidates] == ["big"] and found.unused == ("chat",)
    assert cost(read(tmp_path, demand="class,qps\ncode,2\n", supply=Supply(quota={"L4": 1}))) == pytest.approx(10)


def test_a_class_that_nothing_serves_is_named(tmp_path: Path) -> None:
    found = read(tmp_path, demand=DEMAND + "video,1\n")
    assert found.unserved == ("video",)
    assert cheapest(found.problem, SolverOptions(gap=0)).status == "infeasible"


def test_nothing_served_at_all(tmp_path: Path) -> None:
    found = read(tmp_path, demand="class,qps\nvideo,1\n")
    assert (found.unserved, found.unused, found.candidates) == (("video",), ("chat", "code"), ())


BAD_CAPACITIES = [
    ("", "capacities.csv: the file is empty"),
    (HEADER, "the table has no rows"),
    (HEADER.replace("max_qps", "max_qsp") + "a,X,1,1,chat,1\n", "capacities.csv:1: unknown column 'max_qsp' (did you mean 'max_qps'?)"),
    ("candidate,gpu,gpus,class,max_qps\na,X,1,chat,1\n", "capacities.csv:1: column 'usd_per_hour' is missing"),
    (HEADER + "a,X,1,1,chat,fast\n", "capacities.csv:2: 'max_qps'"),
    (HEADER + "a,X,1,1,chat,nan\n", "capacities.csv:2: 'max_qps': input should be a finite number"),
    (HEADER + "a,X,1,1,chat,inf\n", "capacities.csv:2: 'max_qps'"),
    (HEADER + "a,X,1,1,chat,0\n", "leave the row out if the candidate cannot serve the class"),
    (HEADER + "a,X,1,1,chat,-3\n", "capacities.csv:2: 'max_qps': input should be greater than 0"),
    (HEADER + "a,X,1,1,chat,1e-9\n", "'max_qps' of 1e-09 would need 9e+09 replicas for class 'chat'"),
    (HEADER + "a,X,1,1,chat,\n", "capacities.csv:2: 'max_qps' is"),
    (HEADER + "a,X,1,0,chat,1\n", "capacities.csv:2: 'usd_per_hour': input should be greater than 0"),
    (HEADER + "a,X,1,-1,chat,1\n", "'usd_per_hour'"),
    (HEADER + "a,X,1,$2,chat,1\n", "'usd_per_hour'"),
    (HEADER + "a,X,0,1,chat,1\n", "'gpus': input should be greater than 0"),
    (HEADER + "a,X,1.5,1,chat,1\n", "'gpus'"),
    (HEADER + ",X,1,1,chat,1\n", "capacities.csv:2: 'candidate' is"),
    (HEADER + " ,X,1,1,chat,1\n", "capacities.csv:2: 'candidate'"),
    (HEADER + "a,X,1,1,chat\n", "capacities.csv:2: 5 cells where the header has 6"),
    (HEADER + "a,X,1,1,chat,1\na,X,1,1,chat,2\n", "capacities.csv:3: candidate 'a' has class 'chat' twice"),
    (HEADER + "a,X,1,1,chat,1\na,X,1,2,code,2\n", "capacities.csv:3: candidate 'a' has usd_per_hour 2.0, and 1.0 in an earlier row"),
    (HEADER + "a,X,1,1,chat,1\na,Y,1,1,code,2\n", "capacities.csv:3: candidate 'a' has gpu Y, and X"),
    (HEADER + "a,X,1,1,chat,1\na,X,2,1,code,2\n", "capacities.csv:3: candidate 'a' has gpus 2, and 1"),
]
BAD_DEMANDS = [
    ("", "demand.csv: the file is empty"),
    ("class,qps\n", "demand.csv: the table has no rows"),
    ("class,rate\nchat,1\n", "demand.csv:1: unknown column 'rate'"),
    ("class,qps\nchat,1\nchat,2\n", "demand.csv:3: class 'chat' stands twice"),
    ("class,qps\nchat,0\n", "demand.csv:2: 'qps': input should be greater than 0"),
    ("class,qps\nchat,-1\n", "demand.csv:2: 'qps'"),
    ("class,qps\nchat,NaN\n", "demand.csv:2: 'qps'"),
    ("class,qps\nchat,many\n", "demand.csv:2: 'qps'"),
]


@pytest.mark.parametrize(("text", "message"), BAD_CAPACITIES)
def test_bad_capacities(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PlannerError) as error:
        read(tmp_path, text)
    assert message in str(error.value) and "\n" not in str(error.value) and error.value.exit_code == 2


@pytest.mark.parametrize(("text", "message"), BAD_DEMANDS)
def test_bad_demand(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PlannerError) as error:
        read(tmp_path, demand=text)
    assert message in str(error.value) and error.value.exit_code == 2


def test_missing_file(tmp_path: Path) -> None:
    question = scenario(tmp_path)
    (tmp_path / "capacities.csv").unlink()
    with pytest.raises(PlannerError, match=r"capacities\.csv: cannot read the file"):
        read_tables(question)


def test_quota_on_a_gpu_that_nothing_has(tmp_path: Path) -> None:
    with pytest.raises(PlannerError, match=r"quota names 'H10', which no candidate has \(did you mean 'H100'\?\)"):
        read(tmp_path, supply=Supply(quota={"H10": 4}))


@pytest.mark.parametrize("more", [{"policy": Policy(max_models=1)}, {"supply": Supply(gpus=("L4",))}, {"workload": (Workload(qps=1.0),)}])
def test_settings_that_mean_nothing_here_are_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    with pytest.raises(PlannerError):
        read(tmp_path, **more)


def test_spaces_and_a_byte_order_mark_are_no_error(tmp_path: Path) -> None:
    found = read(tmp_path, "\ufeff" + HEADER + "a , X,1, 2 ,chat,10\n\nb,X,1,3, code ,10\n")
    assert [c.name for c in found.candidates] == ["a", "b"] and found.candidates[0].gpu == "X" and not found.unserved
