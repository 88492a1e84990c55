"""The posterior density of a model whose group effects are sampled, compiled once for all models.

As in `hmlm.likelihoods.kernel`, everything that a model brings is numbers in one flat buffer. The
sampler's coordinates are, in this order: for every linear predictor its whitened population
coefficients; for every block of group effects its sds and correlations; the family parameters that
are one number; the cutpoints of an ordinal outcome, the first and the logarithms of the gaps; the
effects of every block, see `hmlm.likelihoods.effect_map_kernel`.
"""

from __future__ import annotations

from math import exp

import numba as nb
import numpy as np

from hmlm.likelihoods.cutpoint_kernel import cutpoints_forward, cutpoints_pull
from hmlm.likelihoods.effect_map_kernel import (
    BLOCK_ROW,
    effects_backward,
    effects_forward,
    roots_size,
)
from hmlm.likelihoods.family_kernel import likelihood_rows, needs_no_parameters
from hmlm.likelihoods.kernel import correlation_factor, correlation_gradient
from hmlm.likelihoods.predictor_kernel import (
    add_effects,
    population_part,
    population_pull,
    pull_effects,
)
from hmlm.likelihoods.prior_kernel import prior_logp, scale_from
from hmlm.likelihoods.table_kernel import table_likelihood

HEADER = 24
PREDICTOR_ROW = 10
SCALAR_ROW = 6
# Header: 0 length, 1 coordinates, 2 family, 3 link, 4 rows, 5 predictors, 6 blocks, 7 scalars,
# 8 cutpoints, then places of: 9 y, 10 n, 11 w, 12 m, 13 predictor table, 14 block table, 15 scalar
# table, 16 prior of the cutpoints; 17 first coordinate of the cutpoints; 18 place of what their
# prior adds by the coordinates of beta; 19 constant; 20 place of a table of counts or -1;
# 21 effects, 22 entries of all L, 23 sds.
# Predictor: 0 p, 1 first coordinate, 2 patterns, 3 place of the columns, 4 of the constant part,
# 5 of the rows' patterns or -1, 6 of priors, 7 of their arguments (u0, P), 8 parameter (0 the mean,
# 1 and 2 those of the family, categories from 10 on), 9 link of a parameter (0 log, 1 logit).
# Scalar: 0 to 3 prior, 4 parameter, 5 coordinate.


@nb.njit(nogil=True, error_model="numpy")
def covariance_factor(x, b, t, L, Lc, sds, dsds, g):  # type: ignore[no-untyped-def]
    """Fill L = diag(sds) Lc of one block; return the log prior density with Jacobian."""
    q = int(b[t + 1])
    lp = 0.0
    if b[t + 19] == 1.0:
        for a in range(q):
            L[a, a] = b[int(b[t + 20]) + a]
        return lp
    at, x_at = int(b[t + 4]), int(b[t + 5])
    for a in range(q):
        s, ds, jac, djac = scale_from(b[at], b[at + 1], b[at + 2], b[at + 4], x[x_at + a])
        value, slope = prior_logp(b[at], b[at + 1], b[at + 2], b[at + 3], abs(s))
        lp += value + jac
        g[x_at + a] += (slope if s >= 0.0 else -slope) * ds + djac
        sds[a] = s
        dsds[a] = ds
        at += 5
    z_at, start = x_at + q, 0
    for part in range(int(b[t + 6])):
        width = int(b[int(b[t + 7]) + part])
        lp += correlation_factor(x, z_at, start, width, b[t + 8], Lc)
        z_at += width * (width - 1) // 2
        start += width
    for d in range(q):
        for c in range(d + 1):
            L[d, c] = sds[d] * Lc[d, c]
    return lp


@nb.njit(nogil=True, error_model="numpy")
def covariance_pull(x, b, t, GL, Lc, sds, dsds, g):  # type: ignore[no-untyped-def]
    """Turn the derivative by L, which is overwritten, into that by sds and correlations."""
    q = int(b[t + 1])
    if b[t + 19] == 1.0:
        return
    x_at = int(b[t + 5])
    for d in range(q):
        acc = 0.0
        for c in range(d + 1):
            acc += GL[d, c] * Lc[d, c]
            GL[d, c] *= sds[d]
        g[x_at + d] += acc * dsds[d]
    z_at, start = x_at + q, 0
    for part in range(int(b[t + 6])):
        width = int(b[int(b[t + 7]) + part])
        correlation_gradient(x, z_at, start, width, b[t + 8], Lc, GL, g)
        z_at += width * (width - 1) // 2
        start += width


@nb.njit(nogil=True, error_model="numpy")
def population_priors(b, t, x, g):  # type: ignore[no-untyped-def]
    """Return the log prior density of one predictor's coefficients, on u = u0 + P x."""
    p, first, at, u_at = int(b[t]), int(b[t + 1]), int(b[t + 6]), int(b[t + 7])
    P = b[u_at + p : u_at + p + p * p].reshape((p, p))
    lp = 0.0
    for k in range(p):
        u = b[u_at + k]
        for i in range(p):
            u += P[k, i] * x[first + i]
        value, slope = prior_logp(b[at], b[at + 1], b[at + 2], b[at + 3], u)
        lp += value
        for i in range(p):
            g[first + i] += slope * P[k, i]
        at += 4
    return lp


@nb.njit(nogil=True, error_model="numpy")
def from_link(link, eta, value):  # type: ignore[no-untyped-def]
    """Fill a family parameter of every row from its linear predictor."""
    for i in range(eta.shape[0]):
        if link == 0:
            value[i] = exp(eta[i])
        else:
            t = exp(-abs(eta[i]))
            value[i] = 1.0 / (1.0 + t) if eta[i] > 0.0 else t / (1.0 + t)


@nb.njit(nogil=True, error_model="numpy")
def through_link(link, value, d):  # type: ignore[no-untyped-def]
    """Turn the derivative by a family parameter into that by its linear predictor."""
    for i in range(value.shape[0]):
        d[i] *= value[i] if link == 0 else value[i] * (1.0 - value[i])


@nb.njit(nogil=True, error_model="numpy")
def linear_predictors(b, x, effects, eta):  # type: ignore[no-untyped-def]
    """Fill the linear predictors of every row, shape (predictors, rows)."""
    N, R = int(b[4]), int(b[5])
    for r in range(R):
        t = int(b[13]) + PREDICTOR_ROW * r
        p, C, at = int(b[t]), int(b[t + 2]), int(b[t + 5])
        columns = b[int(b[t + 3]) : int(b[t + 3]) + p * C].reshape((p, C))
        constant = b[int(b[t + 4]) : int(b[t + 4]) + C]
        own = x[int(b[t + 1]) : int(b[t + 1]) + p]
        if at < 0:
            population_part(columns, constant, own, eta[r])
        else:
            part = np.empty(C)
            population_part(columns, constant, own, part)
            for i in range(N):
                eta[r, i] = part[int(b[at + i])]
    for k in range(int(b[6])):
        t = int(b[14]) + BLOCK_ROW * k
        add_effects(b, t, N, effects, eta[int(b[t])])


@nb.njit(nogil=True, error_model="numpy")
def all_effects(b, x, Ls, Lcs, sds, dsds, effects, R, V, U, g):  # type: ignore[no-untyped-def]
    """Fill covariance factors and effects of all blocks; return their log prior density.

    R, V and U keep what the way back needs.
    """
    u_at = 0
    lp = 0.0
    for k in range(int(b[6])):
        t = int(b[14]) + BLOCK_ROW * k
        q, l_at, s_at = int(b[t + 1]), int(b[t + 24]), int(b[t + 25])
        L = Ls[l_at : l_at + q * q].reshape((q, q))
        Lc = Lcs[l_at : l_at + q * q].reshape((q, q))
        lp += covariance_factor(x, b, t, L, Lc, sds[s_at : s_at + q], dsds[s_at : s_at + q], g)
        p, x_at = _place_of_beta(b, t)
        J, first = int(b[t + 2]), int(b[t + 22])
        own = slice(first, first + J * q)
        size = J * roots_size(q)
        roots = U[u_at : u_at + size]
        lp += effects_forward(b, t, x, p, x_at, L, effects, R[own], V[own], roots)
        u_at += size
    return lp


@nb.njit(nogil=True, error_model="numpy")
def all_roots(b):  # type: ignore[no-untyped-def]
    """Return how many numbers of U all blocks keep."""
    total = 0
    for k in range(int(b[6])):
        t = int(b[14]) + BLOCK_ROW * k
        total += int(b[t + 2]) * roots_size(int(b[t + 1]))
    return total


@nb.njit(nogil=True, error_model="numpy")
def _place_of_beta(b, t):  # type: ignore[no-untyped-def]
    """Return length and place of the coordinates of beta that go with a block."""
    predictor = int(b[13]) + PREDICTOR_ROW * int(b[t])
    return int(b[predictor]), int(b[predictor + 1])


@nb.njit(nogil=True, error_model="numpy")
def fill_parameters(b, x, eta, p1, p2, g):  # type: ignore[no-untyped-def]
    """Fill both family parameters of every row; return the log prior density of the scalars."""
    lp = 0.0
    for k in range(int(b[7])):
        t = int(b[15]) + SCALAR_ROW * k
        c = int(b[t + 5])
        s, ds, jac, djac = scale_from(b[t], b[t + 1], b[t + 2], 0.0, x[c])
        value, slope = prior_logp(b[t], b[t + 1], b[t + 2], b[t + 3], s)
        lp += value + jac
        g[c] += slope * ds + djac
        if b[t + 4] == 1.0:
            p1[:] = s
        else:
            p2[:] = s
    for r in range(1, int(b[5])):
        t = int(b[13]) + PREDICTOR_ROW * r
        if b[t + 8] == 1.0:
            from_link(b[t + 9], eta[r], p1)
        elif b[t + 8] == 2.0:
            from_link(b[t + 9], eta[r], p2)
    return lp


@nb.njit(nogil=True, error_model="numpy")
def rows_likelihood(b, eta, p1, p2, cuts, d, d1, d2, d_cuts):  # type: ignore[no-untyped-def]
    """Return the log likelihood of all rows and fill its derivatives."""
    N = int(b[4])
    y, n = b[int(b[9]) : int(b[9]) + N], b[int(b[10]) : int(b[10]) + N]
    w, m = b[int(b[11]) : int(b[11]) + N], b[int(b[12]) : int(b[12]) + N]
    family, link = int(b[2]), int(b[3])
    return likelihood_rows(family, link, y, n, w, m, eta, p1, p2, cuts, d, d1, d2, d_cuts)


@nb.njit(nogil=True, error_model="numpy")
def glmm_density(x, b, g):  # type: ignore[no-untyped-def]
    """Return the log posterior at the sampler's coordinates and fill its gradient.

    Parameters
    ----------
    x : ndarray, shape (dim,)
        Coordinates.
    b : ndarray
        The model's buffer; see `hmlm.likelihoods.glmm_pack.pack_rows`.
    g : ndarray, shape (dim,)
        Filled with the gradient.

    Returns
    -------
    float
        The log density, including the log Jacobian of the transformation.
    """
    n_effects = int(b[21])
    g[:] = 0.0
    effects, slope = np.empty(n_effects), np.zeros(n_effects)
    size, width = int(b[22]), int(b[23])
    Ls, Lcs, GLs = np.zeros(size), np.zeros(size), np.zeros(size)
    sds, dsds = np.ones(width), np.zeros(width)
    R, V, U = np.empty(n_effects), np.empty(n_effects), np.empty(all_roots(b))
    lp = b[19] + all_effects(b, x, Ls, Lcs, sds, dsds, effects, R, V, U, g)
    for r in range(int(b[5])):
        lp += population_priors(b, int(b[13]) + PREDICTOR_ROW * r, x, g)
    if b[20] >= 0.0:
        lp += table_part(b, x, effects, slope, g)
    else:
        lp += rows_part(b, x, effects, slope, g)
    u_at = U.shape[0]
    for k in range(int(b[6]) - 1, -1, -1):
        t = int(b[14]) + BLOCK_ROW * k
        q, l_at, s_at = int(b[t + 1]), int(b[t + 24]), int(b[t + 25])
        L = Ls[l_at : l_at + q * q].reshape((q, q))
        GL = GLs[l_at : l_at + q * q].reshape((q, q))
        p, x_at = _place_of_beta(b, t)
        own = slice(int(b[t + 22]), int(b[t + 22]) + int(b[t + 2]) * q)
        after = u_at
        u_at -= int(b[t + 2]) * roots_size(q)
        effects_backward(b, t, p, x_at, L, R[own], V[own], U[u_at:after], slope, GL, g)
        Lc = Lcs[l_at : l_at + q * q].reshape((q, q))
        covariance_pull(x, b, t, GL, Lc, sds[s_at : s_at + q], dsds[s_at : s_at + q], g)
    return lp


@nb.njit(nogil=True, error_model="numpy")
def table_part(b, x, effects, slope, g):  # type: ignore[no-untyped-def]
    """Return the log likelihood of a table of Poisson counts; fill its derivatives."""
    t = int(b[13])
    p, C, first = int(b[t]), int(b[t + 2]), int(b[t + 1])
    columns = b[int(b[t + 3]) : int(b[t + 3]) + p * C].reshape((p, C))
    eta, d = np.empty(C), np.empty(C)
    population_part(columns, b[int(b[t + 4]) : int(b[t + 4]) + C], x[first : first + p], eta)
    total = table_likelihood(b, int(b[20]), effects, eta, slope, d)
    population_pull(columns, d, g[first : first + p])
    return total


@nb.njit(nogil=True, error_model="numpy")
def rows_part(b, x, effects, slope, g):  # type: ignore[no-untyped-def]
    """Return the log likelihood of the rows with the priors of family parameters and cutpoints.

    Fills `slope` with the derivative by the effects.
    """
    N, R, K = int(b[4]), int(b[5]), int(b[8])
    eta, d = np.empty((R, N)), np.empty((R, N))
    linear_predictors(b, x, effects, eta)
    # Empty where the loop over rows does not read them.
    length = 0 if needs_no_parameters(int(b[2]), int(b[3])) else N
    p1, d1 = np.ones(length), np.empty(length)
    p2, d2 = np.ones(length), np.empty(length)
    lp = fill_parameters(b, x, eta, p1, p2, g)
    cuts, d_cuts = np.empty(K), np.zeros(K)
    lp += cutpoints_forward(b, x, cuts, g)
    lp += rows_likelihood(b, eta, p1, p2, cuts, d, d1, d2, d_cuts)
    cutpoints_pull(b, x, d_cuts, g)
    for k in range(int(b[7])):
        t = int(b[15]) + SCALAR_ROW * k
        c = int(b[t + 5])
        ds = scale_from(b[t], b[t + 1], b[t + 2], 0.0, x[c])[1]
        g[c] += ds * (d1.sum() if b[t + 4] == 1.0 else d2.sum())
    for r in range(R):
        t = int(b[13]) + PREDICTOR_ROW * r
        if b[t + 8] == 1.0:
            d[r] = d1
            through_link(b[t + 9], p1, d[r])
        elif b[t + 8] == 2.0:
            d[r] = d2
            through_link(b[t + 9], p2, d[r])
        p, C, at = int(b[t]), int(b[t + 2]), int(b[t + 5])
        columns = b[int(b[t + 3]) : int(b[t + 3]) + p * C].reshape((p, C))
        own = g[int(b[t + 1]) : int(b[t + 1]) + p]
        if at < 0:
            population_pull(columns, d[r], own)
        else:
            part = np.zeros(C)
            for i in range(N):
                part[int(b[at + i])] += d[r, i]
            population_pull(columns, part, own)
    for k in range(int(b[6])):
        t = int(b[14]) + BLOCK_ROW * k
        pull_effects(b, t, N, d[int(b[t])], slope)
    return lp


@nb.njit(nogil=True, error_model="numpy")
def draw_all_effects(b, X, out):  # type: ignore[no-untyped-def]
    """Fill the effects of all blocks for every draw of the coordinates."""
    size, width = int(b[22]), int(b[23])
    g = np.empty(int(b[1]))
    R, V, U = np.empty(int(b[21])), np.empty(int(b[21])), np.empty(all_roots(b))
    for s in range(X.shape[0]):
        Ls, Lcs = np.zeros(size), np.zeros(size)
        sds, dsds = np.ones(width), np.zeros(width)
        all_effects(b, X[s], Ls, Lcs, sds, dsds, out[s], R, V, U, g)
