"""The posterior density of a Gaussian model with its group effects integrated out, compiled once.

Everything that a model brings is numbers in one flat buffer, so nothing is compiled for a model:
the same machine code, cached on disk, serves all of them. Symbols as in `hmlm.likelihoods.tree`.

The sampler's coordinates are, in this order: population coefficients whitened by their estimated
covariance; for every factor the logarithms of its sds, then its partial correlations (inverse
hyperbolic tangents); last the logarithm of sigma, which has no coordinate where it is known.
"""

from __future__ import annotations

from math import exp, log, log1p, sqrt, tanh

import numba as nb
import numpy as np

LOG4 = log(4.0)
HEADER = 16
BLOCK = 10
WIDE = 8  # matrices of so many columns are multiplied by BLAS
LEVEL = 10
BATCH = 32  # groups that are eliminated together
# Header: 0 length, 1 shared designs, 2 n, 3 p, 4 blocks, 5 levels, then places in the buffer of:
# 6 population priors, 7 their arguments (u0, P), 8 gamma (gamma0, C), 9 M'M, 10 block table,
# 11 level table, 12 prior of sigma, or -1 and the known sigma; 13 number of coordinates;
# 14 sampled blocks (their rows of the level table come last), 15 their place, see
# `hmlm.likelihoods.sampled_kernel`.
# Block: 0 q, 1 copies, 2 level, 3 first column in the level, 4 place of T^-1, 5 place of priors,
# 6 first coordinate, 7 correlated parts, 8 place of their sizes, 9 eta.
# Level: 0 groups, 1 q, 2 outer columns, 3 place of S, 4 place of B, 5 place of parents,
# 6 parents' number; the finest level with shared designs, alone: 3 distinct Z'Z, 4 pairs,
# 5 counts; in a tree: 3 S, 4 B without M, 7 sums of B's M, 8 pairs, 9 counts.


@nb.njit(nogil=True, error_model="numpy")
def sech2(x):  # type: ignore[no-untyped-def]
    """Return 1 - tanh(x)^2, exact where tanh(x) rounds to one, and its logarithm."""
    e = exp(-2.0 * abs(x))
    return 4.0 * e / ((1.0 + e) * (1.0 + e)), LOG4 - 2.0 * abs(x) - 2.0 * log1p(e)


@nb.njit(nogil=True, error_model="numpy")
def correlation_factor(x, at, start, size, eta, L):  # type: ignore[no-untyped-def]
    """Fill the Cholesky factor of one part's correlations; return LKJ density with Jacobian.

    Partial correlations are tanh(x); Lewandowski, Kurowicka & Joe (2009) and the Stan Reference
    Manual, section 10.12.
    """
    lp = 0.0
    c = at
    L[start, start] = 1.0
    for i in range(1, size):
        log_rest = 0.0
        for k in range(i):
            L[start + i, start + k] = tanh(x[c]) * exp(0.5 * log_rest)
            log_left = sech2(x[c])[1]
            lp += log_left + 0.5 * log_rest
            log_rest += log_left
            c += 1
        L[start + i, start + i] = exp(0.5 * log_rest)
        lp += 0.5 * (size - i - 1 + 2.0 * eta - 2.0) * log_rest
    return lp


@nb.njit(nogil=True, error_model="numpy")
def correlation_gradient(x, at, start, size, eta, L, GL, g):  # type: ignore[no-untyped-def]
    """Add the derivative by the partial correlations' coordinates, GL that of the factor."""
    c = at
    for i in range(1, size):
        log_rest = 0.0
        for k in range(i):
            w = tanh(x[c])
            left, log_left = sech2(x[c])
            d = GL[start + i, start + k] * left * exp(0.5 * log_rest)
            for m in range(k + 1, i + 1):
                d -= GL[start + i, start + m] * L[start + i, start + m] * w
            d -= (size - i - 1 + 2.0 * eta - 2.0 + 2.0 + (i - 1 - k)) * w
            g[c] += d
            log_rest += log_left
            c += 1


@nb.njit(nogil=True, error_model="numpy")
def eliminate_group(S, L, q, A, H, W):  # type: ignore[no-untyped-def]
    """Fill A^-1, H = L A^-1 and W = L A^-1 L' for A = I + L'S L; return log|A|."""
    if q == 1:
        a = 1.0 / (1.0 + L[0, 0] * S[0, 0] * L[0, 0])
        A[0, 0] = a
        H[0, 0] = L[0, 0] * a
        W[0, 0] = H[0, 0] * L[0, 0]
        return -log(a)
    if q == 2:
        t00 = S[0, 0] * L[0, 0] + S[0, 1] * L[1, 0]
        t01 = S[0, 0] * L[0, 1] + S[0, 1] * L[1, 1]
        t10 = S[1, 0] * L[0, 0] + S[1, 1] * L[1, 0]
        t11 = S[1, 0] * L[0, 1] + S[1, 1] * L[1, 1]
        a00 = 1.0 + L[0, 0] * t00 + L[1, 0] * t10
        a01 = L[0, 0] * t01 + L[1, 0] * t11
        a11 = 1.0 + L[0, 1] * t01 + L[1, 1] * t11
        det = a00 * a11 - a01 * a01
        i00, i01, i11 = a11 / det, -a01 / det, a00 / det
        A[0, 0], A[0, 1], A[1, 0], A[1, 1] = i00, i01, i01, i11
        H[0, 0] = L[0, 0] * i00 + L[0, 1] * i01
        H[0, 1] = L[0, 0] * i01 + L[0, 1] * i11
        H[1, 0] = L[1, 0] * i00 + L[1, 1] * i01
        H[1, 1] = L[1, 0] * i01 + L[1, 1] * i11
        W[0, 0] = H[0, 0] * L[0, 0] + H[0, 1] * L[0, 1]
        W[0, 1] = H[0, 0] * L[1, 0] + H[0, 1] * L[1, 1]
        W[1, 0] = W[0, 1]
        W[1, 1] = H[1, 0] * L[1, 0] + H[1, 1] * L[1, 1]
        return log(det)
    wide = q >= WIDE and A.shape[0] == q
    if wide:
        W[:, :] = np.dot(L.T, np.dot(S, L))
        for a in range(q):
            W[a, a] += 1.0
    else:
        for a in range(q):
            for b in range(q):
                acc = 0.0
                for k in range(q):
                    acc += S[a, k] * L[k, b]
                H[a, b] = acc
        for a in range(q):
            for b in range(a + 1):
                acc = 0.0
                for k in range(q):
                    acc += L[k, a] * H[k, b]
                W[a, b] = acc
            W[a, a] += 1.0
    half = 0.0
    for a in range(q):
        for b in range(a + 1):
            acc = W[a, b]
            for k in range(b):
                acc -= W[a, k] * W[b, k]
            if a == b:
                if not acc > 0.0:
                    return np.nan
                W[a, a] = sqrt(acc)
                half += log(W[a, a])
            else:
                W[a, b] = acc / W[b, b]
    for col in range(q):
        for a in range(col, q):
            acc = 1.0 if a == col else 0.0
            for k in range(col, a):
                acc -= W[a, k] * A[k, col]
            A[a, col] = acc / W[a, a]
        for a in range(q - 1, col - 1, -1):
            acc = A[a, col]
            for k in range(a + 1, q):
                acc -= W[k, a] * A[k, col]
            A[a, col] = acc / W[a, a]
    for a in range(q):
        for b in range(a):
            A[b, a] = A[a, b]
    if wide:
        H[:, :] = np.dot(L, A)
        W[:, :] = np.dot(H, L.T)
        return 2.0 * half
    for a in range(q):
        for b in range(q):
            acc = 0.0
            for k in range(q):
                acc += L[a, k] * A[k, b]
            H[a, b] = acc
    for a in range(q):
        for b in range(q):
            acc = 0.0
            for k in range(q):
                acc += H[a, k] * L[b, k]
            W[a, b] = acc
    return 2.0 * half


@nb.njit(nogil=True, error_model="numpy")
def pull_group(S, W, H, Wbar, q, count, G, T):  # type: ignore[no-untyped-def]
    """Add 2 (I - S W) Wbar H + 2 count S H, the derivative by L, to G; T is scratch."""
    if q >= WIDE and Wbar.shape[0] == q:
        inner = Wbar - np.dot(S, np.dot(W, Wbar)) + count * S
        G[:, :] += 2.0 * np.dot(inner, H)
        return
    for a in range(q):
        for b in range(q):
            acc = 0.0
            for k in range(q):
                acc += W[a, k] * Wbar[k, b]
            T[a, b] = acc
    for a in range(q):
        for b in range(q):
            acc = Wbar[a, b]
            for k in range(q):
                acc += S[a, k] * ((count if k == b else 0.0) - T[k, b])
            T[q + a, b] = acc
    for a in range(q):
        for b in range(q):
            acc = 0.0
            for k in range(q):
                acc += T[q + a, k] * H[k, b]
            G[a, b] += 2.0 * acc


@nb.njit(nogil=True, error_model="numpy")
def shared_designs(ZZ, pairs, counts, v, is2, L, Kv, G):  # type: ignore[no-untyped-def]
    """Integrate out one factor whose groups share designs.

    Fills Kv with M'V^-1 M v and G with the derivative of log|V| + v'Kv / sigma^2 by L; Kv comes in
    as M'M v. Returns log|V|.
    """
    n_designs, q, m = ZZ.shape[0], ZZ.shape[1], v.shape[0]
    A, H, W = np.empty((q, q)), np.empty((q, q)), np.empty((q, q))
    Wbar, T, r = np.empty((q, q)), np.empty((2 * q, q)), np.empty(m)
    log_det = 0.0
    for d in range(n_designs):
        log_det += counts[d] * eliminate_group(ZZ[d], L, q, A, H, W)
        at = 0
        for a in range(q):
            for b in range(a + 1):
                u = 0.0
                for i in range(m):
                    acc = 0.0
                    for k in range(m):
                        acc += pairs[d, at, i, k] * v[k]
                    r[i] = acc
                    u += acc * v[i]
                w = W[a, b]
                for i in range(m):
                    Kv[i] -= w * r[i]
                if a != b:
                    u *= 0.5
                Wbar[a, b] = -u * is2
                Wbar[b, a] = -u * is2
                at += 1
        pull_group(ZZ[d], W, H, Wbar, q, counts[d], G, T)
    return log_det


@nb.njit(nogil=True, error_model="numpy")
def separate_groups(S, B, v, is2, L, Kv, G):  # type: ignore[no-untyped-def]
    """Integrate out one factor group by group; see `shared_designs`."""
    J, q, m = S.shape[0], S.shape[1], v.shape[0]
    if q == 2:
        return _separate_pairs(S, B, v, is2, L, Kv, G)
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
            r[a] = acc
        for a in range(q):
            acc = 0.0
            for b in range(q):
                acc += W[a, b] * r[b]
                Wbar[a, b] = -r[a] * r[b] * is2
            w[a] = acc
        for a in range(q):
            for i in range(m):
                Kv[i] -= B[j, a, i] * w[a]
        pull_group(S[j], W, H, Wbar, q, 1.0, G, T)
    return log_det


@nb.njit(nogil=True, error_model="numpy")
def _separate_pairs(S, B, v, is2, L, Kv, G):  # type: ignore[no-untyped-def]
    """Do what `separate_groups` does for two columns, for several groups in every instruction.

    Matrices are written out; rows of T and sums hold one number of each group of a batch, which
    lets the compiler use vector instructions. Groups that a last batch lacks are zeros: they add
    nothing and have a determinant of one.
    """
    J, m = S.shape[0], v.shape[0]
    l00, l01, l10, l11 = L[0, 0], L[0, 1], L[1, 0], L[1, 1]
    T, sums = np.zeros((8, BATCH)), np.zeros((4, BATCH))
    log_det = 0.0
    for first in range(0, J, BATCH):
        size = min(BATCH, J - first)
        T[:5, size:] = 0.0
        for i in range(size):
            j = first + i
            T[0, i], T[1, i], T[2, i] = S[j, 0, 0], S[j, 0, 1], S[j, 1, 1]
            r0, r1 = 0.0, 0.0
            for k in range(m):
                r0 += B[j, 0, k] * v[k]
                r1 += B[j, 1, k] * v[k]
            T[3, i], T[4, i] = r0, r1
        for i in range(BATCH):
            s00, s01, s11, r0, r1 = T[0, i], T[1, i], T[2, i], T[3, i], T[4, i]
            t00, t01 = s00 * l00 + s01 * l10, s00 * l01 + s01 * l11
            t10, t11 = s01 * l00 + s11 * l10, s01 * l01 + s11 * l11
            a00 = 1.0 + l00 * t00 + l10 * t10
            a01 = l00 * t01 + l10 * t11
            a11 = 1.0 + l01 * t01 + l11 * t11
            det = a00 * a11 - a01 * a01
            inverse = 1.0 / det
            i00, i01, i11 = a11 * inverse, -a01 * inverse, a00 * inverse
            h00, h01 = l00 * i00 + l01 * i01, l00 * i01 + l01 * i11
            h10, h11 = l10 * i00 + l11 * i01, l10 * i01 + l11 * i11
            w00 = h00 * l00 + h01 * l01
            w01 = h00 * l10 + h01 * l11
            w11 = h10 * l10 + h11 * l11
            w0, w1 = w00 * r0 + w01 * r1, w01 * r0 + w11 * r1
            # Wbar - S W Wbar + S with Wbar = -r r' / sigma^2, that is S + (S w - r) r' / sigma^2.
            q0, q1 = r0 * is2, r1 * is2
            u0, u1 = s00 * w0 + s01 * w1 - r0, s01 * w0 + s11 * w1 - r1
            c00, c01, c10, c11 = s00 + u0 * q0, s01 + u0 * q1, s01 + u1 * q0, s11 + u1 * q1
            T[5, i], T[6, i], T[7, i] = w0, w1, det
            sums[0, i] += c00 * h00 + c01 * h10
            sums[1, i] += c00 * h01 + c01 * h11
            sums[2, i] += c10 * h00 + c11 * h10
            sums[3, i] += c10 * h01 + c11 * h11
        product = 1.0  # one logarithm for many determinants
        for i in range(size):
            det = T[7, i]
            if det < 1e100 and product < 1e200:
                product *= det
            else:
                log_det += log(det)
        log_det += log(product)
        for k in range(m):
            acc = 0.0
            for i in range(size):
                acc += B[first + i, 0, k] * T[5, i] + B[first + i, 1, k] * T[6, i]
            Kv[k] -= acc
    for a in range(2):
        for c in range(2):
            G[a, c] += 2.0 * sums[2 * a + c].sum()
    return log_det
