"""Links and special functions in machine code, with what their derivatives need."""

from __future__ import annotations

from math import erfc, exp, expm1, lgamma, log, log1p, pi, sqrt

import numba as nb

LOG_2PI = log(2.0 * pi)
IDENTITY, LOG, LOGIT, PROBIT, CLOGLOG, INVERSE = 0, 1, 2, 3, 4, 5
LINKS = {"identity": 0, "log": 1, "logit": 2, "probit": 3, "cloglog": 4, "inverse": 5}


@nb.njit(nogil=True, error_model="numpy")
def digamma(x):  # type: ignore[no-untyped-def]
    """Return the derivative of log gamma at x > 0: recurrence, then the asymptotic series.

    Abramowitz & Stegun (1964), 6.3.5 and 6.3.18.
    """
    shift = 0.0
    while x < 8.0:
        shift -= 1.0 / x
        x += 1.0
    r = 1.0 / (x * x)
    series = r * (1.0 / 12 - r * (1.0 / 120 - r * (1.0 / 252 - r * (1.0 / 240 - r * 5.0 / 660))))
    return shift + log(x) - 0.5 / x - series


@nb.njit(nogil=True, error_model="numpy")
def _stirling_rest(x):  # type: ignore[no-untyped-def]
    """Return what Stirling's formula leaves of log gamma, and its derivative, for large x."""
    r = 1.0 / (x * x)
    value = (1.0 / 12 - r * (1.0 / 360 - r * (1.0 / 1260 - r * (1.0 / 1680 - r / 1188)))) / x
    slope = -r * (1.0 / 12 - r * (1.0 / 120 - r * (1.0 / 252 - r * (1.0 / 240 - r / 132))))
    return value, slope


@nb.njit(nogil=True, error_model="numpy")
def log_rising(x, k):  # type: ignore[no-untyped-def]
    """Return log gamma(x + k) - log gamma(x), k >= 0, and its derivative by x.

    For large x the terms that cancel are left out: the difference of the two would be the rounding
    error of numbers of the size of x.
    """
    if k == 0.0:
        return 0.0, 0.0
    y = x + k
    if x < 16.0:
        return lgamma(y) - lgamma(x), digamma(y) - digamma(x)
    ratio = log1p(k / x)
    rest_x, slope_x = _stirling_rest(x)
    rest_y, slope_y = _stirling_rest(y)
    value = k * log(x) + (y - 0.5) * ratio - k + (rest_y - rest_x)
    return value, ratio + 0.5 * k / (x * y) + (slope_y - slope_x)


@nb.njit(nogil=True, error_model="numpy")
def log_ndtr(x):  # type: ignore[no-untyped-def]
    """Return the log of the normal distribution function and its derivative."""
    if x > 5.0:
        value = log1p(-0.5 * erfc(x / sqrt(2.0)))
    elif x > -30.0:
        value = log(0.5 * erfc(-x / sqrt(2.0)))
    else:
        r = 1.0 / (x * x)
        tail = log1p(-r * (1.0 - r * (3.0 - r * (15.0 - 105.0 * r))))
        value = -0.5 * x * x - log(-x) - 0.5 * LOG_2PI + tail
    return value, exp(-0.5 * x * x - 0.5 * LOG_2PI - value)


@nb.njit(nogil=True, error_model="numpy")
def log_odds_parts(link, eta):  # type: ignore[no-untyped-def]
    """Return log p and log(1 - p), each with its derivative by eta."""
    if link == LOGIT:
        t = exp(-abs(eta))
        s = log1p(t)
        low, high = t / (1.0 + t), 1.0 / (1.0 + t)
        if eta > 0.0:
            return -s, -eta - s, low, -high
        return eta - s, -s, high, -low
    if link == PROBIT:
        up, d_up = log_ndtr(eta)
        down, d_down = log_ndtr(-eta)
        return up, down, d_up, -d_down
    e = exp(min(eta, 700.0))
    if e < 1e-300:
        return eta, -e, 1.0, -e
    p = -expm1(-e)
    return log(p), -e, e * exp(-e) / p, -e


@nb.njit(nogil=True, error_model="numpy")
def mean_of(link, eta):  # type: ignore[no-untyped-def]
    """Return mean, its logarithm (where it is positive) and d mean / d eta."""
    if link == LOG:
        mu = exp(eta)
        return mu, eta, mu
    if link == INVERSE:
        mu = 1.0 / eta
        return mu, log(mu), -mu * mu
    return eta, log(eta), 1.0


@nb.njit(nogil=True, error_model="numpy")
def log_interval(link, upper, lower):  # type: ignore[no-untyped-def]
    """Return log(F(upper) - F(lower)) with its derivatives, F the inverse link; both are finite."""
    if link == LOGIT:
        a, _, da, _ = log_odds_parts(LOGIT, upper)
        _, b, _, db = log_odds_parts(LOGIT, lower)
        gap = upper - lower
        inner = 1.0 / expm1(gap)
        return a + b + log(-expm1(-gap)), da + inner, db - inner
    if link == PROBIT:
        flip = lower > 0.0
        high, low = (-lower, -upper) if flip else (upper, lower)
        a, da = log_ndtr(high)
        b, db = log_ndtr(low)
        rest = -expm1(b - a)
        value = a + log(rest)
        d_high, d_low = da / rest, -db * exp(b - a) / rest
        return (value, -d_low, -d_high) if flip else (value, d_high, d_low)
    e_up, e_low = exp(min(upper, 700.0)), exp(min(lower, 700.0))
    gap = e_up - e_low
    inner = 1.0 / expm1(gap)
    return -e_low + log(-expm1(-gap)), e_up * inner, -e_low - e_low * inner
