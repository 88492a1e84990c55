"""Cutpoints of an ordinal outcome from their coordinates, in machine code."""

from __future__ import annotations

from math import exp

import numba as nb
import numpy as np

from hmlm.likelihoods.prior_kernel import prior_logp


@nb.njit(nogil=True, error_model="numpy")
def cutpoints_forward(b, x, cuts, g):  # type: ignore[no-untyped-def]
    """Fill the cutpoints from their coordinates; return the log prior density with Jacobian."""
    K, first, at, s_at = int(b[8]), int(b[17]), int(b[16]), int(b[18])
    shift, p = 0.0, 0
    if s_at >= 0 and K > 0:
        t = int(b[13])
        p = int(b[t])
        shift = b[s_at]
        for i in range(p):
            shift += b[s_at + 1 + i] * x[int(b[t + 1]) + i]
    lp, total = 0.0, 0.0
    slopes = np.empty(K)
    for k in range(K):
        if k == 0:
            cuts[k] = x[first]
        else:
            cuts[k] = cuts[k - 1] + exp(x[first + k])
            lp += x[first + k]
            g[first + k] += 1.0
        value, slopes[k] = prior_logp(b[at], b[at + 1], b[at + 2], b[at + 3], cuts[k] + shift)
        lp += value
        total += slopes[k]
    for i in range(p):
        g[int(b[int(b[13]) + 1]) + i] += total * b[s_at + 1 + i]
    cutpoints_pull(b, x, slopes, g)
    return lp


@nb.njit(nogil=True, error_model="numpy")
def cutpoints_pull(b, x, d_cuts, g):  # type: ignore[no-untyped-def]
    """Turn the derivative by the cutpoints into that by their coordinates."""
    K, first = int(b[8]), int(b[17])
    acc = 0.0
    for k in range(K - 1, -1, -1):
        acc += d_cuts[k]
        g[first + k] += acc if k == 0 else acc * exp(x[first + k])
