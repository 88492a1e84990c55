"""Exact posteriors of small models by quadrature: numpy and scipy alone, nothing of hmlm.

Hyperparameters lie on a grid of Gauss-Legendre nodes. Given them, the coefficients and effects of
a Gaussian model are integrated in closed form with dense matrices (`gaussian_posterior`). For any
other family the coefficients are on the grid too, and the effect of each group is integrated by
adaptive Gauss-Hermite quadrature (`adaptive_posterior`; Pinheiro & Bates 1995, JCGS 4, 12-35).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One axis of the grid: nodes, and the logs of their weights times the prior's density."""

    nodes: np.ndarray
    logs: np.ndarray
    cut: tuple[int, ...]  # ends where the grid cuts the posterior off: 0, -1


def axis(low, high, n, log_prior, cut=(0, -1)):
    """Return Gauss-Legendre nodes between two ends."""
    x, w = special.roots_legendre(n)
    nodes = low + (high - low) * (x + 1) / 2
    return Axis(nodes=nodes, logs=np.log(w) + log_prior(nodes), cut=cut)


def half_normal(high, n, low=0.0, scale=1.0):
    """Return the axis of a standard deviation, all from zero or from a point above it."""
    return axis(low, high, n, lambda s: -0.5 * (s / scale) ** 2, cut=(0, -1) if low else (-1,))


def lkj(n, eta=2.0):
    """Return the axis of one correlation."""
    return axis(-1, 1, n, lambda r: (eta - 1) * np.log1p(-(r**2)), cut=())


def normal(low, high, n, scale):
    """Return the axis of a coefficient."""
    return axis(low, high, n, lambda b: -0.5 * (b / scale) ** 2)


def gaussian_posterior(y, X, prior_sd, axes, covariances, Z):
    """Return ({name: (mean, sd)}, cut) of a Gaussian model.

    Parameters
    ----------
    y, X, Z : arrays of shape (n,), (n, p) and (n, m)
        Outcome and columns of coefficients and effects.
    prior_sd : float
        The priors of the coefficients are normal(0, prior_sd).
    axes : dict of str to Axis
        One for every hyperparameter.
    covariances : callable
        From arrays of hyperparameters, each of shape (G,), to the variances of the errors,
        (G, n), and the covariance matrices of the effects, (G, m, m).

    Returns
    -------
    found : dict
        Of every hyperparameter, of ``beta`` and of ``b``.
    cut : float
        The posterior at the outer nodes over that at its mode: what the grid cuts off.
    """
    p, W = X.shape[1], np.column_stack([X, Z])
    columns, logs = _grid(axes)
    pieces = []
    for part in np.array_split(np.arange(len(logs)), len(logs) // 1500 + 1):
        errors, D = covariances({k: v[part] for k, v in columns.items()})
        P = np.zeros((len(part), W.shape[1], W.shape[1]))
        P[:, :p, :p] = np.eye(p) * prior_sd**2
        P[:, p:, p:] = D
        gain = P @ W.T
        V = W @ gain
        V[:, np.arange(len(y)), np.arange(len(y))] += errors
        log_det = np.linalg.slogdet(V)[1]
        solved = np.linalg.solve(V, np.swapaxes(gain, 1, 2))
        mean = np.swapaxes(solved, 1, 2) @ y
        fit = y @ np.linalg.solve(V, np.broadcast_to(y[:, None], (len(part), len(y), 1)))[..., 0].T
        variance = np.einsum("gkk->gk", P) - np.einsum("gkn,gnk->gk", gain, solved)
        pieces.append((-0.5 * (log_det + fit), mean, variance))
    density, means, variances = (np.concatenate(v) for v in zip(*pieces, strict=True))
    weights, found, cut = _margins(axes, columns, logs, density)
    mean, sd = _mixture(weights, means, variances)
    return {**found, "beta": (mean[:p], sd[:p]), "b": (mean[p:], sd[p:])}, cut


def adaptive_posterior(log_likelihood, group, x, axes, n=21):
    """Return ({name: (mean, sd)}, cut) of a model with effects b_j ~ N(0, sd^2), one a group.

    Parameters
    ----------
    log_likelihood : callable
        From linear predictors, shape (..., rows), to the log densities of the rows.
    group : array of shape (rows,)
        The group of each row, from 0.
    x : array of shape (rows,)
        The column of the slope.
    axes : dict of str to Axis
        Of ``Intercept``, ``x`` and ``sd``.
    n : int
        Nodes of the quadrature over an effect.
    """
    z, w = special.roots_hermitenorm(n)
    member = (group[:, None] == np.arange(group.max() + 1)).astype(float)
    columns, logs = _grid(axes)
    pieces = []
    for part in np.array_split(np.arange(len(logs)), len(logs) // 500 + 1):
        a, slope, sd = (columns[k][part, None] for k in ("Intercept", "x", "sd"))
        eta = a + slope * x

        def height(b, eta=eta, sd=sd):
            """Log joint density of the rows and effect of each group, b of shape (..., G, J)."""
            return log_likelihood(eta + b[..., group]) @ member - 0.5 * (b / sd) ** 2 - np.log(sd)

        b, h = np.zeros((len(part), member.shape[1])), 1e-3 * sd
        for _ in range(30):  # Newton's method, with derivatives by differences
            low, mid, high = height(np.stack([b - h, b, b + h]))
            curvature = (2 * mid - high - low) / h**2
            step = np.clip((high - low) / (2 * h) / curvature, -sd, sd)
            b = b + step
            if np.abs(step / sd).max() < 1e-4:
                break
        spread = curvature**-0.5
        at = b + spread * z[:, None, None]
        terms = height(at) + (z**2 / 2 + np.log(w))[:, None, None] + np.log(spread)
        total = special.logsumexp(terms, axis=0)
        share = np.exp(terms - total)
        mean = (share * at).sum(axis=0)
        pieces.append((total.sum(axis=1), mean, (share * (at - mean) ** 2).sum(axis=0)))
    density, means, variances = (np.concatenate(v) for v in zip(*pieces, strict=True))
    weights, found, cut = _margins(axes, columns, logs, density)
    return {**found, "b": _mixture(weights, means, variances)}, cut


def _grid(axes):
    """Return the coordinates of all nodes, {name: (G,)}, and the logs of weights times priors."""
    mesh = np.meshgrid(*(a.nodes for a in axes.values()), indexing="ij")
    logs = sum(np.meshgrid(*(a.logs for a in axes.values()), indexing="ij"))
    return {k: m.ravel() for k, m in zip(axes, mesh, strict=True)}, logs.ravel()


def _margins(axes, columns, logs, density):
    weights = np.exp(logs + density - special.logsumexp(logs + density))
    found = {name: _mixture(weights, v, np.zeros(len(v))) for name, v in columns.items()}
    table, cut = weights.reshape([len(a.nodes) for a in axes.values()]), 0.0
    for k, a in enumerate(axes.values()):
        margin = table.sum(axis=tuple(j for j in range(table.ndim) if j != k))
        cut = max([cut, *(margin[end] / margin.max() for end in a.cut)])
    return weights, found, cut


def _mixture(weights, means, variances):
    """Return mean and sd of a mixture."""
    mean = weights @ means
    return mean, np.sqrt(weights @ (variances + (means - mean) ** 2))
