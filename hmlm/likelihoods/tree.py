"""Nested and crossed factors: integrated out from the inside, level by level.

The group effects of the finest factor are eliminated first; the Schur complement of each level
becomes the cross-products of the next. Crossed factors stand together at the root.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmlm.design import Block, Design
from hmlm.likelihoods.classes import Classes, make_classes
from hmlm.likelihoods.covariance import (
    CovarianceShape,
    covariance_shape,
    factor_groups,
)
from hmlm.likelihoods.crossproducts import (
    PopulationBasis,
    conditioned,
    group_products,
    population_basis,
    squares,
    sum_log_weights,
)
from hmlm.likelihoods.structure import Structure


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Level:
    """Cross-products of one level of the tree.

    Attributes
    ----------
    blocks : tuple of Block
        One factor of the chain, or at the root all the crossed ones.
    shapes : tuple of CovarianceShape
        Free entries of Lambda of each block.
    bases : tuple of ndarray
        Change of basis of each block's Z.
    parent : ndarray of int, shape (J,)
        Position of every group's parent at the next level, ascending.
    starts : ndarray of int
        First group of every parent.
    order : ndarray of int, shape (J,)
        Level of the factor at each position; groups are ordered by parent.
    S : ndarray, shape (J, q, q)
        Own cross-products Z'Z.
    B : ndarray, shape (J, q, m)
        Cross-products with the columns of all outer levels and with M.
    classes : Classes or None
        At the finest level, groups of equal design put together, where that is less work.
    """

    blocks: tuple[Block, ...]
    shapes: tuple[CovarianceShape, ...]
    bases: tuple[np.ndarray, ...]
    parent: np.ndarray
    starts: np.ndarray
    order: np.ndarray
    S: np.ndarray
    B: np.ndarray
    classes: Classes | None = None

    @property
    def q(self) -> int:
        """Number of columns eliminated in each group."""
        return self.S.shape[1]

    @property
    def copies(self) -> tuple[int, ...]:
        """How often each block's Lambda stands in the level's own."""
        alone = len(self.blocks) == 1 and self.q == len(self.blocks[0].columns)
        return (1,) if alone else tuple(len(b.levels) for b in self.blocks)

    def unpack(self, thetas: list[np.ndarray]) -> np.ndarray:
        """Return the level's Lambda, shape (q, q)."""
        if self.copies == (1,):
            return self.shapes[0].unpack(thetas[0])
        Lambda = np.zeros((self.q, self.q))
        start = 0
        for shape, theta, copies in zip(self.shapes, thetas, self.copies, strict=True):
            one = shape.unpack(theta)
            for _ in range(copies):
                Lambda[start : start + shape.q, start : start + shape.q] = one
                start += shape.q
        return Lambda

    def pack(self, gradient: np.ndarray) -> list[np.ndarray]:
        """Sum the derivative by the level's Lambda over the copies of each block's."""
        packed, start = [], 0
        for shape, copies in zip(self.shapes, self.copies, strict=True):
            total = np.zeros((shape.q, shape.q))
            for _ in range(copies):
                total += gradient[start : start + shape.q, start : start + shape.q]
                start += shape.q
            packed.append(shape.pack(total))
        return packed


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Tree:
    """A Gaussian model with nested factors, and crossed ones at the root, as sums.

    Attributes
    ----------
    n : int
        Number of rows.
    basis : PopulationBasis
        Population columns and outcome.
    levels : tuple of Level
        From the finest to the root.
    MM : ndarray, shape (p + 1, p + 1)
        M'M.
    sum_log_weights : float
        Sum of the logarithms of the weights.
    """

    n: int
    basis: PopulationBasis
    levels: tuple[Level, ...]
    MM: np.ndarray
    sum_log_weights: float


def make_tree(design: Design, structure: Structure) -> Tree:
    """Sum a design with nested factors and a small number of crossed effects."""
    basis = population_basis(design)
    M = np.column_stack([basis.Q, basis.residual])
    groups: list[tuple[tuple[Block, ...], np.ndarray, int]] = []
    values: list[np.ndarray] = []
    bases: list[tuple[np.ndarray, ...]] = []
    for block in structure.chain:
        Z, T = conditioned(block, basis)
        groups.append(((block,), block.index, len(block.levels)))
        values.append(Z)
        bases.append((T,))
    if structure.rest:
        pieces, rest_bases = [], []
        for block in structure.rest:
            Z, T = conditioned(block, basis)
            pieces.append(_indicators(Z, block.index, len(block.levels)))
            rest_bases.append(T)
        dense = np.column_stack(pieces)
        zero = np.zeros(len(M), dtype=np.int64)
        groups.append((structure.rest, zero, 1))
        values.append(dense)
        bases.append(tuple(rest_bases))
    levels = []
    n_levels = len(groups)
    parents = [
        *(structure.parents[: len(structure.chain) - 1]),
        *([np.zeros(len(structure.chain[-1].levels), dtype=np.int64)]),
        *([np.zeros(1, dtype=np.int64)] if structure.rest else []),
    ]
    # Positions of groups: children of one parent stand together, from the root inwards.
    position: list[np.ndarray] = [np.empty(0)] * n_levels
    orders: list[np.ndarray] = [np.empty(0)] * n_levels
    sorted_parent: list[np.ndarray] = [np.empty(0)] * n_levels
    for ell in range(n_levels - 1, -1, -1):
        up = parents[ell] if ell == n_levels - 1 else position[ell + 1][parents[ell]]
        orders[ell] = np.argsort(up, kind="stable")
        sorted_parent[ell] = up[orders[ell]]
        position[ell] = np.empty(len(up), dtype=np.int64)
        position[ell][orders[ell]] = np.arange(len(up))
    for ell, (blocks, index, J) in enumerate(groups):
        Z = values[ell]
        outer = np.column_stack([*values[ell + 1 :], M])
        at = position[ell][index]
        if J == 1:
            S, B = (Z.T @ Z)[None], (Z.T @ outer)[None]
        else:
            S, B = group_products(at, Z, outer, J)
        parent = sorted_parent[ell]
        levels.append(
            Level(
                blocks=blocks,
                shapes=tuple(covariance_shape(b.parts) for b in blocks),
                bases=bases[ell],
                parent=parent,
                starts=np.searchsorted(parent, np.arange(int(parent[-1]) + 1)),
                order=orders[ell],
                S=S,
                B=B,
                classes=make_classes(S, B, parent, M.shape[1]) if ell == 0 < n_levels - 1 else None,
            )
        )
    return Tree(
        n=design.n_rows,
        basis=basis,
        levels=tuple(levels),
        MM=squares(design, M),
        sum_log_weights=sum_log_weights(design),
    )


def _indicators(Z: np.ndarray, index: np.ndarray, levels: int) -> np.ndarray:
    columns = np.zeros((len(Z), levels, Z.shape[1]))
    columns[np.arange(len(Z)), index] = Z
    return columns.reshape(len(Z), -1)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Eliminated:
    """One level after elimination at some theta.

    Attributes
    ----------
    Lambda : ndarray, shape (q, q)
        Relative Cholesky factor.
    S, B : ndarray
        Cross-products less what the finer levels explain.
    H, W : ndarray, shape (J, q, q)
        Lambda A^-1 and Lambda A^-1 Lambda', with A = I + Lambda'S Lambda. Of every class instead
        of every group, where the level has classes; B is then without M.
    """

    Lambda: np.ndarray
    S: np.ndarray
    B: np.ndarray
    H: np.ndarray
    W: np.ndarray


def eliminate(
    tree: Tree, thetas: list[list[np.ndarray]]
) -> tuple[list[Eliminated], float, np.ndarray]:
    """Integrate the group effects out, from the finest level to the root.

    Returns
    -------
    levels : list of Eliminated
        Every level.
    log_det : float
        log|V|.
    K : ndarray, shape (p + 1, p + 1)
        M'V^-1 M.
    """
    done: list[Eliminated] = []
    log_det = 0.0
    explained: np.ndarray | None = None
    for level, theta in zip(tree.levels, thetas, strict=True):
        q = level.q
        Lambda = level.unpack(theta)
        classes = level.classes
        S, B = (level.S, level.B) if classes is None else (classes.S, classes.Bz)
        if explained is not None:
            S = S - explained[:, :q, :q]
            B = B - explained[:, :q, q:]
        logs, H, W = factor_groups(S, Lambda)
        log_det += float(logs.sum() if classes is None else classes.count @ logs)
        done.append(Eliminated(Lambda=Lambda, S=S, B=B, H=H, W=W))
        if classes is not None:
            explained = classes.up(W)
            continue
        WB = W @ B
        if len(level.starts) == 1:
            m = B.shape[2]
            up = (B.reshape(-1, m).T @ WB.reshape(-1, m))[None]
            if explained is not None:
                up = up + explained[:, q:, q:].sum(axis=0)
        else:
            each = np.swapaxes(B, 1, 2) @ WB
            if explained is not None:
                each += explained[:, q:, q:]
            up = np.add.reduceat(each, level.starts, axis=0)
        explained = up
    return done, log_det, tree.MM if explained is None else tree.MM - explained[0]


def pull_back(tree: Tree, done: list[Eliminated], K_bar: np.ndarray) -> list[list[np.ndarray]]:
    """Return the derivative by theta of log|V| + <K_bar, K>, by the reverse of `eliminate`."""
    gradients: list[list[np.ndarray]] = []
    E_bar = K_bar[None]
    for ell in range(len(tree.levels) - 1, -1, -1):
        level, at = tree.levels[ell], done[ell]
        if level.classes is not None:
            W_bar, count = level.classes.down(E_bar), level.classes.count[:, None, None]
            inner = W_bar - at.S @ (at.W @ W_bar) + count * at.S
            gradients.append(level.pack(2 * (inner @ at.H).sum(axis=0)))
            continue
        outer = E_bar[0][None] if len(E_bar) == 1 else E_bar[level.parent]
        BE = at.B @ outer
        W_bar = -BE @ np.swapaxes(at.B, 1, 2)
        inner = W_bar - at.S @ (at.W @ W_bar) + at.S
        gradients.append(level.pack(2 * (inner @ at.H).sum(axis=0)))
        if ell:
            S_bar = at.W - at.W @ W_bar @ at.W
            B_bar = -(at.W @ BE)
            q, m = level.q, at.B.shape[2]
            E_bar = np.empty((len(at.S), q + m, q + m))
            E_bar[:, :q, :q] = S_bar
            E_bar[:, :q, q:] = B_bar
            E_bar[:, q:, :q] = np.swapaxes(B_bar, 1, 2)
            E_bar[:, q:, q:] = outer
    return gradients[::-1]
