"""Coordinates of group effects in machine code: there and, for gradients, back.

An effect is b = mean + L v with v standard normal a priori and L L' its covariance. The sampler's
coordinate z of a group is

- v itself (not centred),
- (b - mean) / scale (centred), or
- v less its expectation, over its spread, both given the coefficients and L as if the likelihood
  of the group's rows were a Gaussian with information H about b: with A = I + L'H L = U U' and
  r the pull of the rows, v = U'^-1 (U^-1 L'r + z). Where the rows say nothing this is v itself,
  where they say much it is b on the scale of its own standard error; in between it lies between.

The last is what Papaspiliopoulos, Roberts & Skold (2007, section 4) call a data-dependent partly
non-centred form.
"""

from __future__ import annotations

from math import log, sqrt

import numba as nb
import numpy as np

BLOCK_ROW = 26
# Block: 0 predictor, 1 q, 2 groups, 3 form (0 not centred, 1 centred, 2 between), 4 priors of the
# sds, 5 first coordinate of sds and correlations, 6 correlated parts, 7 place of their sizes,
# 8 eta of LKJ, 9 first coordinate of the effects, 10 place of the rows' groups, 11 place of Z by
# columns or -1 for an intercept, 12 H, 13 pull, 14 pull by the coordinates of beta, 15 parent block
# or -1, 16 place of the parents, 17 pull by the parent's effects, 18 scale, 19 whether L is given,
# 20 place of its diagonal, 21 place of the mean or -1, 22 first effect, 23 place of the first row
# of every group or -1 where rows are not sorted by it, 24 first entry of L, 25 first sd.


@nb.njit(nogil=True, error_model="numpy")
def group_pull(b, t, j, q, x, p, x_at, parents, r):  # type: ignore[no-untyped-def]
    """Fill r with what a group's rows pull its effects by, given beta and the parent's effects."""
    at = int(b[t + 13]) + j * q
    k_at = int(b[t + 14]) + j * q * p
    for a in range(q):
        acc = b[at + a]
        for i in range(p):
            acc -= b[k_at + a * p + i] * x[x_at + i]
        r[a] = acc
    n = parents.shape[0]
    if n > 0:
        g_at = int(b[t + 17]) + j * q * n
        for a in range(q):
            for i in range(n):
                r[a] -= b[g_at + a * n + i] * parents[i]


@nb.njit(nogil=True, error_model="numpy")
def factor_group(b, h_at, L, q, U, T):  # type: ignore[no-untyped-def]
    """Fill the Cholesky factor U of I + L'H L; T is scratch. Return log|U|."""
    for a in range(q):
        for c in range(q):
            acc = 0.0
            for k in range(c, q):
                acc += b[h_at + a * q + k] * L[k, c]
            T[a, c] = acc
    log_det = 0.0
    for a in range(q):
        for c in range(a + 1):
            acc = 1.0 if a == c else 0.0
            for k in range(a, q):
                acc += L[k, a] * T[k, c]
            for k in range(c):
                acc -= U[a, k] * U[c, k]
            if a == c:
                U[a, a] = sqrt(acc)
                log_det += log(U[a, a])
            else:
                U[a, c] = acc / U[c, c]
    return log_det


@nb.njit(nogil=True, error_model="numpy")
def place_group(L, q, U, r, z, w, v):  # type: ignore[no-untyped-def]
    """Fill w = U^-1 L'r and v = U'^-1 (w + z)."""
    for a in range(q):
        acc = 0.0
        for k in range(a, q):
            acc += L[k, a] * r[k]
        for k in range(a):
            acc -= U[a, k] * w[k]
        w[a] = acc / U[a, a]
    for a in range(q - 1, -1, -1):
        acc = w[a] + z[a]
        for k in range(a + 1, q):
            acc -= U[k, a] * v[k]
        v[a] = acc / U[a, a]


@nb.njit(nogil=True, error_model="numpy")
def pull_back_group(b, h_at, L, q, U, r, w, v, v_bar, z_bar, r_bar, GL, S, T):  # type: ignore[no-untyped-def]
    """Turn the derivative by v into those by z, r and (added to GL) L, with that of -log|U|.

    S and T are scratch.
    """
    # v = U'^-1 t, t = w + z
    for a in range(q):
        acc = v_bar[a]
        for k in range(a):
            acc -= U[a, k] * z_bar[k]
        z_bar[a] = acc / U[a, a]
    # s = L'r, w = U^-1 s: s_bar = U'^-1 t_bar, kept in r_bar for a moment
    for a in range(q - 1, -1, -1):
        acc = z_bar[a]
        for k in range(a + 1, q):
            acc -= U[k, a] * r_bar[k]
        r_bar[a] = acc / U[a, a]
    # The derivative by U, lower triangle: -v t_bar' - s_bar w' - diag(1 / U)
    # A_bar = U'^-1 Phi(U' U_bar) U^-1, made symmetric (Smith 1995): S = Phi(U' U_bar)
    for a in range(q):
        for c in range(a + 1):
            acc = 0.0
            for k in range(a, q):
                entry = -v[k] * z_bar[c] - r_bar[k] * w[c]
                if k == c:
                    entry -= 1.0 / U[k, k]
                acc += U[k, a] * entry
            if a == c:
                acc *= 0.5
            S[a, c] = acc
            S[c, a] = acc
    # the strict upper triangle is the mirror of the lower, so S = Phi + Phi' up to a factor
    for a in range(q):
        S[a, a] *= 2.0
    # T = S U^-1 by columns from the right, then S = U'^-1 T: twice the symmetric derivative
    for a in range(q):
        for c in range(q - 1, -1, -1):
            acc = S[a, c]
            for k in range(c + 1, q):
                acc -= T[a, k] * U[k, c]
            T[a, c] = acc / U[c, c]
    for c in range(q):
        for a in range(q - 1, -1, -1):
            acc = T[a, c]
            for k in range(a + 1, q):
                acc -= U[k, a] * S[k, c]
            S[a, c] = acc / U[a, a]
    # A = I + L'H L: L_bar += H L (A_bar + A_bar'), and s = L'r: L_bar += r s_bar'
    for a in range(q):
        for c in range(q):
            acc = 0.0
            for k in range(q):
                acc += L[a, k] * S[k, c]
            T[a, c] = acc
    for a in range(q):
        for c in range(q):
            acc = r[a] * r_bar[c]
            for k in range(q):
                acc += b[h_at + a * q + k] * T[k, c]
            GL[a, c] += acc
    # r_bar = L s_bar, in place from the last row up
    for a in range(q - 1, -1, -1):
        acc = 0.0
        for k in range(a + 1):
            acc += L[a, k] * r_bar[k]
        r_bar[a] = acc


@nb.njit(nogil=True, error_model="numpy")
def effects_forward(b, t, x, p, x_at, L, effects, parent_q, parent_first):  # type: ignore[no-untyped-def]
    """Fill the effects of one block from their coordinates; return their log prior density.

    The log density includes the log Jacobian of the coordinates.
    """
    q, J, form = int(b[t + 1]), int(b[t + 2]), int(b[t + 3])
    z_at, first, m_at = int(b[t + 9]), int(b[t + 22]), int(b[t + 21])
    s_at, p_at = int(b[t + 18]), int(b[t + 16])
    r, w, v, z = np.zeros(q), np.zeros(q), np.zeros(q), np.empty(q)
    U, T = np.zeros((q, q)), np.empty((q, q))
    lp = 0.0
    if form == 1:
        for a in range(q):
            lp -= J * log(abs(L[a, a]))
            lp += J * log(b[s_at + a])
    for j in range(J):
        at = z_at + j * q
        out = first + j * q
        if form == 2:
            n = parent_q
            start = parent_first + int(b[p_at + j]) * n if n else 0
            group_pull(b, t, j, q, x, p, x_at, effects[start : start + n], r)
            for a in range(q):
                z[a] = x[at + a]
            lp -= factor_group(b, int(b[t + 12]) + j * q * q, L, q, U, T)
            place_group(L, q, U, r, z, w, v)
        elif form == 1:
            for a in range(q):
                acc = b[s_at + a] * x[at + a]
                for k in range(a):
                    acc -= L[a, k] * v[k]
                v[a] = acc / L[a, a]
        else:
            for a in range(q):
                v[a] = x[at + a]
        for a in range(q):
            lp -= 0.5 * v[a] * v[a]
            if form == 1:
                acc = b[s_at + a] * x[at + a]
            else:
                acc = 0.0
                for k in range(a + 1):
                    acc += L[a, k] * v[k]
            effects[out + a] = acc + (b[m_at + a] if m_at >= 0 else 0.0)
    return lp


@nb.njit(nogil=True, error_model="numpy")
def effects_backward(b, t, x, p, x_at, L, effects, parent_q, parent_first, slope, GL, g):  # type: ignore[no-untyped-def]
    """Turn the derivative by the effects of one block into those by its coordinates, L and beta.

    `slope` is the derivative of everything after the effects; that by the parent's effects is
    added to it.
    """
    q, J, form = int(b[t + 1]), int(b[t + 2]), int(b[t + 3])
    z_at, first, m_at = int(b[t + 9]), int(b[t + 22]), int(b[t + 21])
    s_at, p_at, k_at = int(b[t + 18]), int(b[t + 16]), int(b[t + 14])
    r, w, v, z = np.zeros(q), np.zeros(q), np.zeros(q), np.empty(q)
    v_bar, z_bar, r_bar = np.empty(q), np.empty(q), np.empty(q)
    U, T, S = np.zeros((q, q)), np.empty((q, q)), np.empty((q, q))
    if form == 1:
        for a in range(q):
            GL[a, a] -= J / L[a, a]
    for j in range(J):
        at = z_at + j * q
        out = first + j * q
        if form == 1:
            for a in range(q):
                acc = effects[out + a] - (b[m_at + a] if m_at >= 0 else 0.0)
                for k in range(a):
                    acc -= L[a, k] * v[k]
                v[a] = acc / L[a, a]
            # lp = -v'v / 2 with v = L^-1 b: by b it is -L'^-1 v, by L it is (L'^-1 v) v'
            for a in range(q - 1, -1, -1):
                acc = v[a]
                for k in range(a + 1, q):
                    acc -= L[k, a] * r_bar[k]
                r_bar[a] = acc / L[a, a]
            for a in range(q):
                g[at + a] += b[s_at + a] * (slope[out + a] - r_bar[a])
                for c in range(a + 1):
                    GL[a, c] += r_bar[a] * v[c]
            continue
        n = parent_q if form == 2 else 0
        start = parent_first + int(b[p_at + j]) * n if n else 0
        if form == 2:
            group_pull(b, t, j, q, x, p, x_at, effects[start : start + n], r)
            for a in range(q):
                z[a] = x[at + a]
            h_at = int(b[t + 12]) + j * q * q
            factor_group(b, h_at, L, q, U, T)
            place_group(L, q, U, r, z, w, v)
        else:
            for a in range(q):
                v[a] = x[at + a]
        for a in range(q):
            acc = -v[a]
            for k in range(a, q):
                acc += L[k, a] * slope[out + k]
            v_bar[a] = acc
        for a in range(q):
            for c in range(a + 1):
                GL[a, c] += slope[out + a] * v[c]
        if form == 0:
            for a in range(q):
                g[at + a] += v_bar[a]
            continue
        pull_back_group(b, h_at, L, q, U, r, w, v, v_bar, z_bar, r_bar, GL, S, T)
        for a in range(q):
            g[at + a] += z_bar[a]
            row = k_at + (j * q + a) * p
            for i in range(p):
                g[x_at + i] -= b[row + i] * r_bar[a]
            row = int(b[t + 17]) + (j * q + a) * n
            for i in range(n):
                slope[start + i] -= b[row + i] * r_bar[a]
