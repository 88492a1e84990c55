"""The Laplace approximation of the likelihood of a generalised linear mixed model.

With b = Lambda u, u ~ N(0, I), f(u) = log p(y | u) - u'u / 2 and its mode u^,

    log L = f(u^) - log|H| / 2,    H = I + Lambda'Z'W Z Lambda,

where W holds the Fisher information of the rows at the mode, as in lme4 (Bates 2010, chapter 5;
Bates et al. 2015 for the parametrisation). For one scalar factor, adaptive Gauss-Hermite
quadrature takes the place of the approximation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hmlm.design import Block
from hmlm.likelihoods.exponential import RowLikelihood, RowTerms
from hmlm.likelihoods.penalised import Effects, Factored, ScaledEffects, make_effects
from hmlm.likelihoods.quadrature import Quadrature, quadrature

NEWTON_STEPS = 200
CLOSE = 1e-9  # squared Newton step, in units of the curvature, after which the next one is exact
CLOSE_SCORING = 1e-18
PARAMETER_STEP = 1e-4


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class MixedProblem:
    """Data of a generalised linear mixed model, rows sorted by the finest factor.

    Attributes
    ----------
    rows : RowLikelihood
        Outcomes and family.
    Q : ndarray, shape (N, p)
        Population columns with unit information at the coefficients of the model without groups.
    R : ndarray, shape (p, p)
        ``X = Q @ R``: ``gamma = R @ beta``.
    offset : ndarray, shape (N,)
        Known part of the linear predictor.
    effects : Effects
        Group effects.
    nodes : int
        Quadrature nodes; one is the Laplace approximation.
    """

    rows: RowLikelihood
    Q: np.ndarray
    R: np.ndarray
    offset: np.ndarray
    effects: Effects
    nodes: int = 1

    @property
    def n_theta(self) -> int:
        """Number of free entries of Lambda."""
        return len(self.effects.is_diagonal)

    @property
    def size(self) -> int:
        """Number of parameters: theta, gamma and the logarithm of the family's parameter."""
        return self.n_theta + self.Q.shape[1] + self.rows.has_parameter


def mixed_problem(
    rows: RowLikelihood,
    X: np.ndarray,
    offset: np.ndarray | None,
    blocks: Sequence[Block],
    weight: np.ndarray,
    nodes: int = 1,
) -> MixedProblem:
    """Sort the rows and orthogonalise the population columns.

    Parameters
    ----------
    rows : RowLikelihood
        Outcomes and family.
    X : ndarray, shape (N, p)
        Population columns.
    offset : ndarray, shape (N,), optional
        Known part of the linear predictor.
    blocks : sequence of Block
        Group effects.
    weight : ndarray, shape (N,)
        Fisher information of the rows near the estimates.
    nodes : int
        Quadrature nodes.
    """
    effects = make_effects(blocks)
    order = effects.order
    X = X[order]
    root = np.sqrt(np.maximum(weight[order], 1e-6 * weight.max()))[:, None]
    R = np.linalg.qr(root * X, mode="r") if X.shape[1] else np.empty((0, 0))
    return MixedProblem(
        rows=rows.take(order),
        Q=np.ascontiguousarray(np.linalg.solve(R.T, X.T).T) if len(R) else X,
        R=R,
        offset=np.zeros(len(X)) if offset is None else offset[order],
        effects=effects,
        nodes=nodes,
    )


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class LaplacePoint:
    """The approximated log-likelihood at one value of the parameters.

    Attributes
    ----------
    log_likelihood : float
        Its value; minus infinity where the parameters are impossible.
    gradient : ndarray
        Its derivative by theta, gamma and the logarithm of the family's parameter.
    u : ndarray
        Mode of the spherical effects.
    at_mode : RowTerms
        The rows at the mode.
    scaled : ScaledEffects
        Z Lambda.
    H, A : Factored
        I + Lambda'Z'W Z Lambda with the expected information of the rows, and with the observed.
    """

    log_likelihood: float
    gradient: np.ndarray
    u: np.ndarray
    at_mode: RowTerms
    scaled: ScaledEffects
    H: Factored
    A: Factored


@dataclass(eq=False, kw_only=True, slots=True)
class Memory:
    """The last mode, from which the next search starts.

    Attributes
    ----------
    u : ndarray or None
        Spherical effects.
    evaluations, steps : int
        How many evaluations and Newton steps there were.
    """

    u: np.ndarray | None = None
    evaluations: int = 0
    steps: int = field(default=0)


def find_mode(
    rows: RowLikelihood, base: np.ndarray, scaled: ScaledEffects, memory: Memory
) -> tuple[np.ndarray, RowTerms] | None:
    """Maximise log p(y | u) - u'u / 2 by Newton's method, its steps halved where they overshoot.

    Steps use the observed information, raised to a part of the expected one where it is smaller:
    the penalised iteratively reweighted least squares of lme4, but with quadratic convergence for
    links that are not canonical too.

    Returns
    -------
    tuple of ndarray and RowTerms, or None
        The mode and the rows there; None where no effects make the outcome possible.
    """
    zero = np.zeros(scaled.effects.size)
    for u in [zero] if memory.u is None else [memory.u, zero]:
        terms = rows.terms(base + scaled.times(u))
        value = float(terms.log_likelihood.sum()) - 0.5 * float(u @ u)
        if np.isfinite(value):
            break
    else:
        return None
    for _ in range(NEWTON_STEPS):
        memory.steps += 1
        g = scaled.transposed(terms.score) - u
        w = terms.observed
        exact = rows.canonical
        if not exact:
            w = np.maximum(w, 0.05 * terms.weight)
            exact = bool((w == terms.observed).all())
        step = scaled.factored(w).solve(g)
        gain = float(g @ step)
        size = 1.0
        while True:
            moved = u + size * step
            there = rows.terms(base + scaled.times(moved))
            better = float(there.log_likelihood.sum()) - 0.5 * float(moved @ moved)
            if better >= value + 1e-4 * size * gain - 1e-10 * abs(value):
                u, terms, value = moved, there, better
                break
            size *= 0.5
            if size < 1e-10:
                return u, terms
        if gain < (CLOSE if exact and size == 1.0 else CLOSE_SCORING):
            break
    memory.u = u
    return u, terms


def laplace(psi: np.ndarray, problem: MixedProblem, memory: Memory) -> LaplacePoint | None:
    """Evaluate the approximated log-likelihood and its gradient.

    The mode moves with the parameters, and H with the mode: with t the derivative of log L by the
    linear predictor, all of it,

        t = s + r - W_obs Z Lambda v,   r_i = -h_i w_i' / 2,   v = A^-1 Lambda'Z'r,

    where s are the scores, h_i the leverages z'Lambda H^-1 Lambda'z, w_i' the slopes of the Fisher
    information, and A is H with the observed information W_obs (Kristensen et al. 2016, section
    2, do the same by automatic differentiation).

    Parameters
    ----------
    psi : ndarray
        theta, gamma, and the logarithm of the family's parameter where there is one.
    problem : MixedProblem
        The data.
    memory : Memory
        The last mode; overwritten.

    Returns
    -------
    LaplacePoint or None
        None where the parameters are impossible.
    """
    k, p = problem.n_theta, problem.Q.shape[1]
    theta, gamma = psi[:k], psi[k : k + p]
    rows = (
        problem.rows.given(float(np.exp(psi[-1]))) if problem.rows.has_parameter else problem.rows
    )
    memory.evaluations += 1
    Lambdas = problem.effects.split(theta)
    scaled = problem.effects.scaled(Lambdas)
    base = problem.offset + problem.Q @ gamma
    found = find_mode(rows, base, scaled, memory)
    if found is None:
        return None
    u, terms = found
    H = scaled.factored(terms.weight)
    A = H if rows.canonical else scaled.factored(terms.observed)
    projected = H.projected()
    h = sum(np.einsum("an,na->n", z, m) for z, m in zip(scaled.rows, projected, strict=True))
    eta = base + scaled.times(u)
    many: Quadrature | None = None
    r = -0.5 * h * terms.weight_slope
    kappa = np.ones(len(h))
    if problem.nodes > 1:
        many = quadrature(rows, base, scaled, u, H, problem.nodes)
        kappa = many.kappa.take(problem.effects.factors[0].index)
        r = r * kappa
        value, score = many.log_likelihood, many.score
        v = A.solve(scaled.transposed(r) + many.slope)
    else:
        value = float(terms.log_likelihood.sum()) - 0.5 * float(u @ u) - 0.5 * H.log_det
        score = terms.score
        v = A.solve(scaled.transposed(r))
    Zv = scaled.times(v)
    indirect = r - terms.observed * Zv
    gradient = np.empty(len(psi))
    gradient[k : k + p] = problem.Q.T @ (score + indirect)
    start = 0
    for factor, m in zip(problem.effects.factors, projected, strict=True):
        u_rows, v_rows = factor.rows_of(u), factor.rows_of(v)
        if many is None:
            slope = (factor.Z * (score + indirect)) @ u_rows
        else:
            slope = (factor.Z * indirect) @ u_rows + (factor.Z @ many.score_u)[:, None]
        slope += (factor.Z * terms.score) @ v_rows - (factor.Z * (kappa * terms.weight)) @ m
        gradient[start : start + factor.shape.size] = factor.shape.pack(slope)
        start += factor.shape.size
    if rows.has_parameter:
        up, down = (
            problem.rows.given(float(np.exp(psi[-1] + d)))
            for d in (PARAMETER_STEP, -PARAMETER_STEP)
        )
        high, low = up.terms(eta), down.terms(eta)
        by_row = Zv * (high.score - low.score) - 0.5 * kappa * h * (high.weight - low.weight)
        if many is None:
            direct = (high.log_likelihood - low.log_likelihood).sum()
        else:
            direct = (many.posterior * (many.sums(up) - many.sums(down))).sum()
        gradient[-1] = (direct + by_row.sum()) / (2 * PARAMETER_STEP)
    return LaplacePoint(
        log_likelihood=value, gradient=gradient, u=u, at_mode=terms, scaled=scaled, H=H, A=A
    )
