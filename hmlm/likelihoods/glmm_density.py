"""The log posterior with sampled group effects as machine code that a sampler can call.

As in `hmlm.likelihoods.density`: `logp_address` is a C function on raw pointers that returns 0, or
a positive code where value or gradient are not finite.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numba as nb
import numpy as np

from hmlm.likelihoods import (
    compiled,
    cutpoint_kernel,
    effect_back_kernel,
    effect_map_kernel,
    family_kernel,
    glmm_kernel,
    kernel,
    predictor_kernel,
    prior_kernel,
    special_kernel,
    table_kernel,
    vector_kernel,
)
from hmlm.likelihoods.compiled import LOGP, as_doubles, fingerprint
from hmlm.likelihoods.family_kernel import likelihood_rows
from hmlm.likelihoods.glmm_kernel import draw_all_effects, glmm_density


def _compile(mark: int) -> tuple[Any, Any, Any]:
    @nb.cfunc(LOGP, cache=True, error_model="numpy")
    def logp(dim, x_, g_, value_, data):  # type: ignore[no-untyped-def]
        if mark == 0:
            return 4
        length = int(nb.carray(as_doubles(data), (1,))[0])
        b = nb.carray(as_doubles(data), (length,))
        x, g = nb.carray(x_, (dim,)), nb.carray(g_, (dim,))
        value = glmm_density(x, b, g)
        nb.carray(value_, (1,))[0] = value
        if not np.isfinite(value):
            return 4
        for i in range(int(dim)):
            if not np.isfinite(g[i]):
                return 3
        return 0

    @nb.njit(cache=True, nogil=True, error_model="numpy")
    def draw(b, X, out):  # type: ignore[no-untyped-def]
        if mark != 0:
            draw_all_effects(b, X, out)

    @nb.njit(cache=True, nogil=True, error_model="numpy")
    def likelihood(family, link, y, n, w, m, eta, p1, p2, cuts, d, d1, d2, d_cuts):  # type: ignore[no-untyped-def]
        if mark == 0:
            return np.nan
        return likelihood_rows(family, link, y, n, w, m, eta, p1, p2, cuts, d, d1, d2, d_cuts)

    return logp, draw, likelihood


logp_address, draw_effects, row_likelihood = _compile(
    fingerprint(
        [
            compiled,
            cutpoint_kernel,
            effect_back_kernel,
            effect_map_kernel,
            family_kernel,
            glmm_kernel,
            kernel,
            predictor_kernel,
            prior_kernel,
            special_kernel,
            table_kernel,
            vector_kernel,
            sys.modules[__name__],
        ]
    )
)


def log_density(x: np.ndarray, buffer: np.ndarray, gradient: np.ndarray) -> float:
    """Return the log posterior at coordinates and fill its gradient, by the sampler's own code."""
    value = np.empty(1)
    doubles = ctypes.POINTER(ctypes.c_double)
    x = np.ascontiguousarray(x, dtype=float)
    logp_address.ctypes(
        len(x),
        x.ctypes.data_as(doubles),
        gradient.ctypes.data_as(doubles),
        value.ctypes.data_as(doubles),
        buffer.ctypes.data,
    )
    return float(value[0])
