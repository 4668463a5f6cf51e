"""A question as the program is asked it, with its operating points: the one way from a scenario to candidates, whoever asks."""

from __future__ import annotations

from planner.candidates.offers import with_known_names
from planner.candidates.points import Points
from planner.deadline import NEVER, Deadline
from planner.scenario.apply import catalog_for
from planner.scenario.change import require_one_network
from planner.scenario.profiles import flat
from planner.scenario.records import Scenario
from planner.search.prudent import careful, reached
from planner.search.survey_cache import SurveyCache


def posed(scenario: Scenario, cache: SurveyCache, deadline: Deadline = NEVER) -> tuple[Scenario, Points]:
    """Names in the catalogue's spelling, rates flat, --prudent as the policies that it comes to at the tier any plan reaches.

    Raises CatalogError for names that nobody knows, ScenarioError for a network that differs by region (planning/reach.py), TimeUp.
    """
    require_one_network(scenario, "this")
    asked = careful(flat(with_known_names(scenario, cache.catalog)))
    points = cache.points(asked, catalog_for(cache.catalog, asked).offers).until(deadline)
    asked = reached(points, asked)
    return asked, points.asked(asked, points.survey.offers)
