"""What predictive checks compare between groups: their means, and the shape of their effects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from scipy import special

from hmlm.blocks import Block
from hmlm.check_statistics import (
    FEWEST_GROUPS,
    Discrepancy,
    NumericPredictor,
    correlation,
    member_matrix,
    numeric_predictors,
)
from hmlm.design import Design
from hmlm.replicates import RowDraws


def group_averages(design: Design, group: str, y: np.ndarray) -> np.ndarray:
    """Return the mean outcome of every group, (draws, J): of trials the share of successes."""
    index = design.data.index[group]
    member = member_matrix(index, len(design.data.levels[group]))
    sizes = np.ones(len(index)) if design.trials is None else design.trials
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((y @ member) / (sizes @ member))


def group_mean_statistics(
    design: Design, rows: RowDraws, groups: Iterable[str]
) -> Iterable[Discrepancy]:
    """Yield the sd of the group means of some factors, of the data and of the replicates.

    Parameters
    ----------
    design : Design
        What was fitted.
    rows : RowDraws
        Some draws, of new groups where the model has groups.
    groups : iterable of str
        Grouping factors.
    """
    for group in groups:
        own = np.nanstd(group_averages(design, group, design.y[None]), axis=1)
        replicated = np.nanstd(group_averages(design, group, rows.y), axis=1)
        yield Discrepancy(
            name="sd of group means",
            group=group,
            term="",
            observed=np.broadcast_to(own, replicated.shape),
            replicated=replicated,
        )


def effect_statistics(
    design: Design, posterior: Mapping[str, np.ndarray], rng: np.random.Generator
) -> Iterable[Discrepancy]:
    """Yield outlying groups, the shape of effects, and lines of predictors that groups share.

    Effects over their sd at a draw from the posterior are independent standard normals when the
    model holds (Yuan and Johnson 2012), so that no shrinkage has to be allowed for.

    Parameters
    ----------
    design : Design
        What was fitted, with partial pooling.
    posterior : mapping of str to ndarray
        Draws of sds and effects, the draw on the first axis.
    rng : numpy.random.Generator
        Source of the random numbers.
    """
    shared = [p for p in numeric_predictors(design) if p.block is not None]
    for p in design.predictors:
        for block in p.blocks:
            sds = posterior[p.named(f"sd_{block.group}")]
            effects = posterior[p.named(f"b_{block.group}")]
            for k, column in enumerate(block.columns):
                if len(block.levels) < FEWEST_GROUPS or not (sds[:, k] > 0).all():
                    continue
                z = effects[:, :, k] / sds[:, k, None]
                normal = rng.standard_normal(z.shape)
                yield from _shape_of_effects(block, p.named(column), z, normal)
                if column == "Intercept" and not p.name:
                    yield from _lines(block, shared, z, normal)


def _shape_of_effects(
    block: Block, term: str, z: np.ndarray, normal: np.ndarray
) -> Iterable[Discrepancy]:
    far = np.argsort(-np.abs(z.mean(axis=0)))[:2]
    names = tuple(str(block.levels[j]) for j in far)
    yield Discrepancy(
        name="largest group effect",
        group=block.group,
        term=term,
        observed=np.abs(z).max(axis=1),
        replicated=np.abs(normal).max(axis=1),
        side="above",
        names=names,
    )
    yield Discrepancy(
        name="shape of group effects",
        group=block.group,
        term=term,
        observed=_straightness(z),
        replicated=_straightness(normal),
        side="below",
        names=names,
    )


def _lines(
    block: Block, shared: Iterable[NumericPredictor], z: np.ndarray, normal: np.ndarray
) -> Iterable[Discrepancy]:
    for line in shared:
        if line.block is not None and line.block.group == block.group:
            yield Discrepancy(
                name="linearity",
                group=block.group,
                term=line.name,
                observed=correlation(z, line.curve[None]),
                replicated=correlation(normal, line.curve[None]),
            )


def _straightness(z: np.ndarray) -> np.ndarray:
    """Correlation of the sorted effects with normal quantiles: Shapiro and Francia's root."""
    J = z.shape[1]
    quantiles = special.ndtri((np.arange(1, J + 1) - 0.375) / (J + 0.25))
    return correlation(np.sort(z, axis=1), quantiles[None])
