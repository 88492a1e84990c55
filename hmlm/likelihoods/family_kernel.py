"""The log density of one row of every family, with its derivatives, in machine code.

Family parameters come in on their natural scale, in the order of ``Family.parameters``. Rows that
were merged carry their number `m`, or (binomial, Poisson) the sums that are all the density needs.
"""

from __future__ import annotations

from math import exp, expm1, lgamma, log, log1p, pi

import numba as nb
import numpy as np

from hmlm.likelihoods.special_kernel import (
    LOG,
    LOG_2PI,
    LOGIT,
    digamma,
    log_interval,
    log_odds_parts,
    log_rising,
    mean_of,
)
from hmlm.likelihoods.vector_kernel import fill_exp, fill_odds

CODES = {
    "gaussian": 0,
    "student-t": 1,
    "bernoulli": 2,
    "binomial": 2,
    "beta-binomial": 3,
    "poisson": 4,
    "negative-binomial": 5,
    "gamma": 6,
    "lognormal": 7,
    "beta": 8,
    "ordinal": 9,
    "categorical": 10,
    "zero-inflated-poisson": 11,
    "zero-inflated-negative-binomial": 12,
    "hurdle-poisson": 13,
    "hurdle-negative-binomial": 14,
}
BINOMIAL, POISSON, ORDINAL, CATEGORICAL = 2, 4, 9, 10


@nb.njit(nogil=True, error_model="numpy")
def normal_row(y, w, mu, sigma):  # type: ignore[no-untyped-def]
    """Return N(mu, sigma^2 / w): log density, derivatives by mu and sigma."""
    z = (y - mu) / sigma
    value = -0.5 * LOG_2PI - log(sigma) + 0.5 * log(w) - 0.5 * w * z * z
    return value, w * z / sigma, (w * z * z - 1.0) / sigma


@nb.njit(nogil=True, error_model="numpy")
def student_row(y, mu, sigma, nu):  # type: ignore[no-untyped-def]
    """Return Student's t: log density, derivatives by mu, sigma and nu."""
    z = (y - mu) / sigma
    r = log1p(z * z / nu)
    value = lgamma(0.5 * (nu + 1.0)) - lgamma(0.5 * nu) - 0.5 * log(nu * pi) - log(sigma)
    value -= 0.5 * (nu + 1.0) * r
    pull = (nu + 1.0) * z / (nu + z * z)
    d_nu = digamma(0.5 * (nu + 1.0)) - digamma(0.5 * nu) - 1.0 / nu - r + pull * z / nu
    return value, pull / sigma, (pull * z - 1.0) / sigma, 0.5 * d_nu


@nb.njit(nogil=True, error_model="numpy")
def beta_binomial_row(y, n, p, q, phi):  # type: ignore[no-untyped-def]
    """Return the beta-binomial: log density, derivatives by p (with q = 1 - p) and phi."""
    a, b = p * phi, q * phi
    value = lgamma(n + 1.0) - lgamma(y + 1.0) - lgamma(n - y + 1.0)
    up, da = log_rising(a, y)
    down, db = log_rising(b, n - y)
    whole, d_whole = log_rising(phi, n)
    return value + up + down - whole, phi * (da - db), p * da + q * db - d_whole


@nb.njit(nogil=True, error_model="numpy")
def negative_binomial_row(y, mu, log_mu, alpha):  # type: ignore[no-untyped-def]
    """Return the negative binomial: log density, derivatives by log mu and alpha."""
    spread = log1p(mu / alpha)
    value, d_alpha = log_rising(alpha, y)
    value += -lgamma(y + 1.0) - alpha * spread + y * (log_mu - log(alpha) - spread)
    slope = (y - mu) * alpha / (alpha + mu)
    d_alpha += (mu - y) / (alpha + mu) - spread
    return value, slope, d_alpha


@nb.njit(nogil=True, error_model="numpy")
def beta_row(y, p, q, phi):  # type: ignore[no-untyped-def]
    """Return the beta density: log density, derivatives by p (with q = 1 - p) and phi."""
    a, b = p * phi, q * phi
    up, down = log(y), log1p(-y)
    value = lgamma(phi) - lgamma(a) - lgamma(b) + (a - 1.0) * up + (b - 1.0) * down
    da, db = up - digamma(a), down - digamma(b)
    return value, phi * (da - db), digamma(phi) + p * da + q * db


@nb.njit(nogil=True, error_model="numpy")
def count_row(family, y, eta, alpha):  # type: ignore[no-untyped-def]
    """Return Poisson or negative binomial under a log link, by eta and alpha."""
    mu = exp(eta)
    if family == 11 or family == 13:
        return y * eta - mu - lgamma(y + 1.0), y - mu, 0.0
    return negative_binomial_row(y, mu, eta, alpha)


@nb.njit(nogil=True, error_model="numpy")
def excess_row(family, y, eta, p1, p2):  # type: ignore[no-untyped-def]
    """Return a zero-inflated or hurdle count: derivatives by eta and both parameters."""
    poisson = family == 11 or family == 13
    share = p1 if poisson else p2
    value, d_eta, d_alpha = count_row(family, y, eta, p1)
    if family < 13:
        if y > 0.0:
            value += log1p(-share)
            d_share = -1.0 / (1.0 - share)
        else:
            f = exp(value)
            total = share + (1.0 - share) * f
            weight = (1.0 - share) * f / total
            value = log(total)
            d_eta *= weight
            d_alpha *= weight
            d_share = (1.0 - f) / total
    elif y > 0.0:
        zero, z_eta, z_alpha = count_row(family, 0.0, eta, p1)
        rest = -expm1(zero)
        odds = exp(zero) / rest
        value += log1p(-share) - log(rest)
        d_eta += odds * z_eta
        d_alpha += odds * z_alpha
        d_share = -1.0 / (1.0 - share)
    else:
        value, d_eta, d_alpha, d_share = log(share), 0.0, 0.0, 1.0 / share
    if poisson:
        return value, d_eta, d_share, 0.0
    return value, d_eta, d_alpha, d_share


@nb.njit(nogil=True, error_model="numpy")
def family_row(family, link, y, n, w, eta, p1, p2):  # type: ignore[no-untyped-def]
    """Return the log density of one row, and its derivatives by eta and both parameters."""
    if family == 2:
        up, down, d_up, d_down = log_odds_parts(link, eta)
        value = d_eta = 0.0
        if y > 0.0:
            value += y * up
            d_eta += y * d_up
        if n > y:
            value += (n - y) * down
            d_eta += (n - y) * d_down
        return value, d_eta, 0.0, 0.0
    if family == 3 or family == 8:
        up, down, d_up, _ = log_odds_parts(link, eta)
        p, q = exp(up), exp(down)
        if family == 3:
            value, d_p, d_phi = beta_binomial_row(y, n, p, q, p1)
        else:
            value, d_p, d_phi = beta_row(y, p, q, p1)
        return value, d_p * d_up * p, d_phi, 0.0
    if family == 7:
        up = log(y)
        value, d_eta, d_sigma = normal_row(up, 1.0, eta, p1)
        return value - up, d_eta, d_sigma, 0.0
    if family >= 11:
        return excess_row(family, y, eta, p1, p2)
    if family == 0 or family == 1:
        mu, d_mu = eta, 1.0
        if link != 0:
            mu, _, d_mu = mean_of(link, eta)
        if family == 0:
            value, d, d_sigma = normal_row(y, w, mu, p1)
            return value, d * d_mu, d_sigma, 0.0
        value, d, d_sigma, d_nu = student_row(y, mu, p1, p2)
        return value, d * d_mu, d_sigma, d_nu
    mu, log_mu, d_mu = mean_of(link, eta)
    if family == 4:
        return y * log_mu - n * mu, (y / mu - n) * d_mu, 0.0, 0.0
    if family == 5:
        value, d_log, d_alpha = negative_binomial_row(y, mu, log_mu, p1)
        return value, d_log * d_mu / mu, d_alpha, 0.0
    ratio = y / mu
    value = p1 * (log(p1) - log_mu + log(y) - ratio) - lgamma(p1) - log(y)
    d_alpha = log(p1) + 1.0 - log_mu + log(y) - ratio - digamma(p1)
    return value, p1 * (ratio - 1.0) * d_mu / mu, d_alpha, 0.0


@nb.njit(nogil=True, error_model="numpy")
def rows_of_family(family, link, y, n, w, m, eta, p1, p2, d, d1, d2):  # type: ignore[no-untyped-def]
    """Return the log likelihood of all rows; fill its derivatives by eta and both parameters."""
    total = 0.0
    for i in range(y.shape[0]):
        value, d[i], a, c = family_row(family, link, y[i], n[i], w[i], eta[i], p1[i], p2[i])
        total += m[i] * value
        d[i] *= m[i]
        d1[i] = m[i] * a
        d2[i] = m[i] * c
    return total


@nb.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _logit_sums(y, n, eta, t, logs, d):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(y.shape[0]):
        e = eta[i]
        r = 1.0 / (1.0 + t[i])
        total += y[i] * e - n[i] * (max(e, 0.0) + logs[i])
        d[i] = y[i] - n[i] * (r if e > 0.0 else t[i] * r)
    return total


@nb.njit(nogil=True, error_model="numpy")
def logit_rows(y, n, eta, d):  # type: ignore[no-untyped-def]
    """Do what `rows_of_family` does for counts out of trials under a logit link."""
    t, logs = np.empty(len(eta)), np.empty(len(eta))
    fill_odds(eta, t, logs)
    return _logit_sums(y, n, eta, t, logs, d)


@nb.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _log_sums(y, n, eta, d):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(y.shape[0]):
        mu = n[i] * d[i]
        total += y[i] * eta[i] - mu
        d[i] = y[i] - mu
    return total


@nb.njit(nogil=True, error_model="numpy")
def log_rows(y, n, eta, d):  # type: ignore[no-untyped-def]
    """Do what `rows_of_family` does for Poisson counts under a log link."""
    fill_exp(eta, d)
    return _log_sums(y, n, eta, d)


@nb.njit(nogil=True, error_model="numpy")
def ordinal_rows(link, y, m, eta, cuts, d, d_cuts):  # type: ignore[no-untyped-def]
    """Return the log likelihood of ordered categories; P(Y <= k) = F(cuts[k] - eta)."""
    last = cuts.shape[0]
    total = 0.0
    for i in range(y.shape[0]):
        k = int(y[i])
        if k == 0:
            value, _, slope, _ = log_odds_parts(link, cuts[0] - eta[i])
            d_cuts[0] += m[i] * slope
            d[i] = -m[i] * slope
        elif k == last:
            _, value, _, slope = log_odds_parts(link, cuts[last - 1] - eta[i])
            d_cuts[last - 1] += m[i] * slope
            d[i] = -m[i] * slope
        else:
            value, up, low = log_interval(link, cuts[k] - eta[i], cuts[k - 1] - eta[i])
            d_cuts[k] += m[i] * up
            d_cuts[k - 1] += m[i] * low
            d[i] = -m[i] * (up + low)
        total += m[i] * value
    return total


@nb.njit(nogil=True, error_model="numpy")
def categorical_rows(y, m, eta, d):  # type: ignore[no-untyped-def]
    """Return the log likelihood of categories: softmax of zero and the rows of eta."""
    total = 0.0
    K = eta.shape[0]
    for i in range(y.shape[0]):
        high = 0.0
        for k in range(K):
            high = max(high, eta[k, i])
        acc = exp(-high)
        for k in range(K):
            d[k, i] = exp(eta[k, i] - high)
            acc += d[k, i]
        chosen = int(y[i])
        total -= m[i] * (high + log(acc))
        for k in range(K):
            d[k, i] *= -m[i] / acc
        if chosen > 0:
            total += m[i] * eta[chosen - 1, i]
            d[chosen - 1, i] += m[i]
    return total


@nb.njit(nogil=True, error_model="numpy")
def needs_no_parameters(family, link):  # type: ignore[no-untyped-def]
    """Whether `likelihood_rows` leaves family parameters unread."""
    if family == BINOMIAL:
        return link == LOGIT
    if family == POISSON:
        return link == LOG
    return family == ORDINAL or family == CATEGORICAL


@nb.njit(nogil=True, error_model="numpy")
def likelihood_rows(family, link, y, n, w, m, eta, p1, p2, cuts, d, d1, d2, d_cuts):  # type: ignore[no-untyped-def]
    """Return the log likelihood of all rows, by the fastest loop that serves the family."""
    if family == BINOMIAL and link == LOGIT:
        return logit_rows(y, n, eta[0], d[0])
    if family == POISSON and link == LOG:
        return log_rows(y, n, eta[0], d[0])
    if family == ORDINAL:
        return ordinal_rows(link, y, m, eta[0], cuts, d[0], d_cuts)
    if family == CATEGORICAL:
        return categorical_rows(y, m, eta, d)
    return rows_of_family(family, link, y, n, w, m, eta[0], p1, p2, d[0], d1, d2)
