"""Nested factors, and few crossed effects at the root, integrated out in compiled code.

The same recursion as `hmlm.likelihoods.tree`, with all columns of M contracted to M v first.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from hmlm.likelihoods.class_kernel import classes_down, classes_up
from hmlm.likelihoods.kernel import LEVEL, eliminate_group, pull_group


@nb.njit(nogil=True, error_model="numpy")
def _view(b, at, shape):  # type: ignore[no-untyped-def]
    size = 1
    for s in shape:
        size *= s
    return b[at : at + size].reshape(shape)


@nb.njit(nogil=True, error_model="numpy")
def _own_space(b, t, ell, m):  # type: ignore[no-untyped-def]
    """Numbers that one level keeps for itself between the way up and the way back."""
    J, q, z = int(b[t]), int(b[t + 1]), int(b[t + 2])
    if ell == 0 and b[1] == 1.0:
        return J * (2 * q * q + q + q * (q + 1) // 2 * (m + 1))
    return J * (3 * q * q + q * (z + 1))


@nb.njit(nogil=True, error_model="numpy")
def _class_views(space, J, q, m):  # type: ignore[no-untyped-def]
    n_pairs = q * (q + 1) // 2
    at = 2 * J * q * q
    return (
        _view(space, 0, (J, q, q)),
        _view(space, J * q * q, (J, q, q)),
        _view(space, at, (J, q)),
        _view(space, at + J * q, (J, n_pairs, m)),
        _view(space, at + J * q + J * n_pairs * m, (J, n_pairs)),
    )


@nb.njit(nogil=True, error_model="numpy")
def _mirror(up):  # type: ignore[no-untyped-def]
    for k in range(up.shape[0]):
        for c in range(up.shape[1]):
            for d in range(c):
                up[k, c, d] = up[k, d, c]


@nb.njit(nogil=True, error_model="numpy")
def space_needed(b, table, n_levels, m):  # type: ignore[no-untyped-def]
    """Return how many numbers `go_up` writes."""
    total = 0
    for ell in range(n_levels):
        t = table + LEVEL * ell
        total += _own_space(b, t, ell, m) + int(b[t + 6]) * (int(b[t + 2]) + 1) ** 2
    return total


@nb.njit(nogil=True, error_model="numpy")
def nested_groups(b, table, n_levels, v, is2, Ls, Kv, Gs):  # type: ignore[no-untyped-def]
    """Integrate out the levels of a tree, then pull the derivative back.

    Parameters
    ----------
    b : ndarray
        The buffer.
    table : int
        Place of the level table.
    n_levels : int
        Number of levels.
    v : ndarray, shape (m,)
        Coefficients of the columns of M: (-gamma, 1).
    is2 : float
        1 / sigma^2.
    Ls, Gs : ndarray
        Lambda of every level, and where its derivative is added, one after the other, flat.
    Kv : ndarray, shape (m,)
        Comes in as M'M v, goes out as M'V^-1 M v.

    Returns
    -------
    float
        log|V|.
    """
    space = np.zeros(space_needed(b, table, n_levels, v.shape[0]))
    log_det = go_up(b, table, n_levels, v, Ls, space)
    _go_down(b, table, n_levels, v, is2, Ls, Kv, Gs, space)
    return log_det


@nb.njit(nogil=True, error_model="numpy")
def go_up(b, table, n_levels, v, Ls, space):  # type: ignore[no-untyped-def]
    """Eliminate from the finest level to the root; `space` keeps every level. Return log|V|."""
    m = v.shape[0]
    widest, q_max = 0, 0
    for ell in range(n_levels):
        t = table + LEVEL * ell
        widest = max(widest, int(b[t + 1]) + int(b[t + 2]) + 1)
        q_max = max(q_max, int(b[t + 1]))
    A, WB = np.empty((q_max, q_max)), np.empty((q_max, widest))
    log_det = 0.0
    at = 0
    l_at = 0
    up_at = 0
    first = 0
    if b[1] == 1.0:
        first = 1
        J, q, z = int(b[table]), int(b[table + 1]), int(b[table + 2])
        n_up, n_pairs = int(b[table + 6]), q * (q + 1) // 2
        H, W, rbar, Pv, U = _class_views(space, J, q, m)
        up_at = _own_space(b, table, 0, m)
        up = _view(space, up_at, (n_up, z + 1, z + 1))
        log_det += classes_up(
            _view(b, int(b[table + 3]), (J, q, q)),
            _view(b, int(b[table + 4]), (J, q, z)),
            _view(b, int(b[table + 7]), (J, q, m)),
            _view(b, int(b[table + 8]), (J, n_pairs, m, m)),
            b[int(b[table + 9]) : int(b[table + 9]) + J],
            b[int(b[table + 5]) : int(b[table + 5]) + J],
            v,
            _view(Ls, 0, (q, q)),
            up,
            H,
            W,
            rbar,
            Pv,
            U,
        )
        _mirror(up)
        at = up_at + n_up * (z + 1) * (z + 1)
        l_at = q * q
    for ell in range(first, n_levels):
        t = table + LEVEL * ell
        J, q, z = int(b[t]), int(b[t + 1]), int(b[t + 2])
        w = z + 1
        S0 = _view(b, int(b[t + 3]), (J, q, q))
        B0 = _view(b, int(b[t + 4]), (J, q, z + m))
        parent = b[int(b[t + 5]) : int(b[t + 5]) + J]
        n_up = int(b[t + 6])
        L = _view(Ls, l_at, (q, q))
        S = _view(space, at, (J, q, q))
        B = _view(space, at + J * q * q, (J, q, w))
        H = _view(space, at + J * (q * q + q * w), (J, q, q))
        W = _view(space, at + J * (2 * q * q + q * w), (J, q, q))
        up = _view(space, at + J * (3 * q * q + q * w), (n_up, w, w))
        below = _view(space, up_at, (J, q + w, q + w)) if ell else up
        for j in range(J):
            for a in range(q):
                for c in range(q):
                    S[j, a, c] = S0[j, a, c]
                for c in range(z):
                    B[j, a, c] = B0[j, a, c]
                acc = 0.0
                for i in range(m):
                    acc += B0[j, a, z + i] * v[i]
                B[j, a, z] = acc
            if ell:
                for a in range(q):
                    for c in range(q):
                        S[j, a, c] -= below[j, a, c]
                    for c in range(w):
                        B[j, a, c] -= below[j, a, q + c]
            log_det += eliminate_group(S[j], L, q, A, H[j], W[j])
            k = int(parent[j])
            for a in range(q):
                for c in range(w):
                    acc = 0.0
                    for d in range(q):
                        acc += W[j, a, d] * B[j, d, c]
                    WB[a, c] = acc
            for c in range(w):
                for d in range(c, w):
                    acc = below[j, q + c, q + d] if ell else 0.0
                    for a in range(q):
                        acc += B[j, a, c] * WB[a, d]
                    up[k, c, d] += acc
        _mirror(up)
        up_at = at + J * (3 * q * q + q * w)
        at = up_at + n_up * w * w
        l_at += q * q
    return log_det


@nb.njit(nogil=True, error_model="numpy")
def _go_down(b, table, n_levels, v, is2, Ls, Kv, Gs, space):  # type: ignore[no-untyped-def]
    """Pull the derivative of log|V| + v'Kv / sigma^2 back from the root."""
    m = v.shape[0]
    q_max, at, l_at, up_at = 0, 0, 0, 0
    for ell in range(n_levels):
        t = table + LEVEL * ell
        q = int(b[t + 1])
        q_max = max(q_max, q)
        l_at += q * q
        up_at = at + _own_space(b, t, ell, m)
        at = up_at + int(b[t + 6]) * (int(b[t + 2]) + 1) ** 2
    A, T = np.empty((q_max, q_max)), np.empty((2 * q_max, q_max))
    first = 1 if b[1] == 1.0 else 0
    # Back: the adjoint of every level's parents replaces what the level had passed up.
    space[up_at] = is2
    for ell in range(n_levels - 1, first - 1, -1):
        t = table + LEVEL * ell
        J, q, z = int(b[t]), int(b[t + 1]), int(b[t + 2])
        w = z + 1
        n_up = int(b[t + 6])
        parent = b[int(b[t + 5]) : int(b[t + 5]) + J]
        B0 = _view(b, int(b[t + 4]), (J, q, z + m))
        at -= J * (3 * q * q + q * w) + n_up * w * w
        l_at -= q * q
        S = _view(space, at, (J, q, q))
        B = _view(space, at + J * q * q, (J, q, w))
        H = _view(space, at + J * (q * q + q * w), (J, q, q))
        W = _view(space, at + J * (2 * q * q + q * w), (J, q, q))
        outer = _view(space, at + J * (3 * q * q + q * w), (n_up, w, w))
        G = _view(Gs, l_at, (q, q))
        below_at = 0
        if ell:
            s = t - LEVEL
            below_at = at - int(b[s + 6]) * (int(b[s + 2]) + 1) ** 2
        mine = _view(space, below_at, (J, q + w, q + w)) if ell else outer
        BE = np.empty((q, w))
        Wbar = np.empty((q, q))
        for j in range(J):
            k = int(parent[j])
            for a in range(q):
                for c in range(w):
                    acc = 0.0
                    for d in range(w):
                        acc += B[j, a, d] * outer[k, d, c]
                    BE[a, c] = acc
            for a in range(q):
                for c in range(q):
                    acc = 0.0
                    for d in range(w):
                        acc -= BE[a, d] * B[j, c, d]
                    Wbar[a, c] = acc
            pull_group(S[j], W[j], H[j], Wbar, q, 1.0, G, T)
            for a in range(q):
                acc = 0.0
                for d in range(q):
                    acc += W[j, a, d] * BE[d, z]
                acc /= is2
                for i in range(m):
                    Kv[i] -= acc * B0[j, a, z + i]
            if ell:
                for a in range(q):
                    for c in range(q):
                        acc = 0.0
                        for d in range(q):
                            acc += W[j, a, d] * Wbar[d, c]
                        A[a, c] = acc
                for a in range(q):
                    for c in range(q):
                        acc = W[j, a, c]
                        for d in range(q):
                            acc -= A[a, d] * W[j, d, c]
                        mine[j, a, c] = acc
                    for c in range(w):
                        acc = 0.0
                        for d in range(q):
                            acc -= W[j, a, d] * BE[d, c]
                        mine[j, a, q + c] = acc
                        mine[j, q + c, a] = acc
                for c in range(w):
                    for d in range(w):
                        mine[j, q + c, q + d] = outer[k, c, d]
    if first:
        J, q, z = int(b[table]), int(b[table + 1]), int(b[table + 2])
        H, W, rbar, Pv, U = _class_views(space, J, q, m)
        classes_down(
            _view(b, int(b[table + 3]), (J, q, q)),
            _view(b, int(b[table + 4]), (J, q, z)),
            _view(b, int(b[table + 7]), (J, q, m)),
            b[int(b[table + 9]) : int(b[table + 9]) + J],
            b[int(b[table + 5]) : int(b[table + 5]) + J],
            _view(space, _own_space(b, table, 0, m), (int(b[table + 6]), z + 1, z + 1)),
            is2,
            H,
            W,
            rbar,
            Pv,
            U,
            Kv,
            _view(Gs, 0, (q, q)),
        )
