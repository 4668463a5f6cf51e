"""How long the steps of one answer take together: steps without prompts, and the prompts of other requests in them.

Counted in steps an answer lives exactly as long as it has tokens, so arrivals, each of which lengthens steps by its prompt and then by its own
decoding, are a self-exciting (Hawkes) process: its linear theory gives variances and correlations in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from planner.performance.chain import Chain, Rows, full_step
from planner.performance.replicas import Floats, Ints
from planner.performance.waits import Wait

# A safety margin on variances, at most SAFE: where prompts take over BUSY of the time, are much alike (squared variation below ALIKE), and the
# load is above FREE of the most, answers scatter more than by these formulas, by amounts that differ between candidates.
SAFE, BUSY, ALIKE, FREE = 2.4, 0.3, 0.3, 0.5
SPREAD, CHUNK_SPREAD = 1.08, 1.15  # on variances, for what is not linear: prompts taken together, and in chunks


@dataclass(frozen=True)
class Numbers:
    """The replica at one rate, as noise needs it, all [P, 1]; seconds, and sequences that decode."""

    rate: Rows
    prompts: Rows  # share of the time that prompts take
    step: Rows  # without prompts
    slope: Rows  # of that by sequences
    tpot: Rows
    mean: Rows  # sequences
    var: Rows
    third: Rows  # central moment
    room: Rows  # prompt tokens that a step takes
    crowded: Rows  # a step with as many sequences as hardly ever are


@dataclass(frozen=True)
class StepNoise:
    """What the time of L steps scatters by, all [P, 1]: see ``decoding``."""

    step_prompts: Rows  # variance of the prompts in a step
    prompts: Rows  # the same with a safety margin
    again: Rows  # correlation of one step's with the next's
    prompts_third: Rows  # third central moment per step of many
    load: Rows  # variance of a step through the number in flight, by L^2 of few steps
    shared: Rows  # part of that which prompts and number have in common
    load_third: Rows
    forgets: Rows  # 1/steps
    late: Rows  # seconds that prompts which came during an answer's own add to it
    late_var: Rows
    late_third: Rows
    busy: Rows  # share of time that prompts take
    room: Rows  # seconds that prompts can add to a step beyond the mean
    first: Rows  # prompts that come during an answer's own
    each: Rows  # prompts that come in a step without prompts
    mean: Rows  # seconds of a step
    bare: Rows  # of one without prompts
    longest: Rows  # of one with as many prompts as it takes


def noise_of(chain: Chain, at: Numbers, wait: Wait) -> StepNoise:
    """The noise of steps around their mean."""
    o, w, w2, w3 = chain.mix.mean_output, chain.work, chain.work_m2, chain.work_m3
    lam, prompts, others = at.rate, at.prompts, 1 - at.prompts
    arrivals, slope = lam * at.tpot, at.slope / others  # per step; of a step with the prompts it brings
    most = full_step(chain, at.room)
    # Each prompt brings those that come meanwhile: a busy period, hence the powers of 1 - prompts.
    many = arrivals * w2 / others**2  # variance per step of many
    one = _step_prompts_var(chain, arrivals, prompts, prompts * at.tpot, most)
    ratio = np.maximum(many / (one + 1e-30), 1.0)
    burst = w3 / others**4 + 3 * lam * w2 * w2 / others**5  # third moment of a busy period
    # The number in flight: what prompts and number have in common, and the square of the number's own effect.
    both = slope * arrivals * (lam * w2 / others**2 + w / others)
    load = slope * slope * at.var + both + 1e-30
    free = np.clip(1 - lam * (w + at.slope * o), 0.02, 1.0)  # what each arrival does not bring again
    whole = arrivals * (w2 + 2 * w * at.slope * o + at.slope**2 * chain.outputs.moment(2)) / free**2
    limited = np.clip(at.var * free / np.maximum(at.mean, 1e-9), 0.0, 1.0)  # by slots
    forgets = np.clip(2 * load / (np.maximum(whole - many, 1e-30) * limited + 1e-30), 0.2 / o, 1.0)
    own = _own_and_wait(chain, at, wait, most)
    excess, again = np.maximum(own - at.tpot, 0.0), prompts / others
    spread = w2 - w * w + wait.var
    late_var = lam * excess * w2 / others**3 + again**2 * spread
    late_third = lam * excess * burst + 2 * again**3 * spread**1.5
    alike = 1 / (1 + (np.maximum(w2 / w**2 - 1, 0.0) / ALIKE) ** 2)
    safe = 1 + SAFE * alike * np.clip((prompts - BUSY) / BUSY, 0.0, 1.0) * np.clip((lam / chain.rate - FREE) / (1 - FREE), 0.0, 1.0)
    wide = SPREAD + wait.cut * (CHUNK_SPREAD - SPREAD)
    wider = wide * np.sqrt(wide)
    wide = wide * safe
    return StepNoise(
        step_prompts=one,
        prompts=one * wide,
        again=(ratio - 1) / (ratio + 1),
        prompts_third=arrivals * others * burst * wider,
        load=load * SPREAD * safe,
        shared=both / load,
        load_third=slope**3 * at.third,
        forgets=forgets,
        late=excess * again,
        late_var=late_var * wide,
        late_third=late_third * wider,
        busy=prompts,
        room=np.maximum(at.step + most - at.tpot, 0.0),
        first=lam * own,
        each=lam * at.step,
        mean=at.tpot,
        bare=at.tpot * others,
        longest=at.crowded + most,
    )


def _step_prompts_var(chain: Chain, arrivals: Rows, prompts: Rows, mean: Rows, most: Rows) -> Rows:
    """Variance of the prompts in one step, which are ``mean`` seconds in the mean: gated batches, and with chunks a step is at most full."""
    one: Rows = arrivals * chain.work_m2 / (1 - prompts**2)
    if not chain.is_chunked:
        return one
    bound = np.maximum(mean * (most - mean), 0.05 * mean * most) + 1e-30
    return one / np.cbrt(1 + (one / bound) ** 3)


def _own_and_wait(chain: Chain, at: Numbers, wait: Wait, most: Rows) -> Rows:
    """Seconds in which prompts come that an answer meets: its own prompt's step, or where prompts queue, their wait too."""
    found = at.rate * chain.work_m2 / (1 - at.prompts**2) + at.step / (1 - at.prompts)  # a step found on arrival
    gated = at.step + chain.work + at.prompts * found
    queued = wait.mean - at.step / 2 + chain.work + at.step * np.maximum(chain.work / most, 1.0)
    own: Rows = (1 - wait.cut) * gated + wait.cut * np.maximum(queued, gated)
    return own


@dataclass(frozen=True)
class Decoding:
    """The time that so many steps take, [P, Q]: without prompts ``bare``, and what prompts add for those that meet some."""

    mean: Rows
    bare: Rows
    bare_var: Rows
    bare_third: Rows
    met: Rows  # probability
    added: Rows  # moments of what is added then
    added_var: Rows
    added_third: Rows

    def take(self, index: Ints) -> Decoding:
        """Answers by index."""
        return Decoding(*(np.take(getattr(self, field.name), index, axis=1) for field in fields(self)))

    @property
    def var(self) -> Rows:
        """Variance of it all."""
        found: Rows = self.bare_var + self.met * (self.added_var + (1 - self.met) * self.added * self.added)
        return found


def decoding(noise: StepNoise, steps: Rows | Floats) -> Decoding:
    """The time that so many steps take.

    var = steps prompts ((1 + r)/(1 - r) - 2 r (1 - r^steps)/((1 - r)^2 steps)) + load 2 (y - 1 + exp(-y))/forgets^2 + late,
    r = ``again``, y = ``forgets`` steps. Exponentials are replaced by ratios of polynomials within 3 %.
    """
    y, x = noise.forgets * steps, (1 - noise.again) * (steps - 1)
    settled = (1 + y / 6) / (1 + y * (0.5 + y / 12))  # 2 (y - 1 + exp(-y)) / y^2
    alike = (1 + 0.25 * x) / (1 + x * (0.75 + 0.25 * x))  # (1 - exp(-x)) / x
    free = (1 + noise.again) / (1 - noise.again)
    correlated = free - 2 * noise.again / (1 - noise.again) * alike
    bare, met = noise.bare * steps, -np.expm1(-noise.first - noise.each * (steps - 1)) + 1e-9
    # Of the prompts that came late, short answers do not meet those that come in turn, nor more than their steps hold.
    part = -np.expm1(steps * np.log(noise.busy))
    part = part / (1 + noise.late * part / np.maximum(noise.room * steps, 1e-30))
    added = ((noise.mean - noise.bare) * steps + noise.late * part) / met
    load = steps * steps * settled * noise.load
    own, both = steps * noise.prompts * correlated, load * noise.shared
    square = part * part
    var = own + both + noise.late_var * square
    grown, seldom = 1 + both / (own + 1e-30), correlated / free
    third = steps * noise.prompts_third * seldom * seldom * grown * np.sqrt(grown) + noise.late_third * square * part
    # Those that meet no prompt have nothing added: moments of the others.
    rest = 1 - met
    spread = np.maximum(var / met - rest * added * added, 0.01 * added * added)
    third = third / met - 3 * rest * added * spread - rest * (1 - 2 * met) * added**3
    root = steps * np.sqrt(settled)
    bare_var, bare_third = load - both + (1e-6 * bare) ** 2, root * root * root * noise.load_third
    return Decoding(bare + met * added, bare, bare_var, bare_third, met, added, spread, np.maximum(third, 0.0))
