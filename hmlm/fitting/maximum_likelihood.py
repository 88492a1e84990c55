"""Maximum likelihood and REML for Gaussian models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hmlm.design import Block, Design
from hmlm.errors import HmlmError, listed
from hmlm.fitting.classical_fit import ClassicalFit, GroupEffects
from hmlm.fitting.degrees_of_freedom import DegreesOfFreedom, check_df, coefficient_tests
from hmlm.fitting.heterogeneity import heterogeneity
from hmlm.fitting.settings import check_plain
from hmlm.likelihoods.effects import effect_moments
from hmlm.likelihoods.exponential import SUPPORTED
from hmlm.likelihoods.gaussian import blocks_of, gaussian_sums, known_sigma2, spread_at
from hmlm.likelihoods.optimum import SINGULAR, best_point
from hmlm.likelihoods.profiled import (
    GaussianSums,
    ProfiledPoint,
    shapes_of,
    split_theta,
)
from hmlm.likelihoods.threads import one_blas_thread
from hmlm.status import Status

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, slots=True)
class REML:
    """Restricted maximum likelihood.

    The variances maximise the likelihood of the residual contrasts, which corrects the downward
    bias of maximum likelihood for the coefficients estimated (Patterson & Thompson 1971).
    Optimised over the relative Cholesky factor with its analytic gradient, as lme4 parametrises it
    (Bates et al. 2015, sections 2 and 3).

    Parameters
    ----------
    df : {"auto", "inner-outer", "satterthwaite", "kenward-roger", "normal"}
        Degrees of freedom of the t tests of the population coefficients: nlme's rule;
        Satterthwaite's approximation, as in lmerTest; Kenward and Roger's, as in pbkrtest, which
        adjusts the standard errors too; or none, for tests by the normal distribution. "auto" is
        nlme's rule where the grouping factors are nested, and Satterthwaite's approximation where
        they are crossed (the normal distribution where that would be slow). Where the standard
        errors of the outcome are known it is the normal distribution, as in metafor.
    max_iterations : int
        Most iterations of the optimiser.

    Notes
    -----
    With known standard errors, ``se(y, s) ~ ...``, the residual variances are given and there is no
    sigma: the fit is the random-effects meta-analysis. With one row a study its
    ``status.numbers`` hold Cochran's ``Q`` and its degrees of freedom ``Q_df``, ``I2`` (a share
    between 0 and 1) and ``H2``; see `hmlm.fitting.heterogeneity.heterogeneity`.

    Examples
    --------
    >>> import hmlm
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> fit = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).fit(hmlm.REML())
    >>> round(fit.log_likelihood, 4)
    -871.8141
    """

    df: DegreesOfFreedom = "auto"
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
        check_df(self.df, reml=True)
        return _maximise(design, self, reml=True, rescale=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class ML:
    """Maximum likelihood.

    Parameters
    ----------
    std_errors : {"lme4", "nlme"}
        nlme multiplies the standard errors of a maximum likelihood fit by sqrt(N / (N - p)); lme4
        does not. Of no effect where the standard errors of the outcome are known.
    df : {"auto", "inner-outer", "satterthwaite", "normal"}
        Degrees of freedom of the t tests, as in `REML`.
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
    df: DegreesOfFreedom = "auto"
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
        check_df(self.df, reml=False)
        return _maximise(design, self, reml=False, rescale=self.std_errors == "nlme")


def _maximise(design: Design, method: ML | REML, reml: bool, rescale: bool) -> ClassicalFit:
    check_pools(design, method)
    with one_blas_thread():
        sums = gaussian_sums(design)
        point, theta, message = best_point(
            sums, reml, method.max_iterations, sigma2=known_sigma2(design)
        )
    problems = []
    if message:
        problems.append(
            f"The optimiser did not converge: {message}. Rescale the predictors or simplify the "
            "group terms."
        )
    return classical_fit_at(
        design,
        method,
        sums,
        point,
        theta,
        reml=reml,
        rescale=rescale,
        df=method.df,
        problems=problems,
    )


def check_pools(design: Design, method: Any) -> None:
    """Raise an HmlmError if a design is not gaussian, or does not pool partially."""
    family = design.spec.family
    if family.name != "gaussian":
        instead = "hmlm.Laplace()" if family.name in SUPPORTED else "hmlm.NUTS()"
        raise HmlmError(
            f"{method} fits gaussian models; the family is {family.name}: use {instead}."
        )
    check_plain(design, f"{method} fits")
    if design.spec.pooling != "partial" or not design.blocks:
        raise HmlmError(
            f"{method} estimates how much to pool, and this model does not pool partially: use "
            "hmlm.OLS(), or add a group term such as (1 | group)."
        )


def classical_fit_at(
    design: Design,
    method: Any,
    sums: GaussianSums,
    point: ProfiledPoint,
    theta: np.ndarray,
    *,
    reml: bool,
    rescale: bool = False,
    df: DegreesOfFreedom = "auto",
    problems: Sequence[str] = (),
    notes: Sequence[str] = (),
    numbers: Mapping[str, float] | None = None,
    trace: pd.DataFrame | None = None,
) -> ClassicalFit:
    """Return the fit whose variances are those of theta: all that comes after the optimiser.

    Parameters
    ----------
    design, method
        What was fitted, and how.
    sums : GaussianSums
        The data.
    point : ProfiledPoint
        The likelihood at theta.
    theta : ndarray
        Free entries of Lambda, block after block.
    reml : bool
        Whether the likelihood is restricted.
    rescale : bool
        Whether standard errors get nlme's factor.
    df : str
        Which degrees of freedom the t tests have.
    problems, notes : sequence of str
        Sentences for the status.
    numbers : mapping of str to float, optional
        Figures for the status.
    trace : pandas.DataFrame, optional
        Iterations to keep.
    """
    with one_blas_thread():
        moments = effect_moments(sums, point)
        tests = coefficient_tests(df, design, sums, theta, point, reml)
    n, p = design.n_rows, design.X.shape[1]
    rescale = rescale and not design.known_se
    vcov = tests.vcov * (n / (n - p)) if rescale else tests.vcov
    notes = [*notes, *filter(None, [tests.note])]
    found = {
        "beta": sums.basis.to_user(point.gamma),
        "sigma": np.array(np.sqrt(point.sigma2)),
        **spread_at(sums, design, theta, point.sigma2),
    }
    singular: list[str] = []
    effects = {}
    blocks, thetas = blocks_of(sums, design), split_theta(theta, sums)
    for block, part, shape in zip(blocks, thetas, shapes_of(sums), strict=True):
        moment = moments.get(block.group) or moments[""]
        found[f"b_{block.group}"] = moment.modes
        effects[block.group] = GroupEffects(
            modes=moment.modes,
            covariance=moment.covariance,
            gain=moment.gain,
            estimable=np.ones(moment.modes.shape, dtype=bool),
        )
        explains = "the standard errors explain" if design.known_se else "the residual explains"
        singular += singular_words(block, shape.unpack(part), explains)
    numbers = {**(numbers or {}), **_heterogeneity(design, found)}
    return ClassicalFit(
        design=design,
        method=method,
        status=_status(design, problems, notes, singular, point, numbers),
        estimates={name: found[name] for name in design.dims},
        vcov=vcov,
        df=tests.df,
        log_likelihood=-0.5 * point.deviance,
        criterion=point.deviance,
        n_parameters=p + len(theta) + (not design.known_se),
        n_effective=n - p if reml else n,
        effects={b.group: effects[b.group] for b in design.blocks},
        trace=trace,
    )


def _heterogeneity(design: Design, found: Mapping[str, np.ndarray]) -> dict[str, float]:
    if len(design.blocks) != 1:
        return {}
    return heterogeneity(design, float(found[f"sd_{design.blocks[0].group}"][0]) ** 2)


def singular_words(
    block: Block, Lambda: np.ndarray, explains: str = "the residual explains"
) -> list[str]:
    """Say in words what is singular about the effects of one factor, if anything is.

    Parameters
    ----------
    block : Block
        The effects.
    Lambda : ndarray, shape (q, q)
        Relative Cholesky factor of their covariance.
    explains : str
        What the variation between groups is compared with, and its verb.
    """
    if (np.diagonal(Lambda) >= SINGULAR).all():
        return []
    none = [c for k, c in enumerate(block.columns) if np.abs(Lambda[k]).max() < SINGULAR]
    if none:
        return [
            f"Singular fit: the estimated variance of {listed(none)} between the levels of "
            f"'{block.group}' is zero, at the edge of what is possible. The data show no more "
            f"variation between groups than {explains}; a posterior, whose prior "
            "keeps the variance off the edge, shows how large it may be: use hmlm.NUTS()."
        ]
    return [
        f"Singular fit: the effects of {listed(block.columns)} by '{block.group}' are "
        "estimated as perfectly dependent (a correlation of 1 or -1). The groups are too "
        f"few or too small to tell them apart: use (... || {block.group}), fewer effects, "
        "or hmlm.NUTS()."
    ]


def _status(
    design: Design,
    problems: Sequence[str],
    notes: Sequence[str],
    singular: list[str],
    point: ProfiledPoint,
    numbers: Mapping[str, float],
) -> Status:
    return Status(
        converged=not problems,
        problems=tuple(problems),
        notes=(*notes, *singular, *design.notes),
        numbers={
            "gradient": float(np.abs(point.gradient).max(initial=0.0)),
            "singular": float(bool(singular)),
            **numbers,
        },
    )
