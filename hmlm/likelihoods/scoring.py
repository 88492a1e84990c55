"""Fisher scoring for generalised linear models, with or without own coefficients of groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from hmlm.likelihoods.exponential import RowLikelihood, RowTerms
from hmlm.linear import WithinGroups, within_groups
from hmlm.links import to_link

ROUNDS = 100
CLOSE = 1e-12  # squared step over the log-likelihood, at which scoring has arrived
NEAR = 1e-7  # the same, over the log-likelihood, that is near enough where rounding ends the search
PARAMETER_RANGE = (-8.0, 16.0)  # logarithm of the family's parameter


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Predictors:
    """Columns of a linear predictor: population columns, and own columns of groups.

    Attributes
    ----------
    X : ndarray, shape (N, p)
        Population columns.
    offset : ndarray, shape (N,)
        Known part.
    Z : ndarray of shape (N, q), or None
        Columns that have a coefficient in every group.
    index : ndarray of int of shape (N,), or None
        Group of every row.
    J : int
        Number of groups.
    """

    X: np.ndarray
    offset: np.ndarray
    Z: np.ndarray | None = None
    index: np.ndarray | None = None
    J: int = 0

    def take(self, rows: np.ndarray) -> Predictors:
        """Return some of the rows."""
        return Predictors(
            X=self.X[rows],
            offset=self.offset[rows],
            Z=None if self.Z is None else self.Z[rows],
            index=None if self.index is None else self.index[rows],
            J=self.J,
        )

    def within(self, root: np.ndarray, response: np.ndarray) -> tuple[np.ndarray, WithinGroups]:
        """Return weighted columns and response inside the groups."""
        M = root[:, None] * np.column_stack([self.X, response])
        if self.Z is None or self.index is None or not len(M):
            empty = np.empty((0, 0))
            none = WithinGroups(
                coefficients=np.empty((0, 0, M.shape[1])),
                residual=M,
                inverse=np.empty((0, 0, 0)),
                estimable=np.empty((0, 0), dtype=bool),
                rank=np.empty(0, dtype=int),
            )
            return (M if len(M) else empty), none
        return M, within_groups(root[:, None] * self.Z, self.index, M)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Solution:
    """Weighted least squares on population columns and own columns of groups.

    Attributes
    ----------
    beta : ndarray, shape (p,)
        Population coefficients, of least length where they are not unique.
    estimable : ndarray of bool, shape (p,)
        Whether the rows determine them.
    covariance : ndarray, shape (p, p)
        Inverse of their information.
    own : ndarray, shape (J, q)
        The groups' own coefficients.
    own_estimable : ndarray of bool, shape (J, q)
        Whether the rows determine them.
    own_covariance : ndarray, shape (J, q, q)
        Inverse of their information.
    gain : ndarray, shape (J, q, p)
        How they fall as beta rises.
    rank : int
        Number of coefficients that the rows determine.
    """

    beta: np.ndarray
    estimable: np.ndarray
    covariance: np.ndarray
    own: np.ndarray
    own_estimable: np.ndarray
    own_covariance: np.ndarray
    gain: np.ndarray
    rank: int


def least_squares(columns: Predictors, weight: np.ndarray, response: np.ndarray) -> Solution:
    """Regress a response on all columns, eliminating the groups' own coefficients first.

    Parameters
    ----------
    columns : Predictors
        Predictors.
    weight : ndarray, shape (N,)
        Weights of the rows.
    response : ndarray, shape (N,)
        What to explain.
    """
    p = columns.X.shape[1]
    M, inside = columns.within(np.sqrt(weight), response)
    residual = inside.residual
    beta, covariance = np.zeros(p), np.zeros((p, p))
    estimable, rank = np.zeros(p, dtype=bool), 0
    if p and len(residual):
        size = np.sqrt((M[:, :p] ** 2).sum(axis=0))
        size = np.where(size > 0, size, 1.0)
        columns_left = residual[:, :p] / size
        columns_left[:, np.sqrt((columns_left**2).sum(axis=0)) < 1e-7] = 0.0
        Q, R = np.linalg.qr(columns_left)
        U, s, Vt = np.linalg.svd(R)
        good = s > 1e-9 * max(float(s[0]), 1e-300)
        rank = int(good.sum())
        V = Vt[: len(s)][good].T
        half = V / s[good] / size[:, None]
        beta = half @ (U[:, : len(s)][:, good].T @ (Q.T @ residual[:, p]))
        covariance = half @ half.T
        estimable = (V**2).sum(axis=1) > 1.0 - 1e-8
    q = 0 if columns.Z is None else columns.Z.shape[1]
    found = len(inside.rank)
    gain = np.zeros((columns.J, q, p))
    own = np.zeros((columns.J, q))
    own_covariance = np.zeros((columns.J, q, q))
    own_estimable = np.zeros((columns.J, q), dtype=bool)
    if found:
        G = inside.coefficients[:, :, :p]
        gain[:found] = G
        own[:found] = inside.coefficients[:, :, p] - G @ beta
        own_covariance[:found] = inside.inverse + np.einsum(
            "jkm,mr,jlr->jkl", G, covariance, G, optimize=True
        )
        # An own coefficient that needs a population coefficient that is not unique is neither.
        needs = np.abs(G[:, :, ~estimable]).max(axis=2, initial=0.0) > 1e-9
        own_estimable[:found] = inside.estimable & ~needs
    return Solution(
        beta=beta,
        estimable=estimable,
        covariance=covariance,
        own=own,
        own_estimable=own_estimable,
        own_covariance=own_covariance,
        gain=gain,
        rank=rank + int(inside.rank.sum()),
    )


def predictor_of(columns: Predictors, solution: Solution) -> np.ndarray:
    """Return the linear predictor of a solution."""
    eta = columns.offset + columns.X @ solution.beta
    if columns.Z is not None:
        eta = eta + np.einsum("nk,nk->n", columns.Z, solution.own[columns.index])
    return np.asarray(eta)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Scored:
    """The maximum that scoring found.

    Attributes
    ----------
    rows : RowLikelihood
        Outcomes at the family parameter found.
    eta : ndarray, shape (N,)
        Linear predictor.
    at : RowTerms
        The rows there.
    log_likelihood : float
        The maximum.
    converged : bool
        Whether the last step was small.
    """

    rows: RowLikelihood
    eta: np.ndarray
    at: RowTerms
    log_likelihood: float
    converged: bool


def fisher_scoring(
    rows: RowLikelihood, columns: Predictors, start: np.ndarray | None = None
) -> Scored:
    """Maximise the likelihood by iteratively reweighted least squares, with step halving.

    Parameters
    ----------
    rows : RowLikelihood
        Outcomes and family.
    columns : Predictors
        Predictors.
    start : ndarray, shape (N,), optional
        Linear predictor to start from, inside the span of the columns; the outcome when None.

    References
    ----------
    .. [1] McCullagh and Nelder (1989), Generalized Linear Models, 2nd ed., section 2.5.
    """
    eta = _first(rows, columns) if start is None else start
    at = rows.terms(eta)
    value = float(at.log_likelihood.sum())
    gain = np.inf
    for _ in range(ROUNDS):
        weight = _floored(at.weight)
        aim = predictor_of(
            columns, least_squares(columns, weight, eta - columns.offset + at.score / weight)
        )
        gain = float(at.score @ (aim - eta))
        if not gain > CLOSE * max(1.0, abs(value)):
            # One more step is exact where the weights are the observed information.
            last = rows.terms(aim)
            total = float(last.log_likelihood.sum())
            if total >= value - 1e-12 * abs(value):
                eta, at, value = aim, last, total
            return Scored(rows=rows, eta=eta, at=at, log_likelihood=value, converged=True)
        size = 1.0
        while True:
            moved = eta + size * (aim - eta)
            there = rows.terms(moved)
            better = float(there.log_likelihood.sum())
            if better >= value - 1e-12 * abs(value):
                break
            size *= 0.5
            if size < 1e-8:
                break
        if size < 1e-8:  # rounding hides what is left to gain
            break
        eta, at, value = moved, there, better
    near = gain < NEAR * max(1.0, abs(value))
    return Scored(rows=rows, eta=eta, at=at, log_likelihood=value, converged=near)


def _floored(weight: np.ndarray) -> np.ndarray:
    return np.maximum(weight, 1e-12 * float(weight.max(initial=1e-300)))


def _first(rows: RowLikelihood, columns: Predictors) -> np.ndarray:
    """Return a linear predictor in the span of the columns, near the outcome or near its mean."""
    target = rows.start()
    weight = _floored(rows.terms(target).weight)
    eta = predictor_of(columns, least_squares(columns, weight, target - columns.offset))
    if np.isfinite(rows.terms(eta).log_likelihood.sum()):
        return eta
    level = float(to_link(rows.family.link, rows.share))
    flat = least_squares(columns, np.ones(len(target)), level - columns.offset)
    return predictor_of(columns, flat)


def maximise(rows: RowLikelihood, columns: Predictors) -> Scored:
    """Maximise the likelihood over the coefficients and, where there is one, the parameter.

    The parameter maximises the likelihood profiled over the coefficients.
    """
    if not rows.has_parameter:
        return fisher_scoring(rows, columns)
    last: list[Scored] = []

    def profile(log_parameter: float) -> float:
        start = last[-1].eta if last else None
        last.append(fisher_scoring(rows.given(float(np.exp(log_parameter))), columns, start))
        return -last[-1].log_likelihood

    best = minimize_scalar(
        profile, bounds=PARAMETER_RANGE, method="bounded", options={"xatol": 1e-9, "maxiter": 200}
    )
    return fisher_scoring(rows.given(float(np.exp(best.x))), columns, last[-1].eta)
