"""Maximum likelihood and REML for Gaussian models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hmlm.design import Block, Design
from hmlm.errors import HmlmError, listed
from hmlm.fitting.classical_fit import ClassicalFit, GroupEffects
from hmlm.fitting.degrees_of_freedom import inner_outer
from hmlm.likelihoods.covariance import sds_and_correlations
from hmlm.likelihoods.effects import effect_moments
from hmlm.likelihoods.gaussian import bases_of, blocks_of, gaussian_sums
from hmlm.likelihoods.optimum import SINGULAR, best_point
from hmlm.likelihoods.profiled import (
    ProfiledPoint,
    shapes_of,
    split_theta,
)
from hmlm.likelihoods.threads import one_blas_thread
from hmlm.status import Status


@dataclass(frozen=True, kw_only=True, slots=True)
class REML:
    """Restricted maximum likelihood.

    The variances maximise the likelihood of the residual contrasts, which corrects the downward
    bias of maximum likelihood for the coefficients estimated (Patterson & Thompson 1971).
    Optimised over the relative Cholesky factor with its analytic gradient, as lme4 parametrises it
    (Bates et al. 2015, sections 2 and 3).

    Parameters
    ----------
    max_iterations : int
        Most iterations of the optimiser.

    Examples
    --------
    >>> import hmlm
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> fit = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).fit(hmlm.REML())
    >>> round(fit.log_likelihood, 4)
    -871.8141
    """

    max_iterations: int = 500

    def __str__(self) -> str:
        """Return the name of the method."""
        return "REML"

    def run(
        self, design: Design, *, random_seed: int | None = None, progressbar: bool = False
    ) -> ClassicalFit:
        """Fit a design.

        Raises
        ------
        HmlmError
            If there is nothing to pool, or the family is not gaussian.
        """
        return _maximise(design, self, reml=True, rescale=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class ML:
    """Maximum likelihood.

    Parameters
    ----------
    std_errors : {"lme4", "nlme"}
        nlme multiplies the standard errors of a maximum likelihood fit by sqrt(N / (N - p)); lme4
        does not.
    max_iterations : int
        Most iterations of the optimiser.

    Examples
    --------
    >>> import hmlm
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> fit = hmlm.Model("Reaction ~ Days + (Days || Subject)", sleep).fit(hmlm.ML())
    >>> round(-2 * fit.log_likelihood, 6)
    1752.003255
    """

    std_errors: Literal["lme4", "nlme"] = "lme4"
    max_iterations: int = 500

    def __str__(self) -> str:
        """Return the name of the method."""
        return "ML"

    def run(
        self, design: Design, *, random_seed: int | None = None, progressbar: bool = False
    ) -> ClassicalFit:
        """Fit a design.

        Raises
        ------
        HmlmError
            If there is nothing to pool, or the family is not gaussian.
        """
        if self.std_errors not in ("lme4", "nlme"):
            raise HmlmError(f"std_errors is 'lme4' or 'nlme', not {self.std_errors!r}.")
        return _maximise(design, self, reml=False, rescale=self.std_errors == "nlme")


def _maximise(design: Design, method: ML | REML, reml: bool, rescale: bool) -> ClassicalFit:
    if design.spec.family.name != "gaussian":
        raise HmlmError(f"{method} fits gaussian models; the family is {design.spec.family.name}.")
    if design.spec.pooling != "partial" or not design.blocks:
        raise HmlmError(
            f"{method} estimates how much to pool, and this model does not pool partially: use "
            "hmlm.OLS(), or add a group term such as (1 | group)."
        )
    with one_blas_thread():
        sums = gaussian_sums(design)
        point, theta, message = best_point(sums, reml, method.max_iterations)
        moments = effect_moments(sums, point)
    n, p = design.X.shape
    vcov = point.sigma2 * sums.basis.covariance_to_user(point.K_inverse)
    if rescale:
        vcov *= n / (n - p)
    found = {"beta": sums.basis.to_user(point.gamma), "sigma": np.array(np.sqrt(point.sigma2))}
    notes: list[str] = []
    effects = {}
    blocks, thetas = blocks_of(sums, design), split_theta(theta, sums)
    for block, part, shape, T in zip(blocks, thetas, shapes_of(sums), bases_of(sums), strict=True):
        Lambda = shape.unpack(part)
        half = T @ Lambda
        sd, cor = sds_and_correlations(point.sigma2 * half @ half.T)
        found[f"sd_{block.group}"] = sd
        if block.correlated:
            found[f"cor_{block.group}"] = cor
        moment = moments.get(block.group) or moments[""]
        found[f"b_{block.group}"] = moment.modes
        effects[block.group] = GroupEffects(
            modes=moment.modes,
            covariance=moment.covariance,
            gain=moment.gain,
            estimable=np.ones(moment.modes.shape, dtype=bool),
        )
        notes += _singular(block, Lambda)
    return ClassicalFit(
        design=design,
        method=method,
        status=_status(design, message, notes, point),
        estimates={name: found[name] for name in design.dims},
        vcov=vcov,
        df=inner_outer(design),
        log_likelihood=-0.5 * point.deviance,
        criterion=point.deviance,
        n_parameters=p + len(theta) + 1,
        n_effective=n - p if reml else n,
        effects={b.group: effects[b.group] for b in design.blocks},
    )


def _singular(block: Block, Lambda: np.ndarray) -> list[str]:
    """Say in words what is singular about the effects of one factor."""
    if (np.diagonal(Lambda) >= SINGULAR).all():
        return []
    none = [c for k, c in enumerate(block.columns) if np.abs(Lambda[k]).max() < SINGULAR]
    if none:
        return [
            f"Singular fit: the estimated variance of {listed(none)} between the levels of "
            f"'{block.group}' is zero, at the edge of what is possible. The data show no more "
            "variation between groups than the residual explains; a posterior, whose prior "
            "keeps the variance off the edge, shows how large it may be: use hmlm.NUTS()."
        ]
    return [
        f"Singular fit: the effects of {listed(block.columns)} by '{block.group}' are "
        "estimated as perfectly dependent (a correlation of 1 or -1). The groups are too "
        f"few or too small to tell them apart: use (... || {block.group}), fewer effects, "
        "or hmlm.NUTS()."
    ]


def _status(design: Design, message: str, notes: list[str], point: ProfiledPoint) -> Status:
    problems = []
    if message:
        problems.append(
            f"The optimiser did not converge: {message}. Rescale the predictors or simplify the "
            "group terms."
        )
    numbers = {
        "gradient": float(np.abs(point.gradient).max(initial=0.0)),
        "singular": float(bool(notes)),
    }
    if missing := design.data.missing_note:
        notes = [*notes, missing]
    return Status(
        converged=not problems, problems=tuple(problems), notes=tuple(notes), numbers=numbers
    )
