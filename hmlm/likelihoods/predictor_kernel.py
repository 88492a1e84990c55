"""Linear predictors of rows, and derivatives back from them, in machine code."""

from __future__ import annotations

import numba as nb

# For the places in the buffer see `hmlm.likelihoods.glmm_kernel` and `effect_map_kernel`.


@nb.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def population_part(columns, constant, x, eta):  # type: ignore[no-untyped-def]
    """Fill eta of every distinct row pattern; columns has shape (p, patterns)."""
    for i in range(eta.shape[0]):
        eta[i] = constant[i]
    for k in range(columns.shape[0]):
        c = x[k]
        for i in range(eta.shape[0]):
            eta[i] += columns[k, i] * c


@nb.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def population_pull(columns, slope, g):  # type: ignore[no-untyped-def]
    """Add the derivative by the coordinates of beta."""
    for k in range(columns.shape[0]):
        acc = 0.0
        for i in range(slope.shape[0]):
            acc += columns[k, i] * slope[i]
        g[k] += acc


@nb.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def add_effects(b, t, N, effects, eta):  # type: ignore[no-untyped-def]
    """Add the effects of one block to eta of every row."""
    q, J, first, z_at = int(b[t + 1]), int(b[t + 2]), int(b[t + 22]), int(b[t + 11])
    index = b[int(b[t + 10]) : int(b[t + 10]) + N]
    starts_at = int(b[t + 23])
    for a in range(q):
        if starts_at >= 0:
            for j in range(J):
                value = effects[first + j * q + a]
                low, high = int(b[starts_at + j]), int(b[starts_at + j + 1])
                if z_at < 0:
                    for i in range(low, high):
                        eta[i] += value
                else:
                    for i in range(low, high):
                        eta[i] += b[z_at + a * N + i] * value
        elif z_at < 0:
            for i in range(N):
                eta[i] += effects[first + int(index[i]) * q]
        else:
            for i in range(N):
                eta[i] += b[z_at + a * N + i] * effects[first + a + int(index[i]) * q]


@nb.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def pull_effects(b, t, N, d, slope):  # type: ignore[no-untyped-def]
    """Add the derivative by the effects of one block."""
    q, J, first, z_at = int(b[t + 1]), int(b[t + 2]), int(b[t + 22]), int(b[t + 11])
    index = b[int(b[t + 10]) : int(b[t + 10]) + N]
    starts_at = int(b[t + 23])
    if starts_at >= 0:
        for j in range(J):
            low, high = int(b[starts_at + j]), int(b[starts_at + j + 1])
            for a in range(q):
                acc = 0.0
                if z_at < 0:
                    for i in range(low, high):
                        acc += d[i]
                else:
                    for i in range(low, high):
                        acc += d[i] * b[z_at + a * N + i]
                slope[first + j * q + a] += acc
        return
    for a in range(q):
        if z_at < 0:
            for i in range(N):
                slope[first + int(index[i]) * q] += d[i]
        else:
            Z = b[z_at + a * N : z_at + (a + 1) * N]
            for i in range(N):
                slope[first + a + int(index[i]) * q] += Z[i] * d[i]
