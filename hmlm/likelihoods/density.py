"""The log posterior and its gradient as machine code that a sampler can call.

`log_density` puts prior, transformation and marginal likelihood together. `logp_address` is the
same as a C function on raw pointers that returns 0, or a positive code where value or gradient are
not finite.
"""

from __future__ import annotations

import sys
from math import log
from typing import Any

import numba as nb
import numpy as np

from hmlm.likelihoods import (
    class_kernel,
    compiled,
    effect_kernel,
    kernel,
    prior_kernel,
    sampled_kernel,
    tree_kernel,
)
from hmlm.likelihoods.compiled import LOGP, as_doubles, fingerprint
from hmlm.likelihoods.effect_kernel import draw_tree_effects as _draw_tree_effects
from hmlm.likelihoods.kernel import (
    BLOCK,
    LEVEL,
    correlation_factor,
    correlation_gradient,
    separate_groups,
    shared_designs,
)
from hmlm.likelihoods.prior_kernel import prior_logp, scale_from
from hmlm.likelihoods.sampled_kernel import (
    draw_fine_effects,
    effects_from,
    effects_prior,
    fine_given_rest,
)
from hmlm.likelihoods.tree_kernel import nested_groups


@nb.njit(nogil=True, error_model="numpy")
def posterior_density(x, b, g):  # type: ignore[no-untyped-def]
    """Return the log posterior at the sampler's coordinates, to a constant, and fill its gradient.

    Parameters
    ----------
    x : ndarray, shape (dim,)
        Coordinates; see `hmlm.likelihoods.kernel`.
    b : ndarray
        The model's buffer; see `hmlm.likelihoods.posterior.pack`.
    g : ndarray, shape (dim,)
        Filled with the gradient.

    Returns
    -------
    float
        The log density, including the log Jacobian of the transformation.
    """
    n, p, n_blocks, n_levels = b[2], int(b[3]), int(b[4]), int(b[5])
    dim = int(b[13])
    m = p + 1
    g[:] = 0.0
    lp = 0.0
    # Population coefficients: priors on u = u0 + P x, likelihood on gamma = gamma0 + C x.
    at = int(b[7])
    u0 = b[at : at + p]
    P = b[at + p : at + p + p * p].reshape((p, p))
    at = int(b[6])
    for k in range(p):
        u = u0[k]
        for i in range(p):
            u += P[k, i] * x[i]
        value, slope = prior_logp(b[at], b[at + 1], b[at + 2], b[at + 3], u)
        lp += value
        for i in range(p):
            g[i] += slope * P[k, i]
        at += 4
    at = int(b[8])
    gamma0 = b[at : at + p]
    C = b[at + p : at + p + p * p].reshape((p, p))
    v = np.empty(m)
    for k in range(p):
        acc = gamma0[k]
        for i in range(p):
            acc += C[k, i] * x[i]
        v[k] = -acc
    v[p] = 1.0
    # Residual sd.
    at = int(b[12])
    estimated = b[at] >= 0.0
    sigma, dsigma, g_sigma = b[at + 1], 0.0, 0.0
    if estimated:
        sigma, dsigma, jac, djac = scale_from(b[at], b[at + 1], b[at + 2], 0.0, x[dim - 1])
        value, slope = prior_logp(b[at], b[at + 1], b[at + 2], b[at + 3], sigma)
        lp += value + jac
        g_sigma = slope
        g[dim - 1] += djac
    is2 = 1.0 / (sigma * sigma)
    # Lambda of every level, from sds and correlations on the user's scale.
    size = 0
    for ell in range(n_levels + int(b[14])):
        q = int(b[int(b[11]) + LEVEL * ell + 1])
        size += q * q
    Ls, Gs = np.zeros(size), np.zeros(size)
    q_sum = 0
    for k in range(n_blocks):
        q_sum += int(b[int(b[10]) + BLOCK * k])
    Lc = np.zeros((q_sum, q_sum))
    sds, dsds = np.empty(q_sum), np.empty(q_sum)
    first = 0
    for k in range(n_blocks):
        t = int(b[10]) + BLOCK * k
        q, copies = int(b[t]), int(b[t + 1])
        at, x_at = int(b[t + 5]), int(b[t + 6])
        for a in range(q):
            s, ds, jac, djac = scale_from(b[at], b[at + 1], b[at + 2], b[at + 4], x[x_at + a])
            value, slope = prior_logp(b[at], b[at + 1], b[at + 2], b[at + 3], abs(s))
            lp += value + jac
            g[x_at + a] += (slope if s >= 0.0 else -slope) * ds + djac
            sds[first + a] = s
            dsds[first + a] = ds
            at += 5
        z_at, start = x_at + q, first
        for part in range(int(b[t + 7])):
            width = int(b[int(b[t + 8]) + part])
            lp += correlation_factor(x, z_at, start, width, b[t + 9], Lc)
            z_at += width * (width - 1) // 2
            start += width
        Tinv = b[int(b[t + 4]) : int(b[t + 4]) + q * q].reshape((q, q))
        l_at, width = _level_place(b, int(b[t + 2]))
        L = Ls[l_at : l_at + width * width].reshape((width, width))
        for a in range(q):
            for c in range(q):
                acc = 0.0
                for d in range(c, q):
                    acc += Tinv[a, d] * sds[first + d] * Lc[first + d, first + c]
                acc /= sigma
                for copy in range(copies):
                    o = int(b[t + 3]) + copy * q
                    L[o + a, o + c] = acc
        first += q
    # Marginal likelihood.
    at = int(b[9])
    MM = b[at : at + m * m].reshape((m, m))
    Kv = np.empty(m)
    for i in range(m):
        acc = 0.0
        for k in range(m):
            acc += MM[i, k] * v[k]
        Kv[i] = acc
    t = int(b[11])
    log_det = 0.0
    n_sampled = int(b[int(b[15])]) if b[14] > 0 else 0
    effects, half = np.empty(n_sampled), np.empty(n_sampled)
    if n_levels == 1:
        J, q = int(b[t]), int(b[t + 1])
        L, G = Ls[: q * q].reshape((q, q)), Gs[: q * q].reshape((q, q))
        S = b[int(b[t + 3]) : int(b[t + 3]) + J * q * q].reshape((J, q, q))
        if b[1] == 1.0:
            n_pairs = q * (q + 1) // 2
            at = int(b[t + 4])
            pairs = b[at : at + J * n_pairs * m * m].reshape((J, n_pairs, m, m))
            counts = b[int(b[t + 5]) : int(b[t + 5]) + J]
            log_det = shared_designs(S, pairs, counts, v, is2, L, Kv, G)
        else:
            at = int(b[t + 4])
            B = b[at : at + J * q * m].reshape((J, q, m))
            if n_sampled:
                effects_from(b, x, sigma, Ls, q * q, effects)
                log_det = fine_given_rest(b, S, B, v, is2, L, effects, Kv, half, G)
            else:
                log_det = separate_groups(S, B, v, is2, L, Kv, G)
    elif n_levels > 1:
        log_det = nested_groups(b, t, n_levels, v, is2, Ls, Kv, Gs)
    Q = 0.0
    for i in range(m):
        Q += v[i] * Kv[i]
    for i in range(n_sampled):
        Q += effects[i] * half[i]
        half[i] *= -is2
    lp -= 0.5 * (2.0 * n * log(sigma) + log_det + Q * is2)
    for i in range(p):
        acc = 0.0
        for k in range(p):
            acc += C[k, i] * Kv[k]
        g[i] += acc * is2
    g_sigma += -n / sigma + Q * is2 / sigma
    if n_sampled:
        place = int(b[int(b[11]) + 1]) ** 2
        value, slope = effects_prior(b, x, sigma, Ls, place, effects, half, g, Gs)
        lp += value
        g_sigma += slope
    # Back from Lambda to sds, correlations and sigma.
    first = 0
    for k in range(n_blocks):
        t = int(b[10]) + BLOCK * k
        q, copies, x_at = int(b[t]), int(b[t + 1]), int(b[t + 6])
        Tinv = b[int(b[t + 4]) : int(b[t + 4]) + q * q].reshape((q, q))
        l_at, width = _level_place(b, int(b[t + 2]))
        G = Gs[l_at : l_at + width * width].reshape((width, width))
        L = Ls[l_at : l_at + width * width].reshape((width, width))
        one, GL = np.zeros((q, q)), np.zeros((q_sum, q_sum))
        for copy in range(copies):
            o = int(b[t + 3]) + copy * q
            for a in range(q):
                for c in range(q):
                    one[a, c] -= 0.5 * G[o + a, o + c]
        o = int(b[t + 3])
        for a in range(q):
            for c in range(q):
                g_sigma -= one[a, c] * L[o + a, o + c] / sigma
        for d in range(q):
            g_sd = 0.0
            for c in range(d + 1):
                acc = 0.0
                for a in range(q):
                    acc += Tinv[a, d] * one[a, c]
                acc /= sigma
                g_sd += acc * Lc[first + d, first + c]
                GL[first + d, first + c] = acc * sds[first + d]
            g[x_at + d] += g_sd * dsds[first + d]
        z_at, start = x_at + q, first
        for part in range(int(b[t + 7])):
            width = int(b[int(b[t + 8]) + part])
            correlation_gradient(x, z_at, start, width, b[t + 9], Lc, GL, g)
            z_at += width * (width - 1) // 2
            start += width
        first += q
    if estimated:
        g[dim - 1] += g_sigma * dsigma
    return lp


@nb.njit(nogil=True, error_model="numpy")
def _level_place(b, level):  # type: ignore[no-untyped-def]
    """Return where a level's Lambda begins among all of them, and its width."""
    at = 0
    for ell in range(level):
        q = int(b[int(b[11]) + LEVEL * ell + 1])
        at += q * q
    return at, int(b[int(b[11]) + LEVEL * level + 1])


def _compile(mark: int) -> tuple[Any, Any, Any, Any]:
    @nb.njit(cache=True, nogil=True, error_model="numpy")
    def density(x, b, g):  # type: ignore[no-untyped-def]
        if mark == 0:
            return np.nan
        return posterior_density(x, b, g)

    @nb.cfunc(LOGP, cache=True, error_model="numpy")
    def logp(dim, x_, g_, value_, data):  # type: ignore[no-untyped-def]
        if mark == 0:
            return 4
        length = int(nb.carray(as_doubles(data), (1,))[0])
        b = nb.carray(as_doubles(data), (length,))
        x, g = nb.carray(x_, (dim,)), nb.carray(g_, (dim,))
        value = posterior_density(x, b, g)
        nb.carray(value_, (1,))[0] = value
        if not np.isfinite(value):
            return 4
        for i in range(int(dim)):
            if not np.isfinite(g[i]):
                return 3
        return 0

    @nb.njit(cache=True, nogil=True, error_model="numpy")
    def draw(b, n_levels, V, Lambdas, sigmas, normals, out):  # type: ignore[no-untyped-def]
        if mark != 0:
            _draw_tree_effects(b, n_levels, V, Lambdas, sigmas, normals, out)

    @nb.njit(cache=True, nogil=True, error_model="numpy")
    def draw_fine(S, B, starts, columns, values, V, rest, Lambdas, sigmas, normals, out):  # type: ignore[no-untyped-def]
        if mark != 0:
            draw_fine_effects(S, B, starts, columns, values, V, rest, Lambdas, sigmas, normals, out)

    return density, logp, draw, draw_fine


log_density, logp_address, draw_tree_effects, draw_fine_given_rest = _compile(
    fingerprint(
        [
            class_kernel,
            compiled,
            effect_kernel,
            kernel,
            prior_kernel,
            sampled_kernel,
            tree_kernel,
            sys.modules[__name__],
        ]
    )
)
