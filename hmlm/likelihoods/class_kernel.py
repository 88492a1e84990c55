"""The finest level of a tree, where groups of equal design under one parent go together.

Groups of a class share Z'Z and their cross-products with the outer levels, so a class needs one
factorisation, its size, and the sums of the groups' cross-products with M and of their outer
products.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from hmlm.likelihoods.kernel import eliminate_group, pull_group


@nb.njit(nogil=True, error_model="numpy")
def classes_up(S, Bz, sums, pairs, counts, parent, v, L, up, H, W, rbar, Pv, U):  # type: ignore[no-untyped-def]
    """Eliminate all classes; fill what the way back needs; return log|A| summed over groups."""
    C, q, z, m = S.shape[0], S.shape[1], Bz.shape[2], v.shape[0]
    A, WB, Wr = np.empty((q, q)), np.empty((q, z)), np.empty(q)
    log_det = 0.0
    for c in range(C):
        n = counts[c]
        log_det += n * eliminate_group(S[c], L, q, A, H[c], W[c])
        for a in range(q):
            acc = 0.0
            for i in range(m):
                acc += sums[c, a, i] * v[i]
            rbar[c, a] = acc
        rr = 0.0
        at = 0
        for a in range(q):
            for b in range(a + 1):
                u = 0.0
                for i in range(m):
                    acc = 0.0
                    for k in range(m):
                        acc += pairs[c, at, i, k] * v[k]
                    Pv[c, at, i] = acc
                    u += acc * v[i]
                U[c, at] = u if a == b else 0.5 * u
                rr += W[c, a, b] * u
                at += 1
        k = int(parent[c])
        for a in range(q):
            acc = 0.0
            for d in range(q):
                acc += W[c, a, d] * rbar[c, d]
            Wr[a] = acc
            for e in range(z):
                acc = 0.0
                for d in range(q):
                    acc += W[c, a, d] * Bz[c, d, e]
                WB[a, e] = acc
        for e in range(z):
            for f in range(e, z):
                acc = 0.0
                for a in range(q):
                    acc += Bz[c, a, e] * WB[a, f]
                up[k, e, f] += n * acc
            acc = 0.0
            for a in range(q):
                acc += Bz[c, a, e] * Wr[a]
            up[k, e, z] += acc
        up[k, z, z] += rr
    return log_det


@nb.njit(nogil=True, error_model="numpy")
def classes_down(S, Bz, sums, counts, parent, outer, is2, H, W, rbar, Pv, U, Kv, G):  # type: ignore[no-untyped-def]
    """Add the derivatives by L to G and take the classes' part from Kv."""
    C, q, z, m = S.shape[0], S.shape[1], Bz.shape[2], Kv.shape[0]
    BE, t, T, Wbar = np.empty((q, z)), np.empty(q), np.empty((2 * q, q)), np.empty((q, q))
    for c in range(C):
        k, n = int(parent[c]), counts[c]
        err = outer[k, z, z]
        for a in range(q):
            acc = 0.0
            for e in range(z):
                acc += Bz[c, a, e] * outer[k, e, z]
            t[a] = acc
            for e in range(z):
                acc = 0.0
                for f in range(z):
                    acc += Bz[c, a, f] * outer[k, f, e]
                BE[a, e] = acc
        at = 0
        for a in range(q):
            for b in range(a + 1):
                acc = t[a] * rbar[c, b] + rbar[c, a] * t[b] + err * U[c, at]
                for e in range(z):
                    acc += n * BE[a, e] * Bz[c, b, e]
                Wbar[a, b] = -acc
                Wbar[b, a] = -acc
                weight = err * W[c, a, b] / is2
                for i in range(m):
                    Kv[i] -= weight * Pv[c, at, i]
                at += 1
        for a in range(q):
            acc = 0.0
            for d in range(q):
                acc += W[c, a, d] * t[d]
            acc /= is2
            for i in range(m):
                Kv[i] -= acc * sums[c, a, i]
        pull_group(S[c], W[c], H[c], Wbar, q, n, G, T)
