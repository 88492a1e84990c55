"""The prior of every parameter: the user's, or a default from plain scales of the data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from hmlm.data import read_only
from hmlm.design import Block, Design
from hmlm.errors import DataError, PriorError, counted, listed, suggest
from hmlm.priors import Prior

if TYPE_CHECKING:
    import pandas as pd

Source = Literal["default", "user"]

_POSITIVE_FORM = {
    "normal": "half-normal",
    "student-t": "half-student-t",
    "cauchy": "half-cauchy",
    "flat": "half-flat",
    "uniform": "uniform with lower >= 0",
}


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class PriorEntry:
    """One row of the table of priors.

    Attributes
    ----------
    parameter : str
        Name of the parameter: a term, ``sd_<group>[<term>]``, ``cor_<group>``, ``sigma`` or, under
        no pooling, ``b_<group>[<term>]``.
    prior : Prior
        Its prior.
    source : {"default", "user"}
        Where the prior comes from.
    note : str
        How a default was scaled, or what the prior is on.
    """

    parameter: str
    prior: Prior
    source: Source
    note: str


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class ResolvedPriors:
    """The prior of every parameter of a design.

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
        ``beta + constant * (x_means @ beta)``, a map whose Jacobian is one.
    sd : mapping of str to tuple of Prior
        For each group, the priors of the sds of its effects.
    cor : mapping of str to Prior
        For each group with correlated effects, an LKJ prior.
    sigma : Prior or None
        Of the residual sd; None where the family has none.
    b : mapping of str to tuple of Prior
        Under no pooling, for each group the priors of its own coefficients, one a column.
    entries : tuple of PriorEntry
        The same, with sources and notes.
    """

    beta: tuple[Prior, ...]
    constant: np.ndarray
    x_means: np.ndarray
    sd: Mapping[str, tuple[Prior, ...]]
    cor: Mapping[str, Prior]
    sigma: Prior | None
    b: Mapping[str, tuple[Prior, ...]]
    entries: tuple[PriorEntry, ...]

    @property
    def centered_intercept(self) -> bool:
        """Whether the prior of the intercept is on the outcome at the average predictors.

        True where there is an Intercept whose prior is the default one; a user's prior is on the
        intercept itself, at x = 0. (True also where level means stand for the intercept.)
        """
        return bool(self.constant.any())

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
        ``sd_<group>`` and ``cor_<group>`` for one, and ``sigma``.

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
    - under no pooling, every group's own coefficients: normal, by the rules for slopes and for
      the intercept, the latter at x = 0 and as much wider as the sd of an intercept is.

    References
    ----------
    .. [1] Gabry and Goodrich, Prior Distributions for rstanarm Models, vignette of rstanarm.
    .. [2] Gelman, Jakulin, Pittau and Su (2008), A weakly informative default prior distribution
       for logistic and other regression models, Annals of Applied Statistics 2, 1360-1383.
    .. [3] Gelman et al. (2013), Bayesian Data Analysis, third edition, section 5.7.
    .. [4] Stan development team, Prior Choice Recommendations, wiki of stan-dev/stan.

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
    user = _User(design)
    y = _outcome(design)
    entries: list[PriorEntry] = []
    none = design.spec.pooling == "none"
    outside = [_Columns(b.Z, b.columns) for b in design.blocks] if none else []
    columns = _Columns(design.X, design.terms)
    held = bool(columns.ones.any()) or any(c.ones.any() for c in outside)
    beta, given = [], []
    extra = sum(c.stretch(design.terms) for c in outside)
    for k, term in enumerate(design.terms):
        default, note = _coefficient(columns, k, y, held, float(np.sqrt(1 + extra)), centred=True)
        entries.append(user.term(term, term, default, note))
        beta.append(entries[-1].prior)
        given.append(entries[-1].source == "user")
    constant = np.where(given, 0.0, columns.ones) if given else np.zeros(0)
    x_means = np.where(columns.ones != 0, 0.0, columns.mean) * bool(constant.any())
    sd: dict[str, tuple[Prior, ...]] = {}
    cor: dict[str, Prior] = {}
    for block in design.blocks if design.spec.pooling == "partial" else ():
        z = _Columns(block.Z, block.columns)
        rows = [user.sd(block, k, *_group_sd(z, k, y)) for k in range(len(z.names))]
        sd[block.group] = tuple(r.prior for r in rows)
        entries += rows
        if block.correlated:
            entries.append(user.cor(block))
            cor[block.group] = entries[-1].prior
    sigma = None
    if design.spec.family.scale:
        entries.append(user.sigma(design, y))
        sigma = entries[-1].prior
    b: dict[str, tuple[Prior, ...]] = {}
    finest = max(design.blocks, key=lambda block: len(block.levels)) if design.blocks else None
    for block, own in zip(design.blocks, outside, strict=False):
        others = [columns, *(c for c in outside if c is not own)]
        extra = own.stretch() + sum(c.stretch(own.names) for c in others)
        # The mean stands in one factor only: what the others add to it is about zero.
        level = y if block is finest else replace(y, mean=0.0)
        rows = []
        for k, column in enumerate(block.columns):
            default, note = _coefficient(own, k, level, held, float(np.sqrt(1 + extra)))
            rows.append(user.term(column, f"b_{block.group}[{column}]", default, note))
        b[block.group] = tuple(r.prior for r in rows)
        entries += rows
    return ResolvedPriors(
        beta=tuple(beta),
        constant=read_only(constant),
        x_means=read_only(x_means),
        sd=sd,
        cor=cor,
        sigma=sigma,
        b=b,
        entries=tuple(entries),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Outcome:
    """Plain scales of the outcome less its offset."""

    name: str
    mean: float
    sd: float
    rms: float


def _outcome(design: Design) -> _Outcome:
    y, name = design.response, design.spec.outcome
    sd, rms = float(y.std(ddof=1)), float(np.sqrt((y**2).mean()))
    if not sd > 1e-12 * rms:
        raise DataError(
            f"'{name}' less the offset has the same value in all {counted(len(y), 'row')}: there "
            "is nothing to explain."
        )
    return _Outcome(name=name, mean=float(y.mean()), sd=sd, rms=rms)


class _Columns:
    """Plain scales of columns, and the combination of them that is a column of ones."""

    def __init__(self, values: np.ndarray, names: tuple[str, ...]) -> None:
        self.names = names
        self.mean = values.mean(axis=0)
        self.sd = values.std(axis=0, ddof=1)
        self.rms = np.sqrt((values**2).mean(axis=0))
        self.ones = _ones(values, names, self.rms)

    def stretch(self, known: tuple[str, ...] = ()) -> float:
        """Sum of (mean / sd)^2 over slopes: how far from zero they were observed."""
        slope = (self.ones == 0) & (self.sd > 0) & ~np.isin(self.names, known)
        return float(((self.mean[slope] / self.sd[slope]) ** 2).sum())


def _ones(values: np.ndarray, names: tuple[str, ...], scale: np.ndarray) -> np.ndarray:
    """Coefficients that make a column of ones out of the columns; zeros where there are none."""
    if "Intercept" in names:
        return np.array([float(n == "Intercept") for n in names])
    if not names or not scale.all():
        return np.zeros(len(names))
    coefficient, *_ = np.linalg.lstsq(values / scale, np.ones(len(values)), rcond=None)
    if np.abs(values / scale @ coefficient - 1).max() > 1e-8:
        return np.zeros(len(names))
    return np.where(np.abs(coefficient) < 1e-8, 0.0, coefficient / scale)


def _coefficient(
    x: _Columns, k: int, y: _Outcome, held: bool, width: float, centred: bool = False
) -> tuple[Prior, str]:
    """Return the default prior of a coefficient, and what it is made of."""
    outcome, name = y.name, x.names[k]
    if x.ones[k] != 0:
        unit = float(x.ones[k])
        prior = Prior("normal", mu=unit * y.mean, sigma=2.5 * y.sd * abs(unit) * width)
        if centred and not width > 1:
            what = "the predictors" if name == "Intercept" else "the other predictors"
            return prior, f"on the expected {outcome} at the average of {what}; 2.5 sd({outcome})"
        wider = f", times {width:.3g} because it is at predictors of 0" if width > 1 else ""
        return prior, f"2.5 sd({outcome}){wider}"
    if held and x.sd[k] > 0:
        prior = Prior("normal", mu=0.0, sigma=2.5 * y.sd / float(x.sd[k]))
        return prior, f"2.5 sd({outcome}) / sd({name})"
    prior = Prior("normal", mu=0.0, sigma=2.5 * y.rms / float(x.rms[k]))
    return prior, f"no intercept: 2.5 rms({outcome}) / rms({name})"


def _group_sd(z: _Columns, k: int, y: _Outcome) -> tuple[Prior, str]:
    """Return the default prior of the sd of a group's effects, and what it is made of."""
    if z.ones[k] != 0:
        width = float(np.sqrt(1 + z.stretch()))
        scale = y.sd * abs(float(z.ones[k])) * width
        wider = f", times {width:.3g} because it is at predictors of 0" if width > 1 else ""
        return Prior("half-student-t", nu=4.0, sigma=scale), f"sd({y.name}){wider}"
    spread = float(z.sd[k] if z.sd[k] > 0 else z.rms[k])
    note = f"sd({y.name}) / sd({z.names[k]})"
    return Prior("half-student-t", nu=4.0, sigma=y.sd / spread), note


class _User:
    """The user's priors, found by key and checked."""

    def __init__(self, design: Design) -> None:
        spec = design.spec
        self._priors = spec.priors
        terms = [*design.terms, *design.aliased]
        if spec.pooling == "none":
            terms += [c for block in design.blocks for c in block.columns]
        self._aliases: dict[str, tuple[str, ...]] = {}
        whole = {*terms, *map(_base, terms)}
        for term in dict.fromkeys(terms):
            inner = re.fullmatch(r"C\(\s*(\w+)\s*(?:,.*)?\)", _base(term))
            more = [inner[1]] if inner and inner[1] not in whole else []
            self._aliases[term] = (term, _base(term), *more)
        correlated = any(t.correlated and t.terms != "1" for t in spec.group_terms)
        if spec.pooling == "partial":
            correlated = any(block.correlated for block in design.blocks)
        keys = [key for aliases in self._aliases.values() for key in aliases]
        if spec.groups:
            keys += ["sd", *(f"sd_{g}" for g in spec.groups)]
        if correlated:
            keys += ["cor", *(f"cor_{g}" for g in spec.groups)]
        if spec.family.scale:
            keys.append(spec.family.scale)
        keys = list(dict.fromkeys(keys))
        for key, prior in self._priors.items():
            if key not in keys:
                raise PriorError(
                    f"there is no parameter '{key}' to give a prior to.{suggest(key, keys)} "
                    f"Known: {listed(keys, 20)}."
                )
            self._check(key, prior, spec.family.scale)

    @staticmethod
    def _check(key: str, prior: Prior, scale: str) -> None:
        """Raise a PriorError if a prior covers values that its parameter cannot have."""
        kind = prior.support
        if (key in ("sd", scale) or key.startswith("sd_")) and kind != "positive":
            instead = _POSITIVE_FORM.get(prior.name, "half-normal")
            raise PriorError(
                f"the prior of '{key}' must cover positive values only, because it is a standard "
                f"deviation: instead of {prior.name} use {instead}."
            )
        correlation = key == "cor" or key.startswith("cor_")
        if correlation and kind != "correlation":
            raise PriorError(
                f"the prior of '{key}' must be lkj, the one for correlation matrices: "
                "Prior('lkj', eta=2)."
            )
        if kind == "correlation" and not correlation:
            raise PriorError(
                f"the prior of '{key}' cannot be {prior.name}, which is for correlations: use "
                "Prior('normal', mu=..., sigma=...)."
            )

    def _entry(self, keys: tuple[str, ...], name: str, default: Prior, note: str) -> PriorEntry:
        for key in keys:
            if key in self._priors:
                return PriorEntry(parameter=name, prior=self._priors[key], source="user", note="")
        return PriorEntry(parameter=name, prior=default, source="default", note=note)

    def term(self, term: str, name: str, default: Prior, note: str) -> PriorEntry:
        """Return the prior of a coefficient, by its term."""
        return self._entry(self._aliases[term], name, default, note)

    def sd(self, block: Block, k: int, default: Prior, note: str) -> PriorEntry:
        """Return the prior of the sd of one effect."""
        name = f"sd_{block.group}[{block.columns[k]}]"
        return self._entry((f"sd_{block.group}", "sd"), name, default, note)

    def cor(self, block: Block) -> PriorEntry:
        """Return the prior of the correlations."""
        name = f"cor_{block.group}"
        return self._entry((name, "cor"), name, Prior("lkj", eta=2.0), "mode at no correlation")

    def sigma(self, design: Design, y: _Outcome) -> PriorEntry:
        """Return the prior of the residual sd."""
        name = design.spec.family.scale
        root = 1.0 if design.weights is None else float(np.sqrt(design.weights.mean()))
        note = f"sd({y.name})" + ("" if design.weights is None else ", of a row of weight 1")
        return self._entry((name,), name, Prior("half-student-t", nu=4.0, sigma=y.sd * root), note)


def _base(term: str) -> str:
    """Return a term without its levels: ``period`` for ``period[2]``."""
    return re.sub(r"\[[^\]]*\]", "", term)
