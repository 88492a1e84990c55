"""The prior of every parameter: the user's, or a default from plain scales of the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hmlm.cells import moments
from hmlm.data import read_only
from hmlm.design import Design, Predictor
from hmlm.prior_scales import (
    Columns,
    Scales,
    coefficient,
    group_sd,
    outcome_scales,
    parameter_scales,
)
from hmlm.priors import Prior
from hmlm.user_priors import PriorEntry, UserPriors

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class PredictorPriors:
    """The priors of one linear predictor.

    Attributes
    ----------
    beta : tuple of Prior, length p
        Of the population coefficients, in the order of the terms. Where `constant` is not zero it
        is the prior of the centred coefficient.
    constant : ndarray, shape (p,)
        The coefficients that make a column of ones out of X and whose priors are centred: one at
        the Intercept (or at the level means of ``0 + factor``), zero elsewhere and wherever the
        user gave the prior.
    x_means : ndarray, shape (p,)
        Averages of the other columns; zeros where nothing is centred. The centred coefficients are
        ``beta + constant * (x_means @ beta)``, a map whose Jacobian is one; centred cutpoints of an
        ordinal outcome are ``cutpoints - x_means @ beta``.
    sd : mapping of str to tuple of Prior
        For each group, the priors of the sds of its effects.
    cor : mapping of str to Prior
        For each group with correlated effects, an LKJ prior.
    b : mapping of str to tuple of Prior
        Under no pooling, for each group the priors of its own coefficients, one a column.
    """

    beta: tuple[Prior, ...]
    constant: np.ndarray
    x_means: np.ndarray
    sd: Mapping[str, tuple[Prior, ...]]
    cor: Mapping[str, Prior]
    b: Mapping[str, tuple[Prior, ...]]

    @property
    def centered_intercept(self) -> bool:
        """Whether the prior of the intercept is on the outcome at the average predictors.

        True where there is an Intercept whose prior is the default one; a user's prior is on the
        intercept itself, at x = 0. (True also where level means stand for the intercept.)
        """
        return bool(self.constant.any())


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class ResolvedPriors(PredictorPriors):
    """The prior of every parameter of a design; those of the mean as in `PredictorPriors`.

    Attributes
    ----------
    parameters : mapping of str to Prior
        Of family parameters that are one number.
    cutpoints : Prior or None
        Of each cutpoint of an ordinal outcome, in order.
    distributional : mapping of str to PredictorPriors
        Of the other linear predictors, by name.
    entries : tuple of PriorEntry
        The same, with sources and notes.
    """

    parameters: Mapping[str, Prior]
    cutpoints: Prior | None
    distributional: Mapping[str, PredictorPriors]
    entries: tuple[PriorEntry, ...]

    @property
    def sigma(self) -> Prior | None:
        """Of the residual sd; None where there is none, or it has its own formula."""
        return self.parameters.get("sigma")

    def predictor(self, name: str) -> PredictorPriors:
        """Return the priors of a linear predictor by its name, empty for the mean."""
        return self.distributional[name] if name else self

    def table(self) -> pd.DataFrame:
        """Return one row a parameter, with the columns parameter, prior, source and note."""
        import pandas as pd

        rows = [(e.parameter, str(e.prior), e.source, e.note) for e in self.entries]
        return pd.DataFrame(rows, columns=["parameter", "prior", "source", "note"])


def resolve_priors(design: Design) -> ResolvedPriors:
    r"""Give every parameter its prior.

    Parameters
    ----------
    design : Design
        The model, whose specification holds the user's priors. Their keys are terms (in full, or
        a factor's name for all its levels), ``sd`` and ``cor`` for all group terms,
        ``sd_<group>`` and ``cor_<group>`` for one, and family parameters by name (``sigma``). Those
        of a parameter with its own formula begin with its name: ``sigma_x``, ``sigma_sd_<group>``.

    Returns
    -------
    ResolvedPriors
        User's priors where there are any, defaults elsewhere.

    Raises
    ------
    PriorError
        If a key names no parameter, or a prior covers values that its parameter cannot have.

    Notes
    -----
    Defaults are weakly informative: they take their scale from the outcome y (less an offset) and
    the columns x, as rstanarm does [1]_ [2]_, and are never flat, because a flat prior on the sd
    of few groups gives it far too much weight at large values [3]_ [4]_:

    - a slope: normal(0, 2.5 sd(y) / sd(x));
    - the intercept: normal(mean(y), 2.5 sd(y)), not at x = 0 but on the expected outcome at the
      average of the predictors, Intercept + sum_k mean(x_k) beta_k. So it does not depend on
      where a predictor has its zero. Without an intercept, where the columns are level means
      (``0 + factor``), each level mean stands for the intercept in the same way;
    - a slope through the origin (no column of ones in the span of X):
      normal(0, 2.5 rms(y) / rms(x)), with rms(x)^2 the average of x^2;
    - the sd of a slope between groups: half-student-t(4, sd(y) / sd(z));
    - the sd of an intercept between groups:
      half-student-t(4, sd(y) sqrt(1 + sum_k (mean(z_k) / sd(z_k))^2)). The effect is at z = 0,
      and lines that differ by sd(y) where the data are differ by that much more there;
    - correlations: LKJ with eta = 2, which has its mode at no correlation [4]_;
    - sigma: half-student-t(4, sd(y)), times the root of the average weight where there are
      weights;
    - under another link, mean(y) is the link of the outcome's mean and sd(y) is one: a logit,
      probit, cloglog or log says ratios, which have no unit (for an inverse link it is sd(y)
      times the derivative of the link at the mean);
    - cutpoints of an ordinal outcome: normal(0, 2.5) each, in order, at average predictors;
    - nu: gamma(2, 0.1) [5]_; alpha of counts: inverse-gamma(0.4, 0.3), as brms has it; alpha of a
      gamma outcome and phi: lognormal(2, 2); zi and hu: beta(1, 1);
    - a parameter with its own formula: the same rules on the scale of its log or logit, with a
      spread of one about the value that the outcome suggests;
    - under no pooling, every group's own coefficients: normal, by the rules for slopes and for
      the intercept, the latter at x = 0 and as much wider as the sd of an intercept is.

    References
    ----------
    .. [1] Gabry and Goodrich, Prior Distributions for rstanarm Models, vignette of rstanarm.
    .. [2] Gelman, Jakulin, Pittau and Su (2008), A weakly informative default prior distribution
       for logistic and other regression models, Annals of Applied Statistics 2, 1360-1383.
    .. [3] Gelman et al. (2013), Bayesian Data Analysis, third edition, section 5.7.
    .. [4] Stan development team, Prior Choice Recommendations, wiki of stan-dev/stan.
    .. [5] Juarez and Steel (2010), Model-based clustering of non-Gaussian panel data based on
       skew-t distributions, Journal of Business & Economic Statistics 28, 52-66.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.default_priors import resolve_priors
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> model = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep)
    >>> resolve_priors(model.design).table()[["parameter", "prior"]]
                    parameter                              prior
    0               Intercept      normal(mu=298.5, sigma=140.8)
    1                    Days          normal(mu=0, sigma=48.89)
    2   sd_Subject[Intercept]  half-student-t(nu=4, sigma=104.5)
    3        sd_Subject[Days]  half-student-t(nu=4, sigma=19.56)
    4             cor_Subject                         lkj(eta=2)
    5                   sigma  half-student-t(nu=4, sigma=56.33)
    """
    user = UserPriors(design)
    mean = outcome_scales(design)
    entries: list[PriorEntry] = []
    cutpoints = None
    if design.spec.family.outcome == "ordered":
        entries.append(
            user.parameter(
                "cutpoints",
                Prior("normal", mu=0.0, sigma=2.5),
                "each, in order, at the average of the predictors",
            )
        )
        cutpoints = entries[0].prior
    first, *others = design.predictors
    made, effects = _resolve(design, first, mean, user, entries, centre=cutpoints is not None)
    distributional = {}
    for p in others:
        scales = parameter_scales(design, p, mean)
        distributional[p.name], more = _resolve(design, p, scales, user, entries)
        effects += more
    parameters = {}
    for name in design.parameters:
        entries.append(user.parameter(name, *_parameter(design, name, mean)))
        parameters[name] = entries[-1].prior
    return ResolvedPriors(
        beta=made.beta,
        constant=made.constant,
        x_means=made.x_means,
        sd=made.sd,
        cor=made.cor,
        b=made.b,
        parameters=parameters,
        cutpoints=cutpoints,
        distributional=distributional,
        entries=(*entries, *effects),
    )


def _resolve(
    design: Design,
    p: Predictor,
    y: Scales,
    user: UserPriors,
    entries: list[PriorEntry],
    centre: bool = False,
) -> tuple[PredictorPriors, list[PriorEntry]]:
    """Return the priors of one predictor, and the entries of effects under no pooling."""
    pooling = design.spec.pooling
    outside = [Columns.of_block(b) for b in p.blocks] if pooling == "none" else []
    columns = Columns.of_population(p, design.cells)
    held = centre or bool(columns.ones.any()) or any(c.ones.any() for c in outside)
    beta, given = [], []
    extra = sum(c.stretch(p.terms) for c in outside)
    for k, term in enumerate(p.terms):
        default, note = coefficient(columns, k, y, held, float(np.sqrt(1 + extra)), centred=True)
        entries.append(user.term(p, term, term, default, note))
        beta.append(entries[-1].prior)
        given.append(entries[-1].source == "user")
    constant = np.where(given, 0.0, columns.ones) if given else np.zeros(0)
    centred = bool(constant.any()) or (centre and entries[0].source == "default")
    x_means = np.where(columns.ones != 0, 0.0, columns.mean) * centred
    sd: dict[str, tuple[Prior, ...]] = {}
    cor: dict[str, Prior] = {}
    for block in p.blocks if pooling == "partial" else ():
        z = Columns.of_block(block)
        rows = [user.sd(p, block, k, *group_sd(z, k, y)) for k in range(len(z.names))]
        sd[block.group] = tuple(r.prior for r in rows)
        entries += rows
        if block.correlated:
            entries.append(user.cor(p, block))
            cor[block.group] = entries[-1].prior
    b: dict[str, tuple[Prior, ...]] = {}
    effects: list[PriorEntry] = []
    finest = max(p.blocks, key=lambda block: len(block.levels)) if p.blocks else None
    for block, own in zip(p.blocks, outside, strict=False):
        others = [columns, *(c for c in outside if c is not own)]
        extra = own.stretch() + sum(c.stretch(own.names) for c in others)
        # The mean stands in one factor only: what the others add to it is about zero.
        level = y if block is finest else replace(y, mean=0.0)
        rows = []
        for k, column in enumerate(block.columns):
            default, note = coefficient(own, k, level, held, float(np.sqrt(1 + extra)))
            rows.append(user.term(p, column, f"b_{block.group}[{column}]", default, note))
        b[block.group] = tuple(r.prior for r in rows)
        effects += rows
    made = PredictorPriors(
        beta=tuple(beta),
        constant=read_only(constant),
        x_means=read_only(x_means),
        sd=sd,
        cor=cor,
        b=b,
    )
    return made, effects


def _parameter(design: Design, name: str, y: Scales) -> tuple[Prior, str]:
    """Return the default prior of a family parameter, and what it is made of."""
    if name == "sigma":
        known = y.unit.startswith("sd(") and design.spec.family.link == "identity"
        sd = y.sd if known else float(moments(design.y, design.counts).sd)
        root = float(np.sqrt(design.mean_weight))
        note = f"sd({y.name if known else design.spec.outcome})"
        note += "" if design.spec.weights is None else ", of a row of weight 1"
        return Prior("half-student-t", nu=4.0, sigma=sd * root), note
    if name == "nu":
        return Prior("gamma", alpha=2.0, beta=0.1), "normal tails to heavy ones"
    if name in ("zi", "hu"):
        return Prior("beta", alpha=1.0, beta=1.0), "any share of zeros"
    if name == "alpha" and design.spec.family.outcome == "count":
        return Prior("inverse-gamma", alpha=0.4, beta=0.3), "little to much overdispersion"
    return Prior("lognormal", mu=2.0, sigma=2.0), "from 0.1 to 400 with probability 0.95"
