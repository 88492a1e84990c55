"""The way back from group effects to their coordinates, for `hmlm.likelihoods.effect_map_kernel`.

With A = I + L'H L = U U', w = U^-1 L'r, v = U'^-1 (w + z), and lp = f(L v) - v'v / 2 - log|U|.
Derivatives of a Cholesky factor as in Smith (1995), Journal of Computational and Graphical
Statistics 4, 134-147: A_bar = U'^-1 Phi(U' U_bar) U^-1, Phi taking the lower triangle with half
its diagonal.
"""

from __future__ import annotations

import numba as nb
import numpy as np


@nb.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _one_effect_back(H, scale, R, V, U, back, z_bar):  # type: ignore[no-untyped-def]
    total = 0.0
    for j in range(V.shape[0]):
        d, v, r = 1.0 / U[j], V[j], R[j]
        t_bar = (scale * back[j] - v) * d
        s_bar = t_bar * d
        u_bar = -v * t_bar - s_bar * scale * r * d - d
        total += back[j] * v + r * s_bar + H[j] * scale * u_bar * d
        z_bar[j] += t_bar
        R[j] = scale * s_bar
    return total


@nb.njit(nogil=True, error_model="numpy")
def pull_back_one(b, t, L, R, V, U, slope, GL, g):  # type: ignore[no-untyped-def]
    """Turn the derivative by one effect a group into those by z, L and (in R) the pull."""
    J, z_at, h_at, first = int(b[t + 2]), int(b[t + 9]), int(b[t + 12]), int(b[t + 22])
    H, back, z_bar = b[h_at : h_at + J], slope[first : first + J], g[z_at : z_at + J]
    GL[0, 0] += _one_effect_back(H, L[0, 0], R, V, U, back, z_bar)


@nb.njit(nogil=True, error_model="numpy")
def pull_back_two(b, t, L, R, V, U, slope, GL, g):  # type: ignore[no-untyped-def]
    """Do the same for two effects."""
    J, z_at, h_at, first = int(b[t + 2]), int(b[t + 9]), int(b[t + 12]), int(b[t + 22])
    l0, l1, l2 = L[0, 0], L[1, 0], L[1, 1]
    g0, g1, g2 = 0.0, 0.0, 0.0
    for j in range(J):
        i, h = 2 * j, h_at + 4 * j
        h0, h1, h2 = b[h], b[h + 1], b[h + 3]
        u0, u1, u2 = U[3 * j], U[3 * j + 1], U[3 * j + 2]
        r0, r1, v0, v1 = R[i], R[i + 1], V[i], V[i + 1]
        b0, b1 = slope[first + i], slope[first + i + 1]
        d0, d2 = 1.0 / u0, 1.0 / u2
        w0 = (l0 * r0 + l1 * r1) * d0
        w1 = (l2 * r1 - u1 * w0) * d2
        t0 = (l0 * b0 + l1 * b1 - v0) * d0
        t1 = (l2 * b1 - v1 - u1 * t0) * d2
        s1 = t1 * d2
        s0 = (t0 - u1 * s1) * d0
        e0 = -v0 * t0 - s0 * w0 - d0
        e1 = -v1 * t0 - s1 * w0
        e2 = -v1 * t1 - s1 * w1 - d2
        m0, m1, m2 = u0 * e0 + u1 * e1, u2 * e1, u2 * e2
        c01, c11 = m1 * d2, m2 * d2
        c00, c10 = (m0 - c01 * u1) * d0, (m1 - c11 * u1) * d0
        x10, x11 = c10 * d2, c11 * d2
        x00, x01 = (c00 - u1 * x10) * d0, (c01 - u1 * x11) * d0
        y00, y10 = l0 * x00, l1 * x00 + l2 * x10
        y01, y11 = l0 * x01, l1 * x01 + l2 * x11
        g0 += h0 * y00 + h1 * y10 + r0 * s0 + b0 * v0
        g1 += h1 * y00 + h2 * y10 + r1 * s0 + b1 * v0
        g2 += h1 * y01 + h2 * y11 + r1 * s1 + b1 * v1
        g[z_at + i] += t0
        g[z_at + i + 1] += t1
        R[i], R[i + 1] = l0 * s0, l1 * s0 + l2 * s1
    GL[0, 0] += g0
    GL[1, 0] += g1
    GL[1, 1] += g2


@nb.njit(nogil=True, error_model="numpy")
def pull_back_any(b, t, L, R, V, U, slope, GL, g):  # type: ignore[no-untyped-def]
    """Do the same for any number of effects."""
    q, J = int(b[t + 1]), int(b[t + 2])
    z_at, h_at, first = int(b[t + 9]), int(b[t + 12]), int(b[t + 22])
    w, t_bar, s_bar = np.empty(q), np.empty(q), np.empty(q)
    S, T = np.empty((q, q)), np.empty((q, q))
    for j in range(J):
        at, out, h = j * q, first + j * q, h_at + j * q * q
        root = U[j * q * q : (j + 1) * q * q].reshape((q, q))
        r, v = R[at : at + q], V[at : at + q]
        for a in range(q):
            acc = 0.0
            for k in range(a, q):
                acc += L[k, a] * r[k]
            for k in range(a):
                acc -= root[a, k] * w[k]
            w[a] = acc / root[a, a]
        for a in range(q):
            acc = -v[a]
            for k in range(a, q):
                acc += L[k, a] * slope[out + k]
            for k in range(a):
                acc -= root[a, k] * t_bar[k]
            t_bar[a] = acc / root[a, a]
        for a in range(q - 1, -1, -1):
            acc = t_bar[a]
            for k in range(a + 1, q):
                acc -= root[k, a] * s_bar[k]
            s_bar[a] = acc / root[a, a]
        # S = Phi + Phi' of U' U_bar, with U_bar = -v t_bar' - s_bar w' - diag(1 / U)
        for a in range(q):
            for c in range(a + 1):
                acc = 0.0
                for k in range(a, q):
                    entry = -v[k] * t_bar[c] - s_bar[k] * w[c]
                    if k == c:
                        entry -= 1.0 / root[k, k]
                    acc += root[k, a] * entry
                S[a, c] = acc
                S[c, a] = acc
        # U'^-1 S U^-1
        for a in range(q):
            for c in range(q - 1, -1, -1):
                acc = S[a, c]
                for k in range(c + 1, q):
                    acc -= T[a, k] * root[k, c]
                T[a, c] = acc / root[c, c]
        for c in range(q):
            for a in range(q - 1, -1, -1):
                acc = T[a, c]
                for k in range(a + 1, q):
                    acc -= root[k, a] * S[k, c]
                S[a, c] = acc / root[a, a]
        # L_bar = H L S + r s_bar' + b_bar v'
        for a in range(q):
            for c in range(q):
                acc = 0.0
                for k in range(a + 1):
                    acc += L[a, k] * S[k, c]
                T[a, c] = acc
        for a in range(q):
            for c in range(a + 1):
                acc = r[a] * s_bar[c] + slope[out + a] * v[c]
                for k in range(q):
                    acc += b[h + a * q + k] * T[k, c]
                GL[a, c] += acc
        for a in range(q):
            g[z_at + at + a] += t_bar[a]
        for a in range(q - 1, -1, -1):
            acc = 0.0
            for k in range(a + 1):
                acc += L[a, k] * s_bar[k]
            r[a] = acc
