"""How often a clean net alarms: the draws behind an envelope, and what is beyond chance.

A value's inherited error is a sum of the roundings of every operation before it, Σ J·ε, and a
draw of noise moves the value by Σ J·ξ, with the same derivatives J and normal ξ of σ = a quarter of
the bound that the local comparison holds each ε against. Roundings have a mean of 0, and both
frameworks' are at most σ/2 in the root mean square (1.3 u·s where the bound is 16), so that the
error is at most S·N/2, with S the deviation of the moves and N normal. It alarms where it is more
than 4 envelopes, and the envelope is at least the largest of the value's own moves: with n draws,
and P(|N| < x) ≤ x·√(2/π),

    P(alarm) ≤ E[(c·|N|/g)ⁿ] = (c/g)ⁿ·(n − 1)!!,   c = √(2/π)·(1/2)/4 ≈ 0.1,

where g is how many times its bound the error is. For n = 32 and g = 1 that is 2·10⁻¹⁵: below one in
a million nets of 5·10⁸ values, however unequal these are. (Where several values of an array move
alike, the largest of their moves is far larger than each one's own, and the odds are far better.)

Fewer draws do where the error is within the bound, as it nearly always is, or beyond chance
already: draws are doubled only while an error is in between. Half of the draws move each value by
itself, half a whole channel, and each half is counted alone.

The scale of an operation that no formula knows is measured likewise: s = |y| + 2·M, with M the
largest of n moves, each Σ a·ξ: every number that is rounded on the way is off by u·ξ of itself, and
a is what that does to the result. An error of ρ·u·S·N, with S² = Σ a² and N normal, alarms only
where it is more than 2·f·u·M, for a bound of f u·s, so that as above

    P(alarm) ≤ (c·ρ/(g·f))ⁿ·(n − 1)!!,   c = √(2/π)/2 ≈ 0.4.

The result's own rounding is within |y|. What is rounded before it is off by at most u where it is
rounded correctly, and 2u in the libraries that compute exp, erf and the like: ρ ≤ 2, and 3 is
taken. 8 draws decide where nothing alarms, or an error is 500 times its bound, else 32. The first 8
are pairs of opposite signs, which count once: n = 4 and 28. For f = 64 that is 9·10⁻³⁵, for 16
6·10⁻¹⁸, and f may not be below 13.1. A sum of k products, added one after the other, is off by
ρ = √(k/12) in the root mean square, since noise sees √(2k): with f = 64, ρ may be 14 and k 2,300.
Longer sums need a formula, as the weights of a convolution have and those of a norm over maps, or a
bound that grows with k, as that of a layer norm does.
"""

from __future__ import annotations

import math

FIRST_DRAWS = 2
MOST_DRAWS = 64
PER_VALUE = 2e-15  # of a false alarm, for each value that is compared

# Of a scale that is measured
FIRST_LOCAL_DRAWS, MOST_LOCAL_DRAWS = 8, 32
FEWEST_LOCAL_DRAWS = 2  # where what is compared is far apart, and the scale only says how far
LOCAL_CERTAIN = 500.0  # times its bound, a row that failed after the first draws stays so

_PART = math.sqrt(2 / math.pi) * 0.5 / 4
_LOCAL_PART = 3 * math.sqrt(2 / math.pi) / 2


def alarm_probability(draws: int, times: float = 1.0) -> float:
    """At most how often a clean value is `times` its bound, with `draws` of each kind of noise.

    Examples:
        >>> alarm_probability(32) < 2e-15 < alarm_probability(16)
        True
    """
    return _normal_moment(_PART / times, draws)


def local_alarm_probability(factor: float, draws: int, times: float = 1.0) -> float:
    """At most how often a clean value is `times` its bound of `factor` u·s, s measured by `draws`.

    Examples:
        >>> local_alarm_probability(14, 32) < 2e-15 < local_alarm_probability(13, 32)
        True
    """
    alone = draws - FIRST_LOCAL_DRAWS // 2  # the first come in pairs, which count once
    return _normal_moment(_LOCAL_PART / (factor * times), alone)


def _normal_moment(part: float, draws: int) -> float:
    """E (part·|N|)ⁿ, 1 at the most."""
    # E|N|ⁿ = 2^(n/2)·Γ((n + 1)/2)/√π
    moment = draws / 2 * math.log(2) + math.lgamma((draws + 1) / 2) - math.lgamma(0.5)
    return math.exp(min(draws * math.log(part) + moment, 0.0))


def beyond_chance(draws: int) -> float:
    """How many times its bound an error must be to be none of a clean net, after so many draws.

    `draws` counts both kinds of noise.

    Examples:
        >>> [round(beyond_chance(draws), 1) for draws in (16, 32, 64)]
        [12.3, 2.0, 1.0]
    """
    if draws >= MOST_DRAWS:
        return 1.0
    each = draws // 2
    return max(1.0, (alarm_probability(each, 1.0) / PER_VALUE) ** (1 / each))
