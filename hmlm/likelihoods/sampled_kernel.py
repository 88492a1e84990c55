"""Crossed factors with many levels: one is integrated out, the effects of the others sampled.

Place in the buffer, from b[15]: 0 number R of sampled effects, 1-3 Z'Z_rest of the fine factor as
places of a sparse matrix's starts, columns and values, 4-6 Z_rest'Z_rest likewise, 7 Z_rest'M,
8 first coordinate of the effects, 9 number of blocks, then four numbers a block: levels, columns,
whether its effects are centred, place of their scales.
"""

from __future__ import annotations

from math import log

import numba as nb
import numpy as np

from hmlm.likelihoods.kernel import eliminate_group, pull_group

FIRST = 10


@nb.njit(nogil=True, error_model="numpy")
def effects_from(b, x, sigma, Ls, l_at, effects):  # type: ignore[no-untyped-def]
    """Fill the effects from their coordinates: scale * x where centred, sigma L x where not."""
    t = int(b[15])
    c, at = int(b[t + 8]), 0
    for k in range(int(b[t + 9])):
        row = t + FIRST + 4 * k
        J, q, centred, s_at = int(b[row]), int(b[row + 1]), b[row + 2], int(b[row + 3])
        L = Ls[l_at : l_at + q * q].reshape((q, q))
        for _ in range(J):
            for a in range(q):
                if centred == 1.0:
                    effects[at + a] = b[s_at + a] * x[c + a]
                else:
                    acc = 0.0
                    for d in range(q):
                        acc += L[a, d] * x[c + d]
                    effects[at + a] = sigma * acc
            at += q
            c += q
        l_at += q * q


@nb.njit(nogil=True, error_model="numpy")
def fine_given_rest(b, S, B, v, is2, L, effects, Kv, half, G):  # type: ignore[no-untyped-def]
    """Integrate the fine factor out of the residual left by the sampled effects.

    Kv comes in as M'M v and goes out, like `half`, as half the derivative of the quadratic form by
    v and by the effects. Returns log|V|.
    """
    t = int(b[15])
    J, q, m, R = S.shape[0], S.shape[1], v.shape[0], effects.shape[0]
    start, column, value = int(b[t + 1]), int(b[t + 2]), int(b[t + 3])
    r_start, r_column, r_value = int(b[t + 4]), int(b[t + 5]), int(b[t + 6])
    RM = b[int(b[t + 7]) : int(b[t + 7]) + R * m].reshape((R, m))
    for i in range(R):
        acc = 0.0
        for e in range(int(b[r_start + i]), int(b[r_start + i + 1])):
            acc += b[r_value + e] * effects[int(b[r_column + e])]
        for k in range(m):
            acc -= RM[i, k] * v[k]
            Kv[k] -= RM[i, k] * effects[i]
        half[i] = acc
    A, H, W = np.empty((q, q)), np.empty((q, q)), np.empty((q, q))
    Wbar, T = np.empty((q, q)), np.empty((2 * q, q))
    r, w = np.empty(q), np.empty(q)
    log_det = 0.0
    for j in range(J):
        log_det += eliminate_group(S[j], L, q, A, H, W)
        for a in range(q):
            acc = 0.0
            for i in range(m):
                acc += B[j, a, i] * v[i]
            row = j * q + a
            for e in range(int(b[start + row]), int(b[start + row + 1])):
                acc -= b[value + e] * effects[int(b[column + e])]
            r[a] = acc
        for a in range(q):
            acc = 0.0
            for c in range(q):
                acc += W[a, c] * r[c]
                Wbar[a, c] = -r[a] * r[c] * is2
            w[a] = acc
        for a in range(q):
            for i in range(m):
                Kv[i] -= B[j, a, i] * w[a]
            row = j * q + a
            for e in range(int(b[start + row]), int(b[start + row + 1])):
                half[int(b[column + e])] += b[value + e] * w[a]
        pull_group(S[j], W, H, Wbar, q, 1.0, G, T)
    return log_det


@nb.njit(nogil=True, error_model="numpy")
def _invert(L, q, inverse):  # type: ignore[no-untyped-def]
    """Invert a small matrix by Gauss-Jordan with pivoting; return log|det|."""
    work = L.copy()
    for a in range(q):
        for c in range(q):
            inverse[a, c] = 1.0 if a == c else 0.0
    log_det = 0.0
    for c in range(q):
        pivot = c
        for a in range(c + 1, q):
            if abs(work[a, c]) > abs(work[pivot, c]):
                pivot = a
        if pivot != c:
            for d in range(q):
                work[c, d], work[pivot, d] = work[pivot, d], work[c, d]
                inverse[c, d], inverse[pivot, d] = inverse[pivot, d], inverse[c, d]
        log_det += log(abs(work[c, c]))
        scale = 1.0 / work[c, c]
        for d in range(q):
            work[c, d] *= scale
            inverse[c, d] *= scale
        for a in range(q):
            if a != c:
                factor = work[a, c]
                for d in range(q):
                    work[a, d] -= factor * work[c, d]
                    inverse[a, d] -= factor * inverse[c, d]
    return log_det


@nb.njit(nogil=True, error_model="numpy")
def effects_prior(b, x, sigma, Ls, l_at, effects, slope, g, Gs):  # type: ignore[no-untyped-def]
    """Add the effects' prior and pull derivatives back to coordinates, Lambda and sigma.

    `slope` is the derivative of the log-likelihood by the effects. Gs gets -2 times the derivative
    by Lambda, as the integrated levels have it. Returns the log density of the effects and its
    explicit derivative by sigma.
    """
    t = int(b[15])
    c, at = int(b[t + 8]), 0
    lp, g_sigma = 0.0, 0.0
    for k in range(int(b[t + 9])):
        row = t + FIRST + 4 * k
        J, q, centred, s_at = int(b[row]), int(b[row + 1]), b[row + 2], int(b[row + 3])
        L = Ls[l_at : l_at + q * q].reshape((q, q))
        G = Gs[l_at : l_at + q * q].reshape((q, q))
        inverse, z, t2 = np.zeros((q, q)), np.empty(q), np.empty(q)
        total = np.zeros((q, q))
        if centred == 1.0:
            lp -= J * (_invert(L, q, inverse) + q * log(sigma))
            for a in range(q):
                for d in range(q):
                    total[a, d] -= J * inverse[d, a] / sigma
        for _ in range(J):
            if centred == 1.0:
                for a in range(q):
                    acc = 0.0
                    for d in range(q):
                        acc += inverse[a, d] * effects[at + d]
                    z[a] = acc / sigma
                    lp -= 0.5 * z[a] * z[a]
                for a in range(q):
                    acc = 0.0
                    for d in range(q):
                        acc += inverse[d, a] * z[d]
                    t2[a] = acc / sigma
                    g[c + a] += b[s_at + a] * (slope[at + a] - t2[a])
                for a in range(q):
                    for d in range(q):
                        total[a, d] += t2[a] * z[d]
            else:
                for a in range(q):
                    z[a] = x[c + a]
                    lp -= 0.5 * z[a] * z[a]
                    g[c + a] -= z[a]
                for a in range(q):
                    for d in range(q):
                        g[c + d] += sigma * L[a, d] * slope[at + a]
                        total[a, d] += slope[at + a] * z[d]
            at += q
            c += q
        for a in range(q):
            for d in range(q):
                G[a, d] -= 2.0 * sigma * total[a, d]
                g_sigma += total[a, d] * L[a, d]
        l_at += q * q
    return lp, g_sigma


@nb.njit(nogil=True, error_model="numpy")
def draw_fine_effects(S, B, starts, columns, values, V, rest, Lambdas, sigmas, normals, out):  # type: ignore[no-untyped-def]
    """Draw the fine factor's effects given the sampled ones, for every draw of the parameters."""
    J, q, m = S.shape[0], S.shape[1], V.shape[1]
    A, H, W = np.empty((q, q)), np.empty((q, q)), np.empty((q, q))
    r, x = np.empty(q), np.empty(q)
    for s in range(V.shape[0]):
        L = Lambdas[s].reshape((q, q))
        for j in range(J):
            eliminate_group(S[j], L, q, A, H, W)
            for a in range(q):
                acc = 0.0
                for i in range(m):
                    acc += B[j, a, i] * V[s, i]
                for e in range(starts[j * q + a], starts[j * q + a + 1]):
                    acc -= values[e] * rest[s, columns[e]]
                r[a] = acc
            # A now holds the inverse of I + L'S L: its Cholesky factor makes the noise.
            for a in range(q):
                for c in range(a + 1):
                    acc = A[a, c]
                    for d in range(c):
                        acc -= H[a, d] * H[c, d]
                    H[a, c] = np.sqrt(acc) if a == c else acc / H[c, c]
            for a in range(q):
                acc = 0.0
                for c in range(a + 1):
                    acc += H[a, c] * normals[s, j * q + c]
                x[a] = acc
            for a in range(q):
                acc = 0.0
                for c in range(q):
                    acc += W[a, c] * r[c] + sigmas[s] * L[a, c] * x[c]
                out[s, j * q + a] = acc
