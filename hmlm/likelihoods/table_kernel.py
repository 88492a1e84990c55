"""Poisson counts of few row patterns in many groups: one exponential a group and a pattern.

With mu_ij = n_jc exp(eta_c) exp(b_j) for pattern c in group j, the rows enter through the table n
of how many of each pattern there are and the margins of the counts: no exponential for a row.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from hmlm.likelihoods.vector_kernel import fill_exp


@nb.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def table_likelihood(b, at, effects, eta, slope, d):  # type: ignore[no-untyped-def]
    """Return the log likelihood; add its derivative by the effects and fill that by eta.

    Parameters
    ----------
    b : ndarray
        The model's buffer.
    at : int
        Place of the sums of counts by pattern, those by group, and the table (groups, patterns).
    effects : ndarray, shape (J,)
        Effects of the groups.
    eta : ndarray, shape (C,)
        Linear predictor of the patterns without them.
    slope : ndarray, shape (J,)
        What the derivative by the effects is added to.
    d : ndarray, shape (C,)
        Filled with the derivative by eta.
    """
    J, C = effects.shape[0], eta.shape[0]
    y_at, n_at = at + C, at + C + J
    of_pattern, of_group, reached = np.empty(C), np.empty(J), np.zeros(C)
    fill_exp(eta, of_pattern)
    fill_exp(effects, of_group)
    total = 0.0
    for j in range(J):
        row = n_at + j * C
        acc = 0.0
        for c in range(C):
            acc += b[row + c] * of_pattern[c]
            reached[c] += b[row + c] * of_group[j]
        mu = acc * of_group[j]
        total += b[y_at + j] * effects[j] - mu
        slope[j] += b[y_at + j] - mu
    for c in range(C):
        total += b[at + c] * eta[c]
        d[c] = b[at + c] - of_pattern[c] * reached[c]
    return total
