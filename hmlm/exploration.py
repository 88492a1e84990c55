"""What a model's groups are estimated at while its between-group sd, prior and rows are moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from hmlm.default_priors import resolve_priors
from hmlm.design import Block, Design
from hmlm.errors import HmlmError, counted, listed, suggest
from hmlm.estimates import line_lead, total_lead
from hmlm.exploration_lines import LineRows, line_rows
from hmlm.exploration_posterior import SdPosterior, Surface, integrate_out, weigh_sds
from hmlm.fitting.maximum_likelihood import check_pools
from hmlm.likelihoods.threads import one_blas_thread
from hmlm.pooling_limits import estimate_at
from hmlm.priors import Prior


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Exploration:
    """A gaussian model, and where its controls stand.

    Attributes
    ----------
    design : Design
        The model with all its rows.
    group : str
        Grouping factor whose sds move.
    parameters : mapping of str to ndarray
        Sds, correlations and sigma of the reference, the posterior means of a fit to all rows:
        they say in which ratios the sds of several effects move, and how the effects correlate.
    prior : Prior
        Prior of the sd of the factor's first effect, at width one.
    sigma_prior : Prior or None
        Prior of the residual sd; None where it is known.
    lines : LineRows
        Where lines are drawn.
    sd : float or None
        Chosen sd of the factor's first effect, from 0 to infinity; None for the estimate.
    width : float
        What the prior's scale is multiplied with.
    sizes : mapping of int to int
        For some levels, by position, how many of their rows are there: the first of the table.
    dropped : frozenset of int
        Rows that are left out, by position.
    """

    design: Design
    group: str
    parameters: Mapping[str, np.ndarray]
    prior: Prior
    sigma_prior: Prior | None
    lines: LineRows
    sd: float | None = None
    width: float = 1.0
    sizes: Mapping[int, int] = MappingProxyType({})
    dropped: frozenset[int] = frozenset()

    @property
    def block(self) -> Block:
        """The effects of the factor."""
        return next(b for b in self.design.blocks if b.group == self.group)

    @property
    def unit(self) -> float:
        """The sd that stands in the middle of the scale: that of the reference."""
        return float(self.parameters[f"sd_{self.group}"][0])

    @property
    def kept(self) -> np.ndarray:
        """Which rows are there, shape (N,)."""
        keep = np.ones(len(self.design.y), dtype=bool)
        for level, size in self.sizes.items():
            keep[np.flatnonzero(self.block.index == level)[size:]] = False
        keep[list(self.dropped)] = False
        return keep


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class GroupEstimates:
    """Estimates at one sd.

    Attributes
    ----------
    beta : ndarray, shape (p,)
        Population coefficients.
    lines : ndarray, shape (J, q)
        Each group's coefficients: its line with group-level predictors, else its totals. NaN where
        the rows that are there do not determine them.
    sigma : float
        Residual sd.
    traces : ndarray, shape (J, G)
        The lines at the places of `LineRows`.
    """

    beta: np.ndarray
    lines: np.ndarray
    sigma: float
    traces: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Findings:
    """What follows from where the controls stand.

    Attributes
    ----------
    state : Exploration
        Where they stand.
    posterior : SdPosterior
        What the rows and the prior say about the sd.
    sd : float
        The sd of the partial pooling: the chosen one, or the posterior median.
    complete, partial, none : GroupEstimates
        Estimates at zero, at `sd` and at infinity.
    surface : Surface
        The integrated likelihood of the rows that are there.
    """

    state: Exploration
    posterior: SdPosterior
    sd: float
    complete: GroupEstimates
    partial: GroupEstimates
    none: GroupEstimates
    surface: Surface


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Estimate:
    estimate: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Given:
    """Parameters in the clothes of a fit."""

    design: Design
    parameters: Mapping[str, np.ndarray]

    def describe(self, name: str, prob: float) -> _Estimate:
        return _Estimate(estimate=self.parameters[name])


def begin_exploration(model: Any, group: str | None = None, random_seed: int = 1) -> Exploration:
    """Return a model with its controls where the data put them.

    Parameters
    ----------
    model : Model or BayesFit
        A gaussian model of the mean under partial pooling. A model is fitted by NUTS for the
        reference; the draws of a fit serve as they are.
    group : str, optional
        Grouping factor whose sds move; the first by default. Others keep theirs.
    random_seed : int
        Seed of that fit.

    Raises
    ------
    HmlmError
        If the model is of another kind, or has no such factor.

    Examples
    --------
    >>> import hmlm
    >>> from dataclasses import replace
    >>> from hmlm.exploration import begin_exploration, follow
    >>> model = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))
    >>> state = begin_exploration(model)
    >>> found = follow(replace(state, sd=0.0))
    >>> found.partial.lines[:, 0].round(1).tolist()
    [1527.5, 1527.5, 1527.5, 1527.5, 1527.5, 1527.5]
    >>> follow(replace(state, sd=float("inf")), found).partial.lines[:, 0].round(1).tolist()
    [1505.0, 1528.0, 1564.0, 1498.0, 1600.0, 1470.0]
    """
    design: Design = model.design
    if design.spec.family.name != "gaussian":
        raise HmlmError(
            "hmlm.explore moves gaussian models, and this one is of the "
            f"{design.spec.family.name} family: hmlm.plot_shrinkage draws any fit."
        )
    check_pools(design, "hmlm.explore")
    groups = [b.group for b in design.blocks]
    if group is None:
        group = groups[0]
    if group not in groups:
        raise HmlmError(
            f"there is no grouping factor '{group}' in the model.{suggest(group, groups)} "
            f"There are: {listed(groups)}."
        )
    fit = model
    if not hasattr(type(model), "draws"):
        from hmlm.fitting.nuts import NUTS

        fit = NUTS(draws=500, tune=500).run(design, random_seed=random_seed, progressbar=False)
    kinds = ("sd", "cor", "parameter")
    names = [v.name for v in design.variables if v.kind in kinds]
    means = {name: np.asarray(fit.variable(name)).mean(axis=(0, 1)) for name in names}
    priors = resolve_priors(design)
    block = next(b for b in design.blocks if b.group == group)
    return Exploration(
        design=design,
        group=group,
        parameters=MappingProxyType(means),
        prior=priors.sd[group][0],
        sigma_prior=None if design.known_se else priors.sigma,
        lines=line_rows(design, block),
    )


def resize_group(state: Exploration, level: int, size: int) -> Exploration:
    """Return an exploration in which one group has the first so many of its rows.

    Raises
    ------
    HmlmError
        If the group has not so many rows, or none would be left.
    """
    most = int(state.block.sizes[level])
    if not 1 <= size <= most:
        name = state.block.levels[level]
        raise HmlmError(f"'{name}' of '{state.group}' can have 1 to {most:,} rows, not {size}.")
    return _checked(replace(state, sizes=MappingProxyType({**state.sizes, level: size})))


def drop_rows(state: Exploration, rows: frozenset[int]) -> Exploration:
    """Return an exploration without some rows; those dropped before come back.

    Raises
    ------
    HmlmError
        If a row does not exist, or a group or the population coefficients would be lost.
    """
    outside = [r for r in rows if not 0 <= r < len(state.design.y)]
    if outside:
        raise HmlmError(
            f"there are no rows {listed(outside)}: {counted(len(state.design.y), 'row')}."
        )
    return _checked(replace(state, dropped=rows))


def _checked(state: Exploration) -> Exploration:
    keep, design = state.kept, state.design
    for block in design.blocks:
        left = np.bincount(block.index[keep], minlength=len(block.levels))
        if (left == 0).any():
            name = block.levels[int(np.argmin(left))]
            raise HmlmError(
                f"this would leave '{name}' of '{block.group}' with no row: each group keeps one."
            )
    if np.linalg.matrix_rank(design.X[keep]) < len(design.terms):
        raise HmlmError("without these rows the population coefficients cannot be told apart.")
    return state


def follow(state: Exploration, before: Findings | None = None) -> Findings:
    """Return what follows from where the controls stand.

    The sd moves alone or, where the groups have several effects, with all sds of the factor in the
    ratios of the reference and with its correlations. Estimates are those of
    `hmlm.pooling_limits.estimate_at`: exact at zero and at infinity. The posterior of the sd is
    that of the same model, with a flat prior on the population coefficients, by quadrature over
    sigma; other factors keep their sds in their ratios to sigma there.

    Parameters
    ----------
    state : Exploration
        Where the controls stand.
    before : Findings, optional
        What followed the last time: parts that stay as they are need not be computed again.
    """
    with one_blas_thread():
        same = before is not None and np.array_equal(before.state.kept, state.kept)
        if same and before is not None:
            surface, complete, none = before.surface, before.complete, before.none
        else:
            surface = integrate_out(_fewer(state), state.group, state.parameters)
            complete, none = _estimate(state, 0.0, np.inf)
        posterior = weigh_sds(surface, state.unit, state.prior, state.width, state.sigma_prior)
        sd = posterior.median if state.sd is None else float(state.sd)
        partial = complete if sd == 0 else none
        if 0 < sd < np.inf:
            (partial,) = _estimate(state, sd)
    return Findings(
        state=state,
        posterior=posterior,
        sd=sd,
        complete=complete,
        partial=partial,
        none=none,
        surface=surface,
    )


def _fewer(state: Exploration) -> Design:
    """Return the design of the rows that are there, with every level and column it had."""
    design, keep = state.design, state.kept
    blocks = tuple(replace(b, index=b.index[keep], Z=b.Z[keep]) for b in design.blocks)
    return replace(
        design,
        y=design.y[keep],
        X=design.X[keep],
        blocks=blocks,
        offset=None if design.offset is None else design.offset[keep],
        weights=None if design.weights is None else design.weights[keep],
    )


def _estimate(state: Exploration, *sds: float) -> list[GroupEstimates]:
    fewer = _fewer(state)
    block = next(b for b in fewer.blocks if b.group == state.group)
    given = _Given(design=fewer, parameters=state.parameters)
    table = estimate_at(given, list(sds), group=state.group)
    lead = line_lead(fewer, block)
    kind = "total" if lead is None else "line"
    if lead is None:
        lead = total_lead(fewer, block)
    J, q = len(block.levels), len(block.columns)
    found = []
    # The rows of each sd come together, in the order in which they were asked for.
    for rows in np.split(np.arange(len(table)), len(sds)):
        part = table.iloc[rows]
        component, estimate = part["component"].to_numpy(), part["estimate"].to_numpy(dtype=float)
        own = (component == kind) & (part["group"].to_numpy() == state.group)
        beta, lines = estimate[component == "population"], estimate[own].reshape(J, q)
        effects = lines - lead @ beta
        rest = state.lines
        traces = rest.X @ beta + np.einsum("jgq,jq->jg", rest.Z, effects) + rest.offset
        residual = estimate[component == "residual"]
        sigma = float(residual[0]) if len(residual) else np.nan
        found.append(GroupEstimates(beta=beta, lines=lines, sigma=sigma, traces=traces))
    return found
