"""Covariance of group effects: relative Cholesky factors, sds and correlations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmlm.design import Block


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class CovarianceShape:
    """Which entries of a relative Cholesky factor are free.

    With D = sigma^2 Lambda Lambda' the covariance of a group's q effects, Lambda is lower
    triangular inside each correlated part and zero outside; theta holds its free entries by
    columns, as in lme4 (Bates et al. 2015, section 2.1).

    Attributes
    ----------
    q : int
        Number of effects.
    rows, columns : ndarray of int
        Places of the free entries in Lambda.
    """

    q: int
    rows: np.ndarray
    columns: np.ndarray

    @property
    def is_diagonal(self) -> np.ndarray:
        """Which entries of theta stand on the diagonal, and so cannot be negative."""
        return self.rows == self.columns

    @property
    def size(self) -> int:
        """Length of theta."""
        return len(self.rows)

    def unpack(self, theta: np.ndarray) -> np.ndarray:
        """Return Lambda, shape (q, q)."""
        Lambda = np.zeros((self.q, self.q))
        Lambda[self.rows, self.columns] = theta
        return Lambda

    def pack(self, Lambda: np.ndarray) -> np.ndarray:
        """Return the free entries of Lambda."""
        return Lambda[self.rows, self.columns]


def covariance_shape(parts: tuple[int, ...]) -> CovarianceShape:
    """Return the free entries for correlated parts of these sizes.

    Examples
    --------
    >>> covariance_shape((2, 1)).unpack(np.array([1.0, 2.0, 3.0, 4.0]))
    array([[1., 0., 0.],
           [2., 3., 0.],
           [0., 0., 4.]])
    """
    rows: list[int] = []
    columns: list[int] = []
    start = 0
    for size in parts:
        for c in range(size):
            for r in range(c, size):
                rows.append(start + r)
                columns.append(start + c)
        start += size
    return CovarianceShape(q=start, rows=np.array(rows), columns=np.array(columns))


def factor_groups(S: np.ndarray, Lambda: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Factor A = I + Lambda'S Lambda of every group.

    Parameters
    ----------
    S : ndarray, shape (J, q, q)
        Cross-products Z'Z.
    Lambda : ndarray, shape (q, q)
        Relative Cholesky factor.

    Returns
    -------
    log_det : ndarray, shape (J,)
        log|A|.
    H, W : ndarray, shape (J, q, q)
        Lambda A^-1 and Lambda A^-1 Lambda'.
    """
    if len(Lambda) == 1:
        a = 1.0 + Lambda[0, 0] ** 2 * S
        H = Lambda[0, 0] / a
        return np.log(a[:, 0, 0]), H, Lambda[0, 0] * H
    A = Lambda.T @ (S @ Lambda)
    A.reshape(len(A), -1)[:, :: len(Lambda) + 1] += 1.0
    if len(Lambda) == 2:
        det = A[:, 0, 0] * A[:, 1, 1] - A[:, 0, 1] ** 2
        inverse = np.empty_like(A)
        inverse[:, 0, 0], inverse[:, 1, 1] = A[:, 1, 1] / det, A[:, 0, 0] / det
        inverse[:, 0, 1] = inverse[:, 1, 0] = -A[:, 0, 1] / det
        H = Lambda @ inverse
        return np.log(det), H, H @ Lambda.T
    half = np.linalg.inv(np.linalg.cholesky(A))
    H = Lambda @ np.swapaxes(half, 1, 2) @ half
    return -2 * np.log(np.diagonal(half, axis1=1, axis2=2)).sum(axis=1), H, H @ Lambda.T


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Conditioning:
    """A change of basis of Z under which the likelihood is well conditioned.

    ``Z_conditioned = Z @ T`` and ``b = T @ b_conditioned``: columns are scaled to mean square one
    and, where they are correlated with an intercept, centred first. The model is the same.

    Attributes
    ----------
    T : ndarray, shape (q, q)
        The change of basis.
    """

    T: np.ndarray


def condition(block: Block) -> Conditioning:
    """Choose the change of basis for one block."""
    q = len(block.columns)
    T = np.eye(q)
    for part in block.slices:
        names = block.columns[part]
        Z = block.Z[:, part]
        centre = np.zeros(Z.shape[1])
        own = block.moments
        if "Intercept" in names and Z.shape[1] > 1:
            k0 = names.index("Intercept")
            centre = Z.mean(axis=0) if own is None else own.mean[part].copy()
            centre[k0] = 0.0
            T[part.start + k0, part] -= centre
            T[part.start + k0, part.start + k0] = 1.0
        if own is None:
            scale = np.sqrt(((Z - centre) ** 2).mean(axis=0))
        else:
            scale = np.sqrt(own.variance[part] + (own.mean[part] - centre) ** 2)
        scale[scale == 0] = 1.0
        T[:, part] /= scale
    return Conditioning(T=T)


def sds_and_correlations(D: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the standard deviations and the correlation matrix of a covariance matrix.

    A correlation with an effect of variance zero is NaN: there is none.
    """
    sd = np.sqrt(np.maximum(np.diagonal(D), 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        cor = D / np.outer(sd, sd)
    dead = sd <= 0
    cor[dead, :] = np.nan
    cor[:, dead] = np.nan
    np.fill_diagonal(cor, 1.0)
    return sd, np.clip(cor, -1.0, 1.0)
