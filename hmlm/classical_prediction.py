"""Predictions of classical fits, with errors in closed form.

Everything predicted is a function of x'beta + z'b, so that its error comes from the joint error
of beta and b (Henderson 1975, Biometrics 31, 423-447) by the delta method. Variances of groups
count as known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse, special

from hmlm.averaging import average_mean, average_mean_slope, check_averages
from hmlm.design import Design
from hmlm.errors import HmlmError
from hmlm.likelihoods.exponential import row_likelihood
from hmlm.links import from_link, link_slope
from hmlm.new_rows import Groups, NewRows, group_modes, new_rows
from hmlm.prediction import Kind, check_request, effect_covariance, effect_root

if TYPE_CHECKING:
    import pandas as pd

AT_ONCE = 256


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class LinearRows:
    """Linear predictors of rows as functions of everything that is estimated with error.

    Attributes
    ----------
    link : str
        Link from the mean.
    eta : ndarray, shape (M,)
        Estimates; NaN where a coefficient cannot be estimated.
    averaged : ndarray of shape (M,) or None
        Variance z'Dz of the group effects that are averaged over.
    X : ndarray, shape (M, p)
        Derivative by beta.
    Z : tuple of sparse arrays, shape (M, J q)
        Derivative by the effects of each factor that is not left out.
    """

    link: str
    eta: np.ndarray
    averaged: np.ndarray | None
    X: np.ndarray
    Z: tuple[Any, ...]

    def mean(self, eta: np.ndarray | None = None) -> np.ndarray:
        """Return expected outcomes, at other linear predictors if they are given."""
        at = self.eta if eta is None else eta
        if self.averaged is None:
            return from_link(self.link, at)
        return average_mean(self.link, at, self.averaged)

    def slope(self) -> np.ndarray:
        """Return the derivative of the expected outcomes by the linear predictor."""
        if self.averaged is None:
            return link_slope(self.link, self.eta)
        return average_mean_slope(self.link, self.eta, self.averaged)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class JointErrors:
    """Errors of beta and of group effects together.

    Attributes
    ----------
    vcov : ndarray, shape (p, p)
        Covariance of beta.
    gains : tuple of ndarray of shape (J q, p), or None
        How the effects of each factor fall as beta rises; None for new groups.
    own : tuple of sparse arrays, or None
        Covariance of the effects of each factor given beta; None for those in `joint`.
    joint : object or None
        Covariance given beta of the effects of several factors together.
    known : bool
        Whether errors are known at all.
    """

    vcov: np.ndarray
    gains: tuple[np.ndarray | None, ...]
    own: tuple[Any, ...]
    joint: _Joint | None
    known: bool

    def variance(self, X: np.ndarray, Z: Sequence[Any]) -> np.ndarray:
        """Return the variance of the error of linear functions of beta and the effects.

        Parameters
        ----------
        X : ndarray, shape (M, p)
            Coefficients on beta.
        Z : sequence of sparse arrays, shape (M, J q)
            Coefficients on the effects of each factor.
        """
        if not self.known:
            return np.full(len(X), np.nan)
        lead = np.array(X, dtype=float)
        total = np.zeros(len(X))
        together = []
        for z, gain, own in zip(Z, self.gains, self.own, strict=True):
            if gain is not None:
                lead -= z @ gain
            if own is None:
                together.append(z)
            else:
                total += np.asarray((z @ own).multiply(z).sum(axis=1)).reshape(-1)
        if self.joint is not None:
            total += self.joint.variance(together)
        total += np.einsum("np,pr,nr->n", lead, self.vcov, lead)
        return np.maximum(total, 0.0)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class _Joint:
    """Covariance of the effects of several factors: root (root'Z'W Z root + I)^-1 root'."""

    root: Any
    solve: Any

    def variance(self, Z: Sequence[Any]) -> np.ndarray:
        leads = sparse.csr_array(sparse.hstack(list(Z), format="csr") @ self.root)
        found = np.empty(leads.shape[0])
        for start in range(0, len(found), AT_ONCE):
            dense = leads[start : start + AT_ONCE].toarray().T
            found[start : start + AT_ONCE] = (dense * self.solve(dense)).sum(axis=0)
        return found


def _block_diagonal(blocks: np.ndarray) -> Any:
    """Return the sparse matrix that has these blocks, shape (J, q, q), on its diagonal."""
    J, q, _ = blocks.shape
    size = (J * q, J * q)
    made = sparse.bsr_array((blocks, np.arange(J), np.arange(J + 1)), shape=size)
    return sparse.csr_array(made)


def _spread(Z: np.ndarray, index: np.ndarray, levels: int) -> Any:
    """Return Z by level and effect: shape (M, levels q)."""
    n, q = Z.shape
    columns = (index[:, None] * q + np.arange(q)).reshape(-1)
    return sparse.csr_array(
        (Z.reshape(-1), columns, np.arange(0, n * q + 1, q)), shape=(n, levels * q)
    )


def joint_errors(fit: Any, *rows: NewRows) -> JointErrors:
    """Return the errors of everything that the linear predictors of rows depend on.

    Parameters
    ----------
    fit : ClassicalFit
        The fit.
    *rows : NewRows
        One or more sets of rows; new groups have the same effects in all.
    """
    design: Design = fit.design
    modes = rows[0].modes
    alone = design.spec.pooling == "none"
    p = len(design.terms)
    included = [b for b in design.blocks if modes.get(b.group, "include") == "include"]
    gains: list[np.ndarray | None] = []
    own: list[Any] = []
    for k, block in enumerate(design.blocks):
        mode = modes.get(block.group, "include")
        if mode == "include":
            effects = fit.effects[block.group]
            gains.append(effects.gain.reshape(effects.modes.size, p))
            given = effects.covariance
            if alone:
                # The covariance of own coefficients holds the uncertainty of beta already.
                given = given - effects.gain @ fit.vcov @ np.swapaxes(effects.gain, 1, 2)
            own.append(_block_diagonal(given) if len(included) == 1 or alone else None)
        elif mode == "new":
            J = 1 + max(int(r.mean.new_index[k].max()) for r in rows)
            D = effect_covariance(fit.estimates, f"sd_{block.group}", f"cor_{block.group}")
            gains.append(None)
            own.append(_block_diagonal(np.repeat(D[None], J, axis=0)))
    # How the effects of several factors vary together is not kept without pooling.
    known = not (alone and len(design.blocks) > 1)
    joint = _joint(fit, included) if len(included) > 1 and not alone else None
    return JointErrors(vcov=fit.vcov, gains=tuple(gains), own=tuple(own), joint=joint, known=known)


def _joint(fit: Any, included: list[Any]) -> _Joint:
    from scipy.sparse.linalg import splu

    design: Design = fit.design
    # Factors that are left out here were fitted too: the others' effects depend on them.
    blocks = [*included, *(b for b in design.blocks if b not in included)]
    family = design.spec.family
    if family.name == "gaussian":
        weights = np.ones(len(design.y)) if design.weights is None else design.weights
        weights = weights / float(fit.estimates.get("sigma", 1.0)) ** 2
    else:
        parameter = float(fit.estimates[design.parameters[0]]) if design.parameters else 1.0
        likelihood = row_likelihood(family, design.y, design.trials, parameter, design.counts)
        weights = likelihood.terms(fit.row_predictor()).observed
    roots, columns = [], []
    for block in blocks:
        D = effect_covariance(fit.estimates, f"sd_{block.group}", f"cor_{block.group}")
        root = effect_root(D)
        J = len(block.levels)
        roots.append(_block_diagonal(np.repeat(root[None], J, axis=0)))
        columns.append(_spread(block.Z @ root, block.index, J))
    Z = sparse.csr_array(sparse.hstack(columns, format="csr"))
    A = Z.T @ sparse.csr_array(Z * weights[:, None]) + sparse.eye_array(Z.shape[1])
    count = sum(len(b.levels) * len(b.columns) for b in included)
    whole = sparse.csr_array(sparse.block_diag(roots, format="csr"))
    return _Joint(root=sparse.csr_array(whole[:count]), solve=splu(sparse.csc_array(A)).solve)


def linear_rows(fit: Any, rows: NewRows) -> LinearRows:
    """Return the linear predictors of rows, and what they depend on.

    Parameters
    ----------
    fit : ClassicalFit
        The fit.
    rows : NewRows
        The rows.
    """
    design: Design = fit.design
    arrays = rows.mean
    link = design.spec.family.link
    beta = fit.estimates.get("beta", np.empty(0))
    eta = arrays.offset + (arrays.X @ beta if len(beta) else 0.0)
    finest = max(design.blocks, key=lambda b: len(b.levels), default=None)
    averaged: np.ndarray | None = None
    spread = []
    for block, Z, index, new_index in zip(
        design.blocks, arrays.Z, arrays.index, arrays.new_index, strict=True
    ):
        mode = rows.mode(block.group)
        if mode == "include":
            effects = fit.effects[block.group]
            eta = eta + np.einsum("nk,nk->n", Z, np.nan_to_num(effects.modes)[index])
            if block is finest:  # a level of another factor is only the one that others refer to
                blank = ((Z != 0) & ~effects.estimable[index]).any(axis=1)
                eta = np.where(blank, np.nan, eta)
            spread.append(_spread(Z, index, len(block.levels)))
        elif mode == "new":
            spread.append(_spread(Z, new_index, int(new_index.max()) + 1))
        elif mode == "average":
            check_averages(design.spec.family)
            D = effect_covariance(fit.estimates, f"sd_{block.group}", f"cor_{block.group}")
            variance = np.maximum(np.einsum("nk,kl,nl->n", Z, D, Z), 0.0)
            averaged = variance if averaged is None else averaged + variance
    return LinearRows(link=link, eta=eta, averaged=averaged, X=arrays.X, Z=tuple(spread))


def predict_classical(
    fit: Any, new_data: Any, kind: Kind, groups: Groups, prob: float
) -> pd.DataFrame:
    """Predict from a classical fit, with intervals in closed form; see `ClassicalFit.predict`.

    The variance of a prediction x'beta + z'b is that of Henderson (1975): the conditional variance
    of b, plus what the uncertainty of beta adds; a new group adds z'Dz, a new observation sigma^2.
    """
    import pandas as pd

    design: Design = fit.design
    family = design.spec.family
    check_request(kind, group_modes(design, groups), prob)
    if kind == "response" and not (family.name == "gaussian" and family.link == "identity"):
        raise HmlmError(
            f"intervals for new {family.name} outcomes are those of draws: use "
            "kind='mean', or predict from hmlm.NUTS()."
        )
    rows = new_rows(design, new_data, groups, kind == "response")
    linear = linear_rows(fit, rows)
    variance = joint_errors(fit, rows).variance(linear.X, linear.Z)
    if kind == "response":
        sigma2 = float(fit.estimates.get("sigma", 1.0)) ** 2
        variance = variance + sigma2 / (1.0 if rows.weights is None else rows.weights)
    error = np.where(np.isnan(linear.eta), np.nan, np.sqrt(variance))
    half = special.ndtri(0.5 + prob / 2) * error
    eta, lower, upper = linear.eta, linear.eta - half, linear.eta + half
    if kind == "mean" and family.link != "identity":
        # The interval is that of the linear predictor; the standard error by the delta method.
        error = error * np.abs(linear.slope())
        bounds = np.stack([linear.mean(lower), linear.mean(upper)])
        eta, (lower, upper) = linear.mean(), np.sort(bounds, axis=0)
    return pd.DataFrame({"estimate": eta, "std_error": error, "lower": lower, "upper": upper})
