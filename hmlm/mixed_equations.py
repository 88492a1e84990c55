"""Coefficients and group effects together at given sds, zero and infinite ones among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize

from hmlm.design import Design


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class LeastSquares:
    """The least-squares problem, rotated so that it has no more rows than columns.

    Attributes
    ----------
    X : ndarray, shape (m, p)
        Population columns, times the roots of the weights.
    Z : mapping of str to ndarray of shape (m, J, q)
        Columns of the effects of every factor.
    y : ndarray, shape (m,)
        Outcome.
    n : int
        Number of rows of the data.
    """

    X: np.ndarray
    Z: dict[str, np.ndarray]
    y: np.ndarray
    n: int


def least_squares(design: Design) -> LeastSquares:
    """Lay out a design with all its effects as one least-squares problem."""
    n, p = design.X.shape
    columns = [design.X]
    for block in design.blocks:
        Z = np.zeros((n, len(block.levels), len(block.columns)))
        Z[np.arange(n), block.index] = block.Z
        columns.append(Z.reshape(n, -1))
    M = np.column_stack([*columns, design.response])
    if design.weights is not None:
        M = M * np.sqrt(design.weights)[:, None]
    if n > M.shape[1]:
        M = np.linalg.qr(M, mode="r")
    Zs, start = {}, p
    for block in design.blocks:
        shape = (len(block.levels), len(block.columns))
        stop = start + shape[0] * shape[1]
        Zs[block.group] = M[:, start:stop].reshape(len(M), *shape)
        start = stop
    return LeastSquares(X=M[:, :p], Z=Zs, y=M[:, -1], n=n)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Solution:
    """Estimates of coefficients and effects at given sds.

    Attributes
    ----------
    u : ndarray, shape (k,)
        Coefficients beta, then the effects of every factor, each level after level.
    half : ndarray, shape (r, k)
        With half' half the covariance of what the data and the finite sds determine.
    open : ndarray, shape (k, d)
        Directions that they leave open.
    sigma : float
        Residual sd.
    """

    u: np.ndarray
    half: np.ndarray
    open: np.ndarray
    sigma: float


def solve_equations(
    problem: LeastSquares,
    design: Design,
    base: dict[str, tuple[np.ndarray, np.ndarray]],
    sds: dict[str, np.ndarray],
    sigma: float | None,
) -> Solution:
    """Minimise |y - X beta - Z b|^2 / sigma^2 + b'D^-1 b over beta and b.

    Effects are b = L u with L L' = D. Those with sds of zero are zero. Those with infinite sds have
    no penalty: where their least-squares problem has many solutions, the limit is that of the
    smallest u'u among them.
    """
    p = problem.X.shape[1]
    finite, infinite = [np.zeros((len(problem.y), 0))], [problem.X]
    roots: list[tuple[np.ndarray, bool, bool]] = []
    for block in design.blocks:
        sd, K = sds[block.group], base[block.group][1]
        free = bool(np.isinf(sd).all())
        L = (base[block.group][0] if free else sd)[:, None] * K
        columns = (problem.Z[block.group] @ L).reshape(len(problem.y), -1)
        there = bool((sd > 0).any())
        if there:
            (infinite if free else finite).append(columns)
        roots.append((L, free, there))
    A, F = np.column_stack(infinite), np.column_stack(finite)
    size = np.sqrt((A**2).sum(axis=0))
    size[size == 0] = 1.0
    Q, S, Vt = np.linalg.svd(A / size, full_matrices=True)
    rank = int((S > 1e-10 * S[0]).sum()) if len(S) else 0
    # The finite effects on what A leaves.
    U, s, V = np.linalg.svd(Q[:, rank:].T @ F, full_matrices=True)
    s[s < 1e-13 * s.max(initial=0.0)] = 0.0  # what A explains, but for rounding
    own = U.T @ (Q[:, rank:].T @ problem.y)
    if sigma is None:
        sigma = _best_sigma(s, own, problem.n - rank)
    precision = np.ones(F.shape[1])
    precision[: len(s)] += (s / sigma) ** 2
    u_F = V[: len(s)].T @ (s * own[: len(s)] / (s**2 + sigma**2))
    half_F = V / np.sqrt(precision)[:, None]
    # A on what they leave.
    inverse = (Vt[:rank].T / S[:rank]) @ Q[:, :rank].T / size[:, None]
    w = inverse @ (problem.y - F @ u_F)
    null = Vt[rank:].T / size[:, None]
    if null.shape[1]:
        null = np.linalg.qr(null)[0]
        w = w - null @ np.linalg.lstsq(null[p:], w[p:], rcond=None)[0]
    half_A = sigma * (Vt[:rank] / S[:rank, None]) / size
    half = np.zeros((rank + F.shape[1], A.shape[1] + F.shape[1]))
    half[:rank, : A.shape[1]] = half_A
    half[rank:, : A.shape[1]] = -half_F @ (inverse @ F).T
    half[rank:, A.shape[1] :] = half_F
    opened = np.vstack([null, np.zeros((F.shape[1], null.shape[1]))])
    whole = _whole(design, roots, A.shape[1], np.column_stack([np.append(w, u_F), half.T, opened]))
    cut = 1 + len(half)
    return Solution(u=whole[:, 0], half=whole[:, 1:cut].T, open=whole[:, cut:], sigma=sigma)


def _whole(
    design: Design, roots: list[tuple[np.ndarray, bool, bool]], split: int, values: np.ndarray
) -> np.ndarray:
    """Turn values by spherical effects into values by coefficients and effects.

    Parameters
    ----------
    design : Design
        The model.
    roots : list of (ndarray of shape (q, q), bool, bool)
        Of every factor L, whether its sds are infinite, and whether it is there at all.
    split : int
        Number of rows of `values` that have no penalty: coefficients and effects.
    values : ndarray, shape (k, m)
        Rows in the order of `solve_equations`.
    """
    p, m = len(design.terms), values.shape[1]
    pieces = [values[:p]]
    places = {True: p, False: split}
    for block, (L, free, there) in zip(design.blocks, roots, strict=True):
        J, q = len(block.levels), len(block.columns)
        if not there:
            pieces.append(np.zeros((J * q, m)))
            continue
        start = places[free]
        places[free] = start + J * q
        own = values[start : start + J * q].reshape(J, q, m)
        pieces.append(np.einsum("kl,jlm->jkm", L, own).reshape(J * q, m))
    return np.concatenate(pieces)


def _best_sigma(s: np.ndarray, own: np.ndarray, free: int) -> float:
    """Return the residual sd at which the restricted likelihood given D is highest.

    -2 l = f log(sigma^2) + sum log(1 + s^2 / sigma^2) + y'(sigma^2 I + F F')^-1 y, with f the
    number of rows less the rank of what has no prior, s the singular values of F, and `own` the
    coordinates of y along F's left singular vectors.
    """
    along, left = own[: len(s)] ** 2, float((own[len(s) :] ** 2).sum())
    if free <= 0 or not left + along.sum() > 0:
        return float("nan")
    if not len(s):
        return float(np.sqrt(left / free))

    def deviance(log_s2: float) -> float:
        s2 = np.exp(log_s2)
        return float(
            free * log_s2 + np.log1p(s**2 / s2).sum() + left / s2 + (along / (s2 + s**2)).sum()
        )

    most = np.log((left + along.sum()) / free)
    best = optimize.minimize_scalar(
        deviance, bounds=(most - 24.0, most + 1.0), method="bounded", options={"xatol": 1e-10}
    )
    return float(np.exp(best.x / 2.0))
