"""How much lengths vary where nobody says: as in a chat trace, and less where prompts are so long that callers cannot send much longer ones.

Cheap to import, for every command does. The evidence for the rule stands in docs/demand.md.
"""

from __future__ import annotations

from math import expm1, log, sqrt

# Spread of prompt and answer lengths in the Azure 2023 conversation trace (19,366 requests): standard deviation / mean.
CHAT_INPUT_CV, CHAT_OUTPUT_CV = 0.96, 0.77
LONGEST_PROMPT = 131_072.0  # tokens; the longest prompts of the Mooncake conversation trace (126,195) end at this window
LONGEST_ANSWER = 32_768.0  # tokens; the longest answers of ServeGen's and MLPerf's DeepSeek-R1
LEAST_CV = 0.2  # prompts above 64k tokens still vary by 0.21 (Mooncake)
WITHIN = 2.326  # standard normal quantile of 99 %: the share of lengths that stays below the longest


def default_cv(mean: float, usual: float, longest: float) -> float:
    """The spread ``usual``, narrowed until 99 % of lognormal lengths of this mean are at most ``longest`` tokens, but never below ``LEAST_CV``.

    ln(longest) = ln(mean) - σ²/2 + z·σ, solved for the smaller σ; CV² = exp(σ²) - 1.
    """
    room = log(longest / mean) if longest > mean else 0.0
    if room >= WITHIN**2 / 2:
        return usual
    sigma = WITHIN - sqrt(WITHIN**2 - 2 * room)
    return float(f"{min(usual, max(sqrt(expm1(sigma * sigma)), LEAST_CV)):.3g}")
