"""Exact draws of the group effects given the draws of everything else, compiled once."""

from __future__ import annotations

from math import sqrt

import numba as nb
import numpy as np

from hmlm.likelihoods.kernel import LEVEL
from hmlm.likelihoods.tree_kernel import _own_space, _view, go_up, space_needed


@nb.njit(nogil=True, error_model="numpy")
def draw_tree_effects(b, n_levels, V, Lambdas, sigmas, normals, out):  # type: ignore[no-untyped-def]
    """Draw the effects of every level from the root down, for every draw of the parameters.

    Parameters
    ----------
    b : ndarray
        Level table and arrays; see `hmlm.likelihoods.kernel`.
    n_levels : int
        Number of levels.
    V : ndarray, shape (draws, m)
        Coefficients of the columns of M: (-gamma, 1).
    Lambdas : ndarray, shape (draws, sum of q^2)
        Lambda of every level, flat.
    sigmas : ndarray, shape (draws,)
        Residual sds.
    normals, out : ndarray, shape (draws, number of effects)
        Standard normal numbers, and where the effects go, level after level.
    """
    table = 16
    m = V.shape[1]
    space = np.zeros(space_needed(b, table, n_levels, m))
    q_max, z_max = 0, 0
    begins, places, l_places = (
        np.zeros(n_levels, np.int64),
        np.zeros(n_levels, np.int64),
        np.zeros(n_levels, np.int64),
    )
    effect_at, space_at, l_at = 0, 0, 0
    for ell in range(n_levels):
        t = table + LEVEL * ell
        J, q, z = int(b[t]), int(b[t + 1]), int(b[t + 2])
        begins[ell], places[ell], l_places[ell] = effect_at, space_at, l_at
        effect_at += J * q
        space_at += _own_space(b, t, ell, m) + int(b[t + 6]) * (z + 1) ** 2
        l_at += q * q
        q_max, z_max = max(q_max, q), max(z_max, z)
    A, x, mean = np.empty((q_max, q_max)), np.empty(q_max), np.empty(q_max)
    outer = np.empty(z_max)
    for s in range(V.shape[0]):
        space[:] = 0.0
        go_up(b, table, n_levels, V[s], Lambdas[s], space)
        for ell in range(n_levels - 1, -1, -1):
            t = table + LEVEL * ell
            J, q, z = int(b[t]), int(b[t + 1]), int(b[t + 2])
            at = places[ell]
            S = _view(space, at, (J, q, q))
            B = _view(space, at + J * q * q, (J, q, z + 1))
            W = _view(space, at + J * (2 * q * q + q * (z + 1)), (J, q, q))
            L = Lambdas[s, l_places[ell] : l_places[ell] + q * q].reshape((q, q))
            for j in range(J):
                _outer_effects(b, table, n_levels, ell, j, begins, out[s], outer)
                for a in range(q):
                    acc = B[j, a, z]
                    for c in range(z):
                        acc -= B[j, a, c] * outer[c]
                    x[a] = acc
                for a in range(q):
                    acc = 0.0
                    for c in range(q):
                        acc += W[j, a, c] * x[c]
                    mean[a] = acc
                _factor(S[j], L, q, A)
                first = begins[ell] + j * q
                for a in range(q - 1, -1, -1):
                    acc = normals[s, first + a]
                    for c in range(a + 1, q):
                        acc -= A[c, a] * x[c]
                    x[a] = acc / A[a, a]
                for a in range(q):
                    acc = 0.0
                    for c in range(q):
                        acc += L[a, c] * x[c]
                    out[s, first + a] = mean[a] + sigmas[s] * acc


@nb.njit(nogil=True, error_model="numpy")
def _outer_effects(b, table, n_levels, ell, j, begins, effects, outer):  # type: ignore[no-untyped-def]
    """Gather the effects of all the levels that group j lies in."""
    k, at = j, 0
    for up in range(ell + 1, n_levels):
        k = int(b[int(b[table + LEVEL * (up - 1) + 5]) + k])
        q = int(b[table + LEVEL * up + 1])
        for a in range(q):
            outer[at + a] = effects[begins[up] + k * q + a]
        at += q


@nb.njit(nogil=True, error_model="numpy")
def _factor(S, L, q, A):  # type: ignore[no-untyped-def]
    """Fill the lower Cholesky factor of I + L'S L."""
    for a in range(q):
        for c in range(a + 1):
            acc = 1.0 if a == c else 0.0
            for d in range(q):
                for e in range(q):
                    acc += L[d, a] * S[d, e] * L[e, c]
            for d in range(c):
                acc -= A[a, d] * A[c, d]
            if a == c:
                A[a, a] = sqrt(acc)
            else:
                A[a, c] = acc / A[c, c]
