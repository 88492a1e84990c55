"""Maximum likelihood of generalised linear mixed models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmlm.design import Design
from hmlm.errors import DataError, HmlmError
from hmlm.fitting.classical_fit import ClassicalFit, GroupEffects
from hmlm.fitting.irls import (
    check_family,
    edge_words,
    rows_of,
    separated_terms,
    separation_words,
)
from hmlm.fitting.maximum_likelihood import singular_words
from hmlm.fitting.settings import check_whole
from hmlm.likelihoods.covariance import sds_and_correlations
from hmlm.likelihoods.laplace import MixedProblem, mixed_problem
from hmlm.likelihoods.laplace_optimum import LaplaceOptimum, best_laplace, laplace_covariance
from hmlm.likelihoods.scoring import PARAMETER_RANGE, Predictors, least_squares, maximise
from hmlm.likelihoods.threads import one_blas_thread
from hmlm.status import Status

SETTINGS_AT_LEAST = {"nodes": 1, "max_iterations": 1}
MOST_NODES = 25


@dataclass(frozen=True, kw_only=True, slots=True)
class Laplace:
    """Maximum likelihood with the group effects integrated out approximately.

    For non-gaussian outcomes the integral over the group effects has no closed form. The Laplace
    approximation puts a normal density at the mode of the effects, for any number of factors,
    nested or crossed, with correlated slopes: the likelihood of R's ``glmer``, in its
    parametrisation. With more than one node, the effects of a model with one scalar factor are
    integrated out by adaptive Gauss-Hermite quadrature, which is as exact as its nodes are many.

    All parameters are optimised together with the analytic gradient of the approximation. Standard
    errors come from the observed information about all parameters, as in ``glmer``; tests are by
    the normal distribution. The log-likelihood has all its constants, also with quadrature.

    Parameters
    ----------
    nodes : int
        Quadrature nodes: 1, the Laplace approximation, to 25.
    max_iterations : int
        Most iterations of the optimiser.

    Raises
    ------
    HmlmError
        If a setting is out of range.

    References
    ----------
    .. [1] Bates, Maechler, Bolker and Walker (2015), Fitting linear mixed-effects models using
       lme4, Journal of Statistical Software 67(1), section 2.
    .. [2] Tierney and Kadane (1986), Accurate approximations for posterior moments and marginal
       densities, JASA 81, 82-86.
    .. [3] Pinheiro and Bates (1995), Approximations to the log-likelihood function in the
       nonlinear mixed-effects model, Journal of Computational and Graphical Statistics 4, 12-35.
    .. [4] Kristensen, Nielsen, Berg, Skaug and Bell (2016), TMB: automatic differentiation and
       Laplace approximation, Journal of Statistical Software 70(5), section 2.

    Examples
    --------
    >>> import hmlm
    >>> cbpp = hmlm.load_dataset("cbpp")
    >>> model = hmlm.Model("p(incidence, size) ~ period + (1 | herd)", cbpp, family="binomial")
    >>> fit = model.fit(hmlm.Laplace())
    >>> round(fit.log_likelihood, 4), fit.estimates["sd_herd"].round(3).tolist()
    (-92.0263, [0.642])
    """

    nodes: int = 1
    max_iterations: int = 500

    def __post_init__(self) -> None:
        """Check the settings."""
        check_whole(self, SETTINGS_AT_LEAST)
        if self.nodes > MOST_NODES:
            raise HmlmError(
                f"nodes is at most {MOST_NODES}, not {self.nodes}: more change nothing that can be "
                "seen."
            )

    def __str__(self) -> str:
        """Return the name of the method."""
        return "Laplace" if self.nodes == 1 else f"AGQ ({self.nodes} nodes)"

    def run(
        self, design: Design, *, random_seed: int | None = None, progressbar: bool = False
    ) -> ClassicalFit:
        """Fit a design.

        Raises
        ------
        HmlmError
            If there is nothing to pool, the family has no likelihood here, or quadrature is asked
            for more than one factor or effect.
        DataError
            If no coefficients make the outcome possible.
        """
        check_family(design, self, "hmlm.REML()")
        if design.spec.pooling != "partial" or not design.blocks:
            raise HmlmError(
                f"{self} estimates how much to pool, and this model does not pool partially: use "
                "hmlm.GLM(), or add a group term such as (1 | group)."
            )
        if self.nodes > 1 and (len(design.blocks) > 1 or len(design.blocks[0].columns) > 1):
            raise HmlmError(
                "quadrature integrates over one effect of one factor, such as (1 | group), and "
                f"this model has {' + '.join(map(str, design.spec.group_terms))}: use "
                "hmlm.Laplace() with nodes=1."
            )
        with one_blas_thread():
            return _fit(design, self)


def _fit(design: Design, method: Laplace) -> ClassicalFit:
    n = len(design.y)
    offset = np.zeros(n) if design.offset is None else design.offset
    columns = Predictors(X=design.X, offset=offset)
    first = maximise(rows_of(design), columns)
    lost, separated = separated_terms(first.rows, columns, first.at.weight)
    problems = []
    if lost.any():
        problems.append(separation_words(design, lost, separated, "the figures mean nothing"))
    weight = np.maximum(first.at.weight, 1e-4 * first.at.weight.max())
    problem = mixed_problem(
        first.rows, design.X, design.offset, design.blocks, weight, method.nodes
    )
    gamma = problem.R @ least_squares(columns, weight, first.eta - offset).beta
    log_parameter = float(np.log(first.rows.parameter)) if first.rows.has_parameter else 0.0
    best = best_laplace(problem, gamma, log_parameter, method.max_iterations)
    if best is None:
        raise DataError(
            f"no coefficients were found under which all {design.n_rows:,} outcomes are possible "
            f"with the {design.spec.family.link} link: use another link."
        )
    covariance, observed = laplace_covariance(best, problem)
    return _finish(design, method, problem, best, covariance, observed, problems)


def _finish(
    design: Design,
    method: Laplace,
    problem: MixedProblem,
    best: LaplaceOptimum,
    covariance: np.ndarray,
    observed: bool,
    problems: list[str],
) -> ClassicalFit:
    k, p = problem.n_theta, design.X.shape[1]
    point, psi = best.point, best.psi
    half = np.linalg.inv(problem.R) if p else np.empty((0, 0))
    found: dict[str, np.ndarray] = {"beta": half @ psi[k : k + p]}
    notes = []
    if best.message:
        problems.append(
            f"The optimiser did not converge: {best.message}. Rescale the predictors or simplify "
            "the group terms."
        )
    for name in design.parameters:
        found[name] = np.array(np.exp(psi[-1]))
        low, high = (abs(psi[-1] - end) < 0.01 for end in PARAMETER_RANGE)
        if low or high:
            problems.append(edge_words(name, high, design))
    if not observed:
        notes.append(
            "The observed information is not positive definite: standard errors hold the variances "
            "of the groups as known."
        )
    effects, singular = {}, []
    w = point.at_mode.observed
    response = point.scaled.transposed(w[:, None] * problem.Q) if p else np.empty((len(point.u), 0))
    gains = point.A.solve(response) if p else response
    own = point.H.own_blocks()
    Lambdas = problem.effects.split(psi[:k])
    for factor, Lambda, block_inverse in zip(problem.effects.factors, Lambdas, own, strict=True):
        block = factor.block
        J, q = factor.J, len(Lambda)
        to_user = factor.T @ Lambda
        effects[block.group] = GroupEffects(
            modes=point.u[factor.place].reshape(J, q) @ to_user.T,
            covariance=to_user @ block_inverse @ to_user.T,
            gain=to_user @ gains[factor.place].reshape(J, q, p) @ problem.R,
            estimable=np.ones((J, q), dtype=bool),
        )
        sd, cor = sds_and_correlations(to_user @ to_user.T)
        found[f"b_{block.group}"] = effects[block.group].modes
        found[f"sd_{block.group}"] = sd
        if block.correlated:
            found[f"cor_{block.group}"] = cor
        singular += singular_words(block, Lambda, "chance explains")
    return ClassicalFit(
        design=design,
        method=method,
        status=Status(
            converged=not problems,
            problems=tuple(problems),
            notes=(*notes, *singular, *design.notes),
            numbers={
                "gradient": best.steepest,
                "singular": float(bool(singular)),
                "evaluations": float(best.evaluations),
            },
        ),
        estimates={name: found[name] for name in design.dims},
        vcov=half @ covariance @ half.T,
        df=np.full(p, np.inf),
        log_likelihood=point.log_likelihood,
        criterion=-2 * point.log_likelihood,
        n_parameters=len(psi),
        n_effective=design.n_rows,
        effects={b.group: effects[b.group] for b in design.blocks},
    )
