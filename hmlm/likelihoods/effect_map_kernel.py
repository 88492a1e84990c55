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
non-centred form. One and two effects, by far the most frequent, are written out.
"""

from __future__ import annotations

from math import log, sqrt

import numba as nb
import numpy as np

from hmlm.likelihoods.effect_back_kernel import pull_back_any, pull_back_one, pull_back_two

BLOCK_ROW = 26
# Block: 0 predictor, 1 q, 2 groups, 3 form (0 not centred, 1 centred, 2 between), 4 priors of the
# sds, 5 first coordinate of sds and correlations, 6 correlated parts, 7 place of their sizes,
# 8 eta of LKJ, 9 first coordinate of the effects, 10 place of the rows' groups, 11 place of Z by
# columns or -1 for an intercept, 12 H, 13 pull, 14 pull by the coordinates of beta, 15 to 17 pull
# by the effects of earlier blocks, a sparse matrix by rows (15 is -1 without), 18 scale, 19 whether
# L is given, 20 place of its diagonal, 21 place of the mean or -1, 22 first effect, 23 place of the
# first row of every group or -1 where rows are not sorted by it, 24 first entry of L, 25 first sd.


@nb.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def group_pulls(b, t, x, p, x_at, effects, R):  # type: ignore[no-untyped-def]
    """Fill R with what the rows of every group pull its effects by, given all that comes before."""
    at, k_at = int(b[t + 13]), int(b[t + 14])
    size = int(b[t + 1]) * int(b[t + 2])
    for row in range(size):
        R[row] = b[at + row]
    for i in range(p):
        K, own = b[k_at + i * size : k_at + (i + 1) * size], x[x_at + i]
        for row in range(size):
            R[row] -= K[row] * own
    if b[t + 15] >= 0.0:
        starts, columns, values = int(b[t + 15]), int(b[t + 16]), int(b[t + 17])
        for row in range(size):
            acc = 0.0
            for e in range(int(b[starts + row]), int(b[starts + row + 1])):
                acc += b[values + e] * effects[int(b[columns + e])]
            R[row] -= acc


@nb.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def pulls_back(b, t, p, x_at, R, slope, g):  # type: ignore[no-untyped-def]
    """Turn the derivative by the pulls into those by beta's coordinates and earlier effects."""
    k_at = int(b[t + 14])
    size = int(b[t + 1]) * int(b[t + 2])
    for i in range(p):
        K, acc = b[k_at + i * size : k_at + (i + 1) * size], 0.0
        for row in range(size):
            acc += K[row] * R[row]
        g[x_at + i] -= acc
    if b[t + 15] >= 0.0:
        starts, columns, values = int(b[t + 15]), int(b[t + 16]), int(b[t + 17])
        for row in range(size):
            for e in range(int(b[starts + row]), int(b[starts + row + 1])):
                slope[int(b[columns + e])] -= b[values + e] * R[row]


@nb.njit(nogil=True, error_model="numpy", fastmath={"contract", "nsz"})
def _roots_and_places(H, scale, R, z, V, U):  # type: ignore[no-untyped-def]
    for j in range(V.shape[0]):
        u = sqrt(1.0 + H[j] * scale * scale)
        d = 1.0 / u
        U[j] = u
        V[j] = (scale * R[j] * d + z[j]) * d


@nb.njit(nogil=True, error_model="numpy")
def place_one(b, t, x, L, R, V, U):  # type: ignore[no-untyped-def]
    """Fill V and U for one effect a group; return the sum of -log|U|."""
    J, z_at, h_at = int(b[t + 2]), int(b[t + 9]), int(b[t + 12])
    _roots_and_places(b[h_at : h_at + J], L[0, 0], R, x[z_at : z_at + J], V, U)
    lp, product = 0.0, 1.0
    for j in range(J):
        product *= U[j]
        if product > 1e100:
            lp -= log(product)
            product = 1.0
    return lp - log(product)


@nb.njit(nogil=True, error_model="numpy")
def place_two(b, t, x, L, R, V, U):  # type: ignore[no-untyped-def]
    """Fill V and U (three numbers a group) for two effects; return the sum of -log|U|."""
    J, z_at, h_at = int(b[t + 2]), int(b[t + 9]), int(b[t + 12])
    l0, l1, l2 = L[0, 0], L[1, 0], L[1, 1]
    lp = 0.0
    for j in range(J):
        h = h_at + 4 * j
        t00, t10 = b[h] * l0 + b[h + 1] * l1, b[h + 1] * l0 + b[h + 3] * l1
        u0 = sqrt(1.0 + l0 * t00 + l1 * t10)
        u1 = l2 * t10 / u0
        u2 = sqrt(1.0 + l2 * b[h + 3] * l2 - u1 * u1)
        lp -= log(u0 * u2)
        r0, r1 = R[2 * j], R[2 * j + 1]
        w0 = (l0 * r0 + l1 * r1) / u0
        w1 = (l2 * r1 - u1 * w0) / u2
        v1 = (w1 + x[z_at + 2 * j + 1]) / u2
        V[2 * j + 1] = v1
        V[2 * j] = (w0 + x[z_at + 2 * j] - u1 * v1) / u0
        U[3 * j], U[3 * j + 1], U[3 * j + 2] = u0, u1, u2
    return lp


@nb.njit(nogil=True, error_model="numpy")
def place_any(b, t, x, L, R, V, U):  # type: ignore[no-untyped-def]
    """Fill V and U (q x q numbers a group) for any number of effects; return sum of -log|U|."""
    q, J, z_at, h_at = int(b[t + 1]), int(b[t + 2]), int(b[t + 9]), int(b[t + 12])
    T, w = np.empty((q, q)), np.empty(q)
    lp = 0.0
    for j in range(J):
        h, o, at = h_at + j * q * q, j * q * q, j * q
        for a in range(q):
            for c in range(q):
                acc = 0.0
                for k in range(c, q):
                    acc += b[h + a * q + k] * L[k, c]
                T[a, c] = acc
        for a in range(q):
            for c in range(a + 1):
                acc = 1.0 if a == c else 0.0
                for k in range(a, q):
                    acc += L[k, a] * T[k, c]
                for k in range(c):
                    acc -= U[o + a * q + k] * U[o + c * q + k]
                if a == c:
                    U[o + a * q + a] = sqrt(acc)
                    lp -= log(U[o + a * q + a])
                else:
                    U[o + a * q + c] = acc / U[o + c * q + c]
        for a in range(q):
            acc = 0.0
            for k in range(a, q):
                acc += L[k, a] * R[at + k]
            for k in range(a):
                acc -= U[o + a * q + k] * w[k]
            w[a] = acc / U[o + a * q + a]
        for a in range(q - 1, -1, -1):
            acc = w[a] + x[z_at + at + a]
            for k in range(a + 1, q):
                acc -= U[o + k * q + a] * V[at + k]
            V[at + a] = acc / U[o + a * q + a]
    return lp


@nb.njit(nogil=True, error_model="numpy")
def roots_size(q):  # type: ignore[no-untyped-def]
    """Return how many numbers of U are kept for a group."""
    return q * (q + 1) // 2 if q <= 2 else q * q


@nb.njit(nogil=True, error_model="numpy")
def effects_forward(b, t, x, p, x_at, L, effects, R, V, U):  # type: ignore[no-untyped-def]
    """Fill the effects of one block from their coordinates; return their log prior density.

    The log density includes the log Jacobian of the coordinates. R, V and U keep what the way back
    needs.
    """
    q, J, form = int(b[t + 1]), int(b[t + 2]), int(b[t + 3])
    z_at, first, m_at, s_at = int(b[t + 9]), int(b[t + 22]), int(b[t + 21]), int(b[t + 18])
    lp = 0.0
    if form == 2:
        group_pulls(b, t, x, p, x_at, effects, R)
        if q == 1:
            lp += place_one(b, t, x, L, R, V, U)
        elif q == 2:
            lp += place_two(b, t, x, L, R, V, U)
        else:
            lp += place_any(b, t, x, L, R, V, U)
    elif form == 1:
        for a in range(q):
            lp += J * (log(b[s_at + a]) - log(abs(L[a, a])))
        for j in range(J):
            for a in range(q):
                acc = b[s_at + a] * x[z_at + j * q + a]
                for k in range(a):
                    acc -= L[a, k] * V[j * q + k]
                V[j * q + a] = acc / L[a, a]
    else:
        for i in range(J * q):
            V[i] = x[z_at + i]
    square = 0.0
    for i in range(J * q):
        square += V[i] * V[i]
    for j in range(J):
        for a in range(q):
            acc = b[m_at + a] if m_at >= 0 else 0.0
            for k in range(a + 1):
                acc += L[a, k] * V[j * q + k]
            effects[first + j * q + a] = acc
    return lp - 0.5 * square


@nb.njit(nogil=True, error_model="numpy")
def effects_backward(b, t, p, x_at, L, R, V, U, slope, GL, g):  # type: ignore[no-untyped-def]
    """Turn the derivative by the effects of one block into those by its coordinates, L and beta.

    `slope` is the derivative of everything after the effects; that by earlier effects is added to
    it. R is overwritten.
    """
    q, J, form = int(b[t + 1]), int(b[t + 2]), int(b[t + 3])
    z_at, first, s_at = int(b[t + 9]), int(b[t + 22]), int(b[t + 18])
    if form == 2:
        if q == 1:
            pull_back_one(b, t, L, R, V, U, slope, GL, g)
        elif q == 2:
            pull_back_two(b, t, L, R, V, U, slope, GL, g)
        else:
            pull_back_any(b, t, L, R, V, U, slope, GL, g)
        pulls_back(b, t, p, x_at, R, slope, g)
        return
    back = np.empty(q)
    if form == 1:
        for a in range(q):
            GL[a, a] -= J / L[a, a]
    for j in range(J):
        at, out = j * q, first + j * q
        if form == 1:
            # lp = -v'v / 2 with v = L^-1 b: by b it is -L'^-1 v, by L it is (L'^-1 v) v'
            for a in range(q - 1, -1, -1):
                acc = V[at + a]
                for k in range(a + 1, q):
                    acc -= L[k, a] * back[k]
                back[a] = acc / L[a, a]
            for a in range(q):
                g[z_at + at + a] += b[s_at + a] * (slope[out + a] - back[a])
                for c in range(a + 1):
                    GL[a, c] += back[a] * V[at + c]
            continue
        for a in range(q):
            acc = -V[at + a]
            for k in range(a, q):
                acc += L[k, a] * slope[out + k]
            g[z_at + at + a] += acc
            for c in range(a + 1):
                GL[a, c] += slope[out + a] * V[at + c]
