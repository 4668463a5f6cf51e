"""A plan's hours as triggers of KEDA: one span of the day or week for each stretch of equal replicas above the least."""

from __future__ import annotations

from collections.abc import Sequence

from planner.deploy.manifest import Document
from planner.deploy.release import DAY, Release, Served

WEEK = 7 * DAY
MINUTES = 60


def is_calendar(release: Release) -> bool:
    """Whether the plan's periods are the hours of one day or of one week, which a calendar can repeat."""
    return all(p.hours == 1 for p in release.plan.by_period) and len(release.plan.by_period) in (DAY, WEEK)


def stretches(counts: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """(first hour, hour after the last, replicas) of each stretch of equal counts above the least, around the end; the last may end beyond the hours."""
    least, hours = min(counts), len(counts)
    begins = [h for h in range(hours) if counts[h] != counts[h - 1]]
    ends = [*begins[1:], begins[0] + hours] if begins else []
    return [(b, e, counts[b]) for b, e in zip(begins, ends) if counts[b] > least]


def triggers(served: Served, release: Release) -> list[Document]:
    """KEDA's cron triggers: the highest of those that are on counts. Each begins the plan's start-up lead earlier, when its instances are started."""
    lead = round(release.plan.scenario.policy.startup_lead / 60)
    hours = len(served.replicas)
    return [
        {
            "type": "cron",
            "metadata": {
                "timezone": release.settings.timezone,
                "start": _cron(begin * MINUTES - min(lead, hours * MINUTES - (end - begin) * MINUTES - 1), hours),
                "end": _cron(end * MINUTES, hours),
                "desiredReplicas": str(count),
            },
        }
        for begin, end, count in stretches(served.replicas)
    ]


def _cron(minute: int, hours: int) -> str:
    """Minute and hour of every day, or of one day of the week: a plan's week begins on Monday."""
    minute %= hours * MINUTES
    day = "*" if hours == DAY else str((minute // (DAY * MINUTES) + 1) % 7)
    return f"{minute % MINUTES} {minute // MINUTES % DAY} * * {day}"


def in_words(counts: Sequence[object]) -> str:
    """Replicas, or whatever else, by the hour, stretches together: "0:00 2, 10:00 3"."""
    begins = [h for h in range(len(counts)) if h == 0 or counts[h] != counts[h - 1]]
    return ", ".join(f"{f'day {h // DAY + 1} ' if len(counts) > DAY else ''}{h % DAY}:00 {counts[h]}" for h in begins)
