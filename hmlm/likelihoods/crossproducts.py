"""The data as sums: all that a Gaussian likelihood needs to know of the rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmlm.design import Block, Design
from hmlm.likelihoods.covariance import CovarianceShape, condition, covariance_shape


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class PopulationBasis:
    """Population columns and outcome on a well-conditioned basis.

    X = Q R with Q'Q = n I (weighted), and the outcome less its least-squares fit, so that sums of
    squares lose no digits when predictors have odd scales or the outcome is far from zero.

    Attributes
    ----------
    Q : ndarray, shape (N, p)
        Orthogonal columns.
    R : ndarray, shape (p, p)
        Upper triangular: ``X = Q @ R``.
    residual : ndarray, shape (N,)
        Outcome less its (weighted) least-squares fit on X.
    beta : ndarray, shape (p,)
        The least-squares coefficients, on the user's scale.
    root_weights : ndarray of shape (N,) or None
        Square roots of the weights; Q and the residual are already multiplied with them.
    """

    Q: np.ndarray
    R: np.ndarray
    residual: np.ndarray
    beta: np.ndarray
    root_weights: np.ndarray | None

    @property
    def log_det(self) -> float:
        """log|R'R|: what turns log|Q'V^-1 Q| into log|X'V^-1 X|."""
        return 2 * float(np.log(np.abs(np.diagonal(self.R))).sum())

    def to_user(self, gamma: np.ndarray) -> np.ndarray:
        """Turn coefficients on Q (of the residual) into coefficients on X (of the outcome)."""
        return self.beta + np.linalg.solve(self.R, gamma) if len(self.beta) else self.beta

    def covariance_to_user(self, covariance: np.ndarray) -> np.ndarray:
        """Turn a covariance of coefficients on Q into one on X."""
        if not len(self.beta):
            return covariance
        half = np.linalg.solve(self.R, covariance)
        return np.linalg.solve(self.R, half.T).T


def population_basis(design: Design) -> PopulationBasis:
    """Orthogonalise the population columns of a design."""
    y, X = design.response, design.X
    root = None if design.weights is None else np.sqrt(design.weights)
    if root is not None:
        y, X = root * y, root[:, None] * X
    n, p = design.n_rows, X.shape[1]
    if p == 0:
        empty = np.empty((len(X), 0))
        return PopulationBasis(
            Q=empty, R=np.empty((0, 0)), residual=y, beta=np.empty(0), root_weights=root
        )
    scale = np.sqrt((X**2).sum(axis=0) / n) if n != len(X) else np.sqrt((X**2).mean(axis=0))
    Q, R = np.linalg.qr(X / scale)
    fit = Q.T @ y
    residual = y - Q @ fit
    fit += Q.T @ residual
    residual = y - Q @ fit
    R = R * scale
    return PopulationBasis(
        Q=Q * np.sqrt(n),
        R=R / np.sqrt(n),
        residual=residual,
        beta=np.linalg.solve(R, fit),
        root_weights=root,
    )


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class OneFactor:
    """Cross-products of a model with one grouping factor.

    Groups whose Z'Z are equal share it, and enter only through the sum of the outer products of
    their cross-products with M = [Q, residual].

    Attributes
    ----------
    n : int
        Number of rows.
    basis : PopulationBasis
        Population columns and outcome.
    shape : CovarianceShape
        Free entries of Lambda.
    T : ndarray, shape (q, q)
        Change of basis of Z.
    MM : ndarray, shape (p + 1, p + 1)
        M'M.
    ZM : ndarray, shape (J, q, p + 1)
        Z'M of every group.
    ZZ : ndarray, shape (G, q, q)
        Distinct Z'Z.
    which : ndarray of int, shape (J,)
        Which of them each group has.
    count : ndarray, shape (G,)
        How many groups share each.
    pairs : ndarray, shape (G q^2, (p + 1)^2)
        Sums over sharing groups of the outer products of ZM, by pairs of effects and pairs of
        columns; empty where sharing does not pay.
    sum_log_weights : float
        Sum of the logarithms of the weights.
    """

    n: int
    basis: PopulationBasis
    shape: CovarianceShape
    T: np.ndarray
    MM: np.ndarray
    ZM: np.ndarray
    ZZ: np.ndarray
    which: np.ndarray
    count: np.ndarray
    pairs: np.ndarray
    sum_log_weights: float

    @property
    def outer(self) -> np.ndarray:
        """The pairs with an axis for each index, shape (G, q, q, p + 1, p + 1)."""
        q, m = self.ZM.shape[1:]
        return self.pairs.reshape(-1, q, q, m, m)

    @property
    def sharing_pays(self) -> bool:
        """Whether the sums over groups of equal design are smaller than the groups themselves."""
        return len(self.pairs) > 0


def group_sums(index: np.ndarray, values: np.ndarray, n_groups: int) -> np.ndarray:
    """Sum values over the rows of each group.

    Parameters
    ----------
    index : ndarray of int, shape (N,)
        Group of every row.
    values : ndarray, shape (N,)
        What to sum.
    n_groups : int
        Number of groups.
    """
    return np.bincount(index, weights=values, minlength=n_groups)


def conditioned(block: Block, basis: PopulationBasis) -> tuple[np.ndarray, np.ndarray]:
    """Return a block's Z in the conditioned basis, weighted, and the change of basis T."""
    T = condition(block).T
    Z = block.Z @ T
    return (Z if basis.root_weights is None else basis.root_weights[:, None] * Z), T


def group_products(
    index: np.ndarray, Z: np.ndarray, M: np.ndarray, n_groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return Z'Z, shape (J, q, q), and Z'M, shape (J, q, m), of every group."""
    q, m = Z.shape[1], M.shape[1]
    ZZ, ZM = np.empty((n_groups, q, q)), np.empty((n_groups, q, m))
    for a in range(q):
        for b in range(a + 1):
            ZZ[:, a, b] = ZZ[:, b, a] = group_sums(index, Z[:, a] * Z[:, b], n_groups)
        for r in range(m):
            ZM[:, a, r] = group_sums(index, Z[:, a] * M[:, r], n_groups)
    return ZZ, ZM


def squares(design: Design, M: np.ndarray) -> np.ndarray:
    """Return M'M over the rows of the table, M ending in what is left of the outcome."""
    MM = M.T @ M
    if design.cells is not None:
        MM[-1, -1] += design.cells.rest
    return np.asarray(MM)


def sum_log_weights(design: Design) -> float:
    """Return the sum of the logarithms of the weights; zero where there are none."""
    if design.cells is not None and design.cells.sums:
        return design.cells.log_weights
    return 0.0 if design.weights is None else float(np.log(design.weights).sum())


def one_factor(design: Design, block: Block) -> OneFactor:
    """Sum a design with one grouping factor."""
    basis = population_basis(design)
    Z, T = conditioned(block, basis)
    M = np.column_stack([basis.Q, basis.residual])
    J, q, m = len(block.levels), Z.shape[1], M.shape[1]
    ZZ, ZM = group_products(block.index, Z, M, J)
    distinct, which = share(ZZ)
    G = len(distinct)
    sharing_pays = G * q * m <= J
    outer = np.zeros((G if sharing_pays else 0, q * m, q * m))
    flat = ZM.reshape(J, q * m)
    order = np.argsort(which, kind="stable")
    starts = np.searchsorted(which[order], np.arange(G + 1))
    for g in range(len(outer)):
        members = flat[order[starts[g] : starts[g + 1]]]
        outer[g] = members.T @ members
    return OneFactor(
        n=design.n_rows,
        basis=basis,
        shape=covariance_shape(block.parts),
        T=T,
        MM=squares(design, M),
        ZM=ZM,
        ZZ=distinct,
        which=which,
        count=np.bincount(which, minlength=G).astype(float),
        pairs=np.swapaxes(outer.reshape(-1, q, m, q, m), 2, 3).reshape(-1, m * m),
        sum_log_weights=sum_log_weights(design),
    )


def share(ZZ: np.ndarray, digits: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Find groups whose Z'Z are equal.

    Parameters
    ----------
    ZZ : ndarray, shape (J, q, q)
        Cross-products of conditioned columns, so of the order of the group size.
    digits : int
        Significant digits, relative to the largest entry, in which they have to agree.

    Returns
    -------
    distinct : ndarray, shape (G, q, q)
        One of each.
    which : ndarray of int, shape (J,)
        Which each group has.
    """
    J, q, _ = ZZ.shape
    flat = ZZ.reshape(J, q * q)
    size = np.trace(ZZ, axis1=1, axis2=2)
    size[size == 0] = 1.0
    rounded = np.round(flat / np.exp2(np.ceil(np.log2(size)))[:, None], digits)
    keys = np.column_stack([np.ceil(np.log2(size)), rounded]) + 0.0
    view = np.ascontiguousarray(keys).view(np.dtype((np.void, keys.dtype.itemsize * keys.shape[1])))
    _, first, which = np.unique(view.ravel(), return_index=True, return_inverse=True)
    return ZZ[first], which
