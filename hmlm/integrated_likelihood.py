"""The likelihood of parameters with the group effects integrated out, at draws of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import sparse

from hmlm.blocks import Block, Predictor
from hmlm.design import Design
from hmlm.log_likelihood import log_likelihood_rows

Draws = Mapping[str, np.ndarray]
_NUMBERS_AT_ONCE = 2**22
# Effects of several overlapping factors that are integrated together, by dense matrices.
MOST_TOGETHER = 200


def integrate_likelihood(design: Design, posterior: Draws) -> np.ndarray:
    r"""Return log p(y | theta), the group effects integrated out, at draws of theta and effects.

    Parameters
    ----------
    design : Design
        What was fitted.
    posterior : mapping of str to ndarray
        Draws of every variable, the draw on the first axis.

    Returns
    -------
    ndarray, shape (draws,)
        Log likelihoods. Without partial pooling there is nothing to integrate: the sum of the
        log likelihoods of the rows.

    Notes
    -----
    With effects b = L u of standard normal u, l the log likelihood of the rows, g the gradient of
    l - u'u / 2 in u and H minus its matrix of second derivatives,

    .. math:: \log p(y \mid \theta) \approx l - u'u / 2 + g' H^{-1} g / 2 - \log|H| / 2,

    the approximation of Laplace with its mode one Newton step away from the draw [1]_. It is exact
    for a gaussian outcome under an identity link. Derivatives of rows are by differences. Each
    linear predictor is integrated on its own. Where several grouping factors of one have more than
    200 effects together, H is taken factor by factor and the step is left out: the expectation of
    the result's exponential over draws of the effects is then the likelihood as far as the factors
    do not overlap.

    References
    ----------
    .. [1] Tierney and Kadane (1986), Accurate approximations for posterior moments and marginal
       densities, Journal of the American Statistical Association 81, 82-86.

    Examples
    --------
    >>> import numpy as np
    >>> import hmlm
    >>> from hmlm.integrated_likelihood import integrate_likelihood
    >>> model = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))
    >>> ml = model.fit(hmlm.ML())
    >>> at = {name: np.asarray(value)[None] for name, value in ml.estimates.items()}
    >>> anywhere = at | {"b_Batch": np.zeros((1, 6, 1))}
    >>> round(ml.log_likelihood, 3), integrate_likelihood(model.design, anywhere).round(3).tolist()
    (-163.664, [-163.664])
    """
    n_draws = len(next(iter(posterior.values())))
    numbers = max(len(design.y), *(_together(p) ** 2 for p in design.predictors))
    size = max(1, _NUMBERS_AT_ONCE // numbers)
    found = np.empty(n_draws)
    for start in range(0, n_draws, size):
        part = {name: values[start : start + size] for name, values in posterior.items()}
        found[start : start + size] = _integrate(design, part)
    return found


def _integrate(design: Design, posterior: Draws) -> np.ndarray:
    rows = np.asarray(log_likelihood_rows(design, posterior))
    total = np.asarray(rows.sum(axis=1))
    if design.spec.pooling != "partial":
        return total
    for number, p in enumerate(design.predictors):
        if not p.blocks:
            continue
        step = _step(design, p, posterior)
        up = np.asarray(log_likelihood_rows(_shifted(design, number, step), posterior))
        down = np.asarray(log_likelihood_rows(_shifted(design, number, -step), posterior))
        score = (up - down) / (2 * step)
        weight = np.maximum((2 * rows - up - down) / step**2, 0.0)
        if _together(p):
            total = total + _joint(p, posterior, score, weight)
            continue
        for block in p.blocks:
            total = total + _block(p, block, posterior, score, weight, len(p.blocks) == 1)
    return total


def _together(p: Predictor) -> int:
    """Return how many effects of several factors are integrated together; none of one factor."""
    effects = sum(len(b.levels) * len(b.columns) for b in p.blocks)
    return effects if len(p.blocks) > 1 and effects <= MOST_TOGETHER else 0


def _step(design: Design, p: Predictor, posterior: Draws) -> float:
    """Return by how much to move a linear predictor: little beside how effects or rows differ."""
    scale = 0.1
    if not p.name and design.spec.family.link == "identity":
        y = np.log(design.y) if design.spec.family.name == "lognormal" else design.y
        scale *= float(y.std())
    elif not p.name and design.spec.family.link == "inverse":
        scale = 1e-6
    sds = [float(np.median(posterior[p.named(f"sd_{b.group}")])) for b in p.blocks]
    return 1e-2 * max(scale, *sds)


def _shifted(design: Design, number: int, by: float) -> Design:
    """Return a design with one linear predictor moved."""
    p = design.predictors[number]
    offset = by + (np.zeros(len(design.y)) if p.offset is None else p.offset)
    if number == 0:
        return replace(design, offset=offset)
    others = list(design.distributional)
    others[number - 1] = replace(p, offset=offset)
    return replace(design, distributional=tuple(others))


def _root(p: Predictor, block: Block, posterior: Draws) -> np.ndarray:
    """Return L with LL' = D of every draw, shape (draws, q, q)."""
    sd, q = posterior[p.named(f"sd_{block.group}")], len(block.columns)
    cor: Any = posterior.get(p.named(f"cor_{block.group}"))
    root: Any = np.eye(q)
    if cor is not None:
        root = np.linalg.cholesky(0.999999 * cor + 1e-6 * np.eye(q))
    return np.asarray(np.maximum(sd, 1e-12)[:, :, None] * root)


def _sums(values: np.ndarray, index: np.ndarray, cells: int) -> np.ndarray:
    """Sum the rows of each cell, (draws, rows) to (draws, cells)."""
    n = len(index)
    return np.asarray(values @ sparse.csr_array((np.ones(n), (np.arange(n), index)), (n, cells)))


def _block(
    p: Predictor,
    block: Block,
    posterior: Draws,
    score: np.ndarray,
    weight: np.ndarray,
    newton: bool,
) -> np.ndarray:
    """Return what one grouping factor adds to the log likelihood, shape (draws,)."""
    q, J = len(block.columns), len(block.levels)
    L = _root(p, block, posterior)
    slope = np.stack([_sums(score * z, block.index, J) for z in block.Z.T], axis=-1)
    H = np.empty((*slope.shape, q))
    for k in range(q):
        for m in range(k + 1):
            H[..., k, m] = _sums(weight * (block.Z[:, k] * block.Z[:, m]), block.index, J)
            H[..., m, k] = H[..., k, m]
    H = L.swapaxes(1, 2)[:, None] @ H @ L[:, None] + np.eye(q)
    b = posterior[p.named(f"b_{block.group}")]
    u = np.linalg.solve(L[:, None], b[..., None])[..., 0]
    g = slope @ L - u
    added = _laplace(u, g if newton else np.zeros_like(g), H)
    return np.asarray(added.sum(axis=1))


def _joint(p: Predictor, posterior: Draws, score: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return what overlapping factors add to the log likelihood together, shape (draws,)."""
    blocks = [(b, len(b.levels), len(b.columns)) for b in p.blocks]
    starts = np.cumsum([0, *(J * q for _, J, q in blocks)])
    n_draws, T = len(score), int(starts[-1])
    H, L = np.zeros((n_draws, T, T)), np.zeros((n_draws, T, T))
    g, u = np.zeros((n_draws, T)), np.zeros((n_draws, T))
    for (a, J, q), at in zip(blocks, starts, strict=False):
        root = _root(p, a, posterior)
        for k in range(q):
            here = slice(at + k, at + J * q, q)
            g[:, here] = _sums(score * a.Z[:, k], a.index, J)
            for m in range(q):
                rows, columns = at + k + q * np.arange(J), at + m + q * np.arange(J)
                L[:, rows, columns] = root[:, k, m, None]
            for (c, K, r), to in zip(blocks, starts, strict=False):
                cell = a.index * K + c.index
                for m in range(r):
                    sums = _sums(weight * (a.Z[:, k] * c.Z[:, m]), cell, J * K)
                    H[:, here, to + m : to + K * r : r] = sums.reshape(n_draws, J, K)
        b = posterior[p.named(f"b_{a.group}")]
        u[:, at : at + J * q] = np.linalg.solve(root[:, None], b[..., None]).reshape(n_draws, -1)
    H = L.swapaxes(1, 2) @ H @ L + np.eye(T)
    return _laplace(u, (g[:, None] @ L)[:, 0] - u, H)


def _laplace(u: np.ndarray, g: np.ndarray, H: np.ndarray) -> np.ndarray:
    step = np.linalg.solve(H, g[..., None])[..., 0]
    return np.asarray(0.5 * ((g * step).sum(-1) - (u**2).sum(-1) - np.linalg.slogdet(H)[1]))
