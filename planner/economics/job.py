"""A finite job on replicas asked by name: how long it takes, by the closed loop, and what an hour of its GPUs costs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from planner.candidates.offers import counted_in
from planner.catalog.catalog import Catalog
from planner.economics.curve import cheapest_price
from planner.errors import PlannerError
from planner.performance import serving
from planner.performance.coefficients import load_coefficients
from planner.performance.evidence import evidence
from planner.performance.job import Completion, completion
from planner.performance.lengths import met_by, workload_mix
from planner.performance.memory import memory_fit
from planner.performance.serving import EXPECTED
from planner.performance.step import MAX_SEQUENCES
from planner.scenario.workload import Workload
from planner.validation.single import AskedConfiguration, Forecast, find, forecast


@dataclass(frozen=True)
class JobTime:
    """A job's predicted time, as expected and with step times that hold at the question's confidence.

    The workload's lengths are as stated; the model makes ``tokens`` of its own of each token (``words`` says how that is known), and the forecast is in these.
    """

    forecast: Forecast
    expected: Completion
    sure: Completion
    requests: int
    concurrency: int
    replicas: int
    max_num_seqs: int
    workload: Workload
    tokens: float
    words: str

    @property
    def gpus(self) -> int:
        """GPUs that the job holds."""
        q = self.forecast.question
        return q.tp * q.pp * self.replicas

    def cheapest_price(self, catalog: Catalog) -> tuple[float, str]:
        """$/h of one GPU at the cheapest offer that plans admit by default, and whose it is. Raises PlannerError where there is none."""
        return cheapest_price(self.forecast, catalog)


def job_time(question: AskedConfiguration, catalog: Catalog, workload: Workload, *, requests: int, concurrency: int, replicas: int) -> JobTime:
    """How long ``requests`` with the workload's lengths take, ``concurrency`` of them in flight over all replicas. The question's loads are not used.

    Each replica serves as many sequences at once as its KV cache has room for, at most 1,024 (engines' default). Raises PlannerError for what cannot run.
    """
    workload = workload.model_copy(update=counted_in(workload, catalog))
    card = find(question, catalog).card
    tokens = (catalog.tokens_per_stated(card, workload.language, workload.tokenizer) or 1.0) if workload.language else 1.0
    met = met_by(workload, tokens)
    first = forecast(replace(question, isl=round(met.input_tokens), osl=round(met.output_tokens), concurrency=(1,)), catalog)
    q, found = first.question, first.found
    one, mix, name = found.replicas(q, q.tp), workload_mix(met, 1.0), (found.card.name,)
    slots = int(min(memory_fit(one, mix).slots[0], MAX_SEQUENCES))
    if slots < 1:
        raise PlannerError(f"{found.checkpoint.id} leaves no KV cache for requests of these lengths", "--isl", "take more GPUs (--tp) or narrower lengths")
    known = serving.Known(one, evidence(one, name, catalog.measured), name, load_coefficients(catalog.coefficients_file))
    times = []
    for confidence in (EXPECTED, q.confidence):
        curves = serving.curves_of(known, mix, confidence)
        times.append(completion(curves, mix, requests, concurrency, replicas, slots))
    words = catalog.tokens_in_words(card, workload.language, workload.tokenizer)
    return JobTime(first, times[0], times[1], requests, concurrency, replicas, slots, workload, tokens, words)
