"""The effective number of parameters of a gaussian fit: the trace of its hat matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from hmlm.design import Design
from hmlm.errors import HmlmError
from hmlm.fitting.classical_fit import ClassicalFit
from hmlm.fitting.maximum_likelihood import classical_fit_at
from hmlm.likelihoods.gaussian import gaussian_sums, known_sigma2
from hmlm.likelihoods.optimum import best_point
from hmlm.likelihoods.profiled import profiled_deviance, shapes_of
from hmlm.likelihoods.threads import one_blas_thread
from hmlm.prediction import effect_covariance

# Effects that depend on each other, as those of crossed factors do, are inverted together.
MOST_TOGETHER = 6_000
_TINY = 1e-10
_STEP = 1e-4


def effective_parameters(fit: ClassicalFit, corrected: bool = False) -> float:
    r"""Return the effective number of coefficients and effects: the trace of the hat matrix.

    The fitted values, group effects included, are H y at given variances. The trace of H lies
    between the number of population coefficients, where effects are pooled to zero, and that of
    all coefficients and effects, where they are not pooled [1]_ [2]_.

    Parameters
    ----------
    fit : ClassicalFit
        A gaussian fit by ML, REML, EM or OLS.
    corrected : bool
        Whether to count the estimation of the variances too, as the trace of the derivative of the
        fitted values by the outcome, to which the variances move as well [3]_. Variances that are
        estimated as zero stay zero. Of fits by ML and REML.

    Returns
    -------
    float
        NaN where more than 6,000 effects would have to be inverted together.

    Raises
    ------
    HmlmError
        If the fit is not gaussian with an identity link, or `corrected` does not apply.

    References
    ----------
    .. [1] Hodges and Sargent (2001), Counting degrees of freedom in hierarchical and other
       richly-parameterised models, Biometrika 88, 367-379.
    .. [2] Vaida and Blanchard (2005), Conditional Akaike information for mixed-effects models,
       Biometrika 92, 351-370, section 3.
    .. [3] Greven and Kneib (2010), On the behaviour of marginal and conditional AIC in linear mixed
       models, Biometrika 97, 773-789, section 4.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.hat_matrix import effective_parameters
    >>> fit = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff")).fit(hmlm.REML())
    >>> round(effective_parameters(fit), 2), round(effective_parameters(fit, corrected=True), 2)
    (4.91, 5.35)
    """
    design = fit.design
    if str(design.spec.family) != "gaussian":
        raise HmlmError(
            f"only a gaussian fit with an identity link has a hat matrix, and this one is "
            f"{design.spec.family}: use hmlm.k_fold(fit) to compare predictions."
        )
    if design.spec.pooling == "none":
        own = sum(float(fit.effects[b.group].estimable.sum()) for b in design.blocks)
        return float(len(design.terms)) + own
    if not design.blocks:
        return float(len(design.terms))
    trace = _hat_trace(design, fit.estimates)
    return trace + _variance_correction(fit) if corrected else trace


def _hat_trace(design: Design, estimates: Mapping[str, Any]) -> float:
    """Return p + T - trace((A^-1)_uu), A the matrix of the equations of beta and spherical u."""
    w = np.ones(len(design.y)) if design.weights is None else design.weights
    half = np.sqrt(w) / float(estimates.get("sigma", 1.0))
    columns = []
    for block in design.blocks:
        D = effect_covariance(estimates, f"sd_{block.group}", f"cor_{block.group}")
        values, vectors = np.linalg.eigh(D)
        # An effect of variance zero costs nothing.
        some = values > _TINY * max(float(values.max()), _TINY)
        root = vectors[:, some] * np.sqrt(values[some])
        r = root.shape[1]
        at = block.index[:, None] * r + np.arange(r)
        row = np.repeat(np.arange(len(w)), r)
        data = half[:, None] * (block.Z @ root)
        shape = (len(w), len(block.levels) * r)
        columns.append(sparse.csr_array((data.ravel(), (row, at.ravel())), shape))
    U = sparse.csr_array(sparse.hstack(columns))
    T = U.shape[1]
    X = design.X * half[:, None]
    B = sparse.coo_array(U.T @ U + sparse.eye_array(T))
    by_x = U.T @ X
    solved = np.empty_like(by_x)  # B^-1 U'X
    trace = 0.0
    count, label = connected_components(B, directed=False) if T else (0, np.empty(0, dtype=int))
    sizes = np.bincount(label, minlength=count)
    if count and sizes.max() > MOST_TOGETHER:
        return float("nan")
    order = np.argsort(label, kind="stable")
    place = np.empty(T, dtype=int)
    place[order] = np.arange(T) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    for size in np.unique(sizes):
        components = np.flatnonzero(sizes == size)
        number = np.full(count, -1)
        number[components] = np.arange(len(components))
        own = number[label[B.row]] >= 0
        row, column = B.row[own], B.col[own]
        dense = np.zeros((len(components), size, size))
        dense[number[label[row]], place[row], place[column]] = B.data[own]
        inverse = np.linalg.inv(dense)
        trace += float(np.trace(inverse, axis1=1, axis2=2).sum())
        members = order[np.isin(label[order], components)].reshape(len(components), size)
        solved[members] = inverse @ by_x[members]
    p = X.shape[1]
    if p:
        S = X.T @ X - by_x.T @ solved
        trace += float(np.trace(np.linalg.solve(S, solved.T @ solved)))
    return p + T - trace


def _variance_correction(fit: ClassicalFit) -> float:
    """Return the sum over rows of what the estimation of the variances adds to dyhat/dy.

    The estimate of theta solves d'(theta, y) = 0, so that dtheta/dy = -d''^-1 ddy', where the
    derivative of the profiled deviance by y is 2 W (y - yhat) / sigma^2.
    """
    design, reml = fit.design, fit.restricted
    with one_blas_thread():
        sums, sigma2 = gaussian_sums(design), known_sigma2(design)
        point, theta, _ = best_point(sums, reml, sigma2=sigma2)
        if not np.isclose(point.deviance, fit.criterion, rtol=1e-6, atol=1e-3):
            raise HmlmError(
                f"the correction is for fits at the maximum of the likelihood, and {fit.label} is "
                "not there: fit the model with hmlm.REML() or hmlm.ML()."
            )
        diagonal = np.concatenate([shape.is_diagonal for shape in shapes_of(sums)])
        free = np.flatnonzero(~diagonal | (np.abs(theta) > 1e-4))
        w = np.ones(len(design.y)) if design.weights is None else design.weights

        def around(at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            point = profiled_deviance(at, sums, reml, sigma2)
            moved = classical_fit_at(design, fit.method, sums, point, at, reml=reml, df="normal")
            sigma = float(moved.estimates.get("sigma", 1.0))
            score = 2.0 * w * (design.y - moved.fitted) / sigma**2
            return moved.fitted, score, point.gradient[free]

        fitted: list[np.ndarray] = []
        score: list[np.ndarray] = []
        curve: list[np.ndarray] = []
        for k in free:
            up, down = theta.copy(), theta.copy()
            up[k] += _STEP * max(1.0, abs(theta[k]))
            down[k] -= _STEP * max(1.0, abs(theta[k]))
            pairs = zip(around(up), around(down), strict=True)
            for kept, (high, low) in zip((fitted, score, curve), pairs, strict=True):
                kept.append((high - low) / (up[k] - down[k]))
    if not len(free):
        return 0.0
    H = np.array(curve)
    moves = np.array(fitted) @ np.array(score).T  # by theta_k, by theta_l
    return float(-np.trace(np.linalg.pinv(0.5 * (H + H.T), rcond=1e-8, hermitian=True) @ moves.T))
