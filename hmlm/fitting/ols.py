"""Ordinary least squares, under complete pooling and under no pooling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmlm.design import Design
from hmlm.errors import DataError, HmlmError, counted
from hmlm.fitting.classical_fit import ClassicalFit, GroupEffects
from hmlm.fitting.settings import check_plain
from hmlm.likelihoods.crossproducts import population_basis, squares, sum_log_weights
from hmlm.likelihoods.exponential import SUPPORTED
from hmlm.linear import dependent_columns, within_groups
from hmlm.status import Status

MAX_DUMMIES = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class OLS:
    """Ordinary (weighted) least squares.

    Under complete pooling this is the multiple linear regression that ignores the groups; under
    no pooling every group has its own intercept and slopes, with one residual variance. Where the
    standard errors of the outcome are known there is no residual variance to estimate: complete
    pooling is the meta-analysis with a common effect, whose covariance is (X'WX)^-1; without
    pooling a study of one row has its own estimate and standard error. Tests are then by the normal
    distribution.

    Examples
    --------
    >>> import hmlm
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> model = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).with_pooling("complete")
    >>> model.fit(hmlm.OLS()).estimates["beta"].round(3).tolist()
    [251.405, 10.467]
    """

    def __str__(self) -> str:
        """Return the name of the method."""
        return "OLS"

    def run(
        self, design: Design, *, random_seed: int | None = None, progressbar: bool = False
    ) -> ClassicalFit:
        """Fit a design.

        Raises
        ------
        HmlmError
            If the family is not gaussian, or the design pools partially: least squares has no
            variance of the groups.
        DataError
            If no rows are left for the residual variance.
        """
        family = design.spec.family
        if family.name != "gaussian":
            instead = "hmlm.GLM()" if family.name in SUPPORTED else "hmlm.NUTS()"
            raise HmlmError(
                f"least squares fits gaussian models; the family is {family.name}: use {instead}."
            )
        check_plain(design, "least squares fits")
        if design.spec.pooling == "partial" and design.blocks:
            raise HmlmError(
                "least squares cannot pool partially: use hmlm.REML(), or "
                "model.with_pooling('complete') or model.with_pooling('none') with hmlm.OLS()."
            )
        return _no_pooling(design) if design.blocks else _complete(design)


def _finish(
    design: Design,
    beta: np.ndarray,
    unscaled: np.ndarray,
    rss: float,
    rank: int,
    effects: dict[str, GroupEffects],
    notes: tuple[str, ...],
) -> ClassicalFit:
    n = design.n_rows
    known = design.known_se
    if n <= rank and not known:
        raise DataError(
            f"{counted(n, 'row')} and {counted(rank, 'coefficient')} leave nothing for the "
            "residual: pool partially, use fewer group columns or add rows."
        )
    sigma2 = 1.0 if known else rss / (n - rank)
    with np.errstate(divide="ignore"):
        deviance = (
            n * np.log(2 * np.pi) + rss if known else n * (np.log(2 * np.pi * rss / n) + 1)
        ) - sum_log_weights(design)
    log_likelihood = -0.5 * deviance
    estimates = {"beta": beta}
    if not known:
        estimates["sigma"] = np.array(np.sqrt(sigma2))
    for group, effect in effects.items():
        estimates[f"b_{group}"] = effect.modes
    return ClassicalFit(
        design=design,
        method=OLS(),
        status=Status(converged=True, notes=(*notes, *design.notes)),
        estimates=estimates,
        vcov=sigma2 * unscaled,
        df=np.full(len(beta), np.inf if known else float(n - rank)),
        log_likelihood=float(log_likelihood),
        criterion=float(-2 * log_likelihood),
        n_parameters=rank + (not known),
        n_effective=n,
        effects={
            g: GroupEffects(
                modes=e.modes,
                covariance=sigma2 * e.covariance,
                gain=e.gain,
                estimable=e.estimable,
            )
            for g, e in effects.items()
        },
    )


def _complete(design: Design) -> ClassicalFit:
    basis = population_basis(design)
    n, p = design.n_rows, design.X.shape[1]
    unscaled = basis.covariance_to_user(np.eye(p) / n)
    rss = float(squares(design, basis.residual[:, None])[0, 0])
    return _finish(design, basis.beta, unscaled, rss, p, {}, ())


def _no_pooling(design: Design) -> ClassicalFit:
    """Regress inside the groups of the finest factor, with other factors as indicator columns."""
    finest = max(design.blocks, key=lambda b: len(b.levels))
    others = [b for b in design.blocks if b is not finest]
    J, p = len(finest.levels), len(design.terms)
    dummies = [indicators(b.Z, b.index, len(b.levels)) for b in others]
    M = np.column_stack([design.X, *dummies, design.response])
    Z = finest.Z
    if design.weights is not None:
        root = np.sqrt(design.weights)[:, None]
        M, Z = root * M, root * Z
    within = within_groups(Z, finest.index, M)
    R, y = within.residual[:, :-1], within.residual[:, -1]
    size = np.sqrt((M[:, :-1] ** 2).sum(axis=0))
    alive = np.sqrt((R**2).sum(axis=0)) > 1e-7 * np.where(size > 0, size, 1.0)
    dependent = dependent_columns(R[:, alive]) if alive.any() else {}
    keep = np.delete(np.flatnonzero(alive), list(dependent))
    coefficient = np.full(R.shape[1], np.nan)
    inverse = np.zeros((0, 0))
    if len(keep):
        Q, upper = np.linalg.qr(R[:, keep])
        coefficient[keep] = np.linalg.solve(upper, Q.T @ y)
        half = np.linalg.inv(upper)
        inverse = half @ half.T
    used = np.nan_to_num(coefficient)
    gain = within.coefficients[:, :, :-1]
    own = within.coefficients[:, :, -1] - gain @ used
    covariance = within.inverse + np.einsum(
        "jkm,mr,jlr->jkl", gain[:, :, keep], inverse, gain[:, :, keep], optimize=True
    )
    effects = {
        finest.group: GroupEffects(
            modes=own, covariance=covariance, gain=gain[:, :, :p], estimable=within.estimable
        )
    }
    position = {int(k): i for i, k in enumerate(keep)}
    start = p
    for block in others:
        q, levels = len(block.columns), len(block.levels)
        places = range(start, start + q * levels)
        known = np.array([k in position for k in places])
        cov = np.zeros((levels, q, q))
        for j in range(levels):
            mine = [start + j * q + k for k in range(q)]
            for a, ka in enumerate(mine):
                for b, kb in enumerate(mine):
                    if ka in position and kb in position:
                        cov[j, a, b] = inverse[position[ka], position[kb]]
        effects[block.group] = GroupEffects(
            modes=used[start : start + q * levels].reshape(levels, q),
            covariance=cov,
            gain=np.zeros((levels, q, p)),
            estimable=known.reshape(levels, q),
        )
        start += q * levels
    population = [k for k in keep if k < p]
    unscaled = np.zeros((p, p))
    places_ = [position[int(k)] for k in population]
    unscaled[np.ix_(population, population)] = inverse[np.ix_(places_, places_)]
    rss = float(squares(design, (y - R @ used)[:, None])[0, 0])
    blank = int(J * len(finest.columns) - within.estimable.sum())
    notes = (
        (
            f"{counted(blank, 'coefficient')} of '{finest.group}' cannot be estimated from the "
            "rows of its own group alone and stay blank.",
        )
        if blank
        else ()
    )
    ordered = {b.group: effects[b.group] for b in design.blocks}
    rank = int(within.rank.sum()) + len(keep)
    return _finish(design, coefficient[:p], unscaled, rss, rank, ordered, notes)


def indicators(
    Z: np.ndarray, index: np.ndarray, levels: int, instead: str = "hmlm.REML()"
) -> np.ndarray:
    """Return a block's own coefficients as columns, shape (N, levels q), level after level.

    Raises
    ------
    HmlmError
        If they are too many; `instead` is the method that pools partially.
    """
    n, q = Z.shape
    if levels * q > MAX_DUMMIES:
        raise HmlmError(
            f"no pooling of a second factor with {levels:,} levels needs {levels * q:,} indicator "
            f"columns: drop that group term, or pool partially with {instead}."
        )
    columns = np.zeros((n, levels, q))
    columns[np.arange(n), index] = Z
    return columns.reshape(n, levels * q)
