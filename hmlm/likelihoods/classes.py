"""Groups of equal design under one parent, taken together.

They share Z'Z and their cross-products with the outer levels, so a class needs one factorisation,
its size, and sums of its groups' cross-products with M and of their outer products.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Classes:
    """The finest level of a tree in classes, C of them.

    Attributes
    ----------
    which : ndarray of int, shape (J,)
        Class of every group.
    parent : ndarray of int, shape (C,)
        Position of the parent, ascending.
    starts : ndarray of int
        First class of every parent.
    count : ndarray, shape (C,)
        Groups in each class.
    S : ndarray, shape (C, q, q)
        Their Z'Z.
    Bz : ndarray, shape (C, q, z)
        Their cross-products with the columns of the outer levels.
    sums : ndarray, shape (C, q, m)
        Sums of their cross-products with M.
    outer : ndarray, shape (C, q, q, m, m)
        Sums of the outer products of their cross-products with M.
    """

    which: np.ndarray
    parent: np.ndarray
    starts: np.ndarray
    count: np.ndarray
    S: np.ndarray
    Bz: np.ndarray
    sums: np.ndarray
    outer: np.ndarray

    def up(self, W: np.ndarray) -> np.ndarray:
        """Return what the classes explain of their parents, shape (parents, z + m, z + m)."""
        C, q, z = self.Bz.shape
        m = self.sums.shape[2]
        WB = W @ self.Bz
        each = np.empty((C, z + m, z + m))
        BzT = np.swapaxes(self.Bz, 1, 2)
        each[:, :z, :z] = self.count[:, None, None] * (BzT @ WB)
        each[:, :z, z:] = np.swapaxes(WB, 1, 2) @ self.sums
        each[:, z:, :z] = np.swapaxes(each[:, :z, z:], 1, 2)
        flat = W.reshape(C, 1, q * q) @ self.outer.reshape(C, q * q, m * m)
        each[:, z:, z:] = flat.reshape(C, m, m)
        return np.add.reduceat(each, self.starts, axis=0)

    def down(self, E_bar: np.ndarray) -> np.ndarray:
        """Return the derivative by each class's W, summed over its groups, shape (C, q, q).

        Parameters
        ----------
        E_bar : ndarray, shape (parents, z + m, z + m)
            Derivative by what the parents have left.
        """
        C, q, z = self.Bz.shape
        m = self.sums.shape[2]
        E = E_bar[self.parent]
        BzT = np.swapaxes(self.Bz, 1, 2)
        cross = (self.Bz @ E[:, :z, z:]) @ np.swapaxes(self.sums, 1, 2)
        own = self.outer.reshape(C, q * q, m * m) @ np.ascontiguousarray(E[:, z:, z:]).reshape(
            C, m * m, 1
        )
        W_bar = self.count[:, None, None] * (self.Bz @ E[:, :z, :z] @ BzT)
        W_bar += cross + np.swapaxes(cross, 1, 2) + own.reshape(C, q, q)
        return -W_bar


def make_classes(S: np.ndarray, B: np.ndarray, parent: np.ndarray, m: int) -> Classes | None:
    """Put groups of equal design under one parent together, where that is less work.

    Parameters
    ----------
    S : ndarray, shape (J, q, q)
        Every group's Z'Z.
    B : ndarray, shape (J, q, z + m)
        Cross-products with the outer levels' columns and with M.
    parent : ndarray of int, shape (J,)
        Positions of the parents, ascending.
    m : int
        Number of columns of M.
    """
    J, q, width = B.shape
    z = width - m
    Bz, BM = B[:, :, :z], B[:, :, z:]
    size = np.trace(S, axis1=1, axis2=2)
    size = np.where(size > 0, size, 1.0)
    shape = np.column_stack([S.reshape(J, -1), Bz.reshape(J, -1)])
    shape = np.round(shape / np.exp2(np.ceil(np.log2(size)))[:, None], 12) + 0.0
    keys = np.ascontiguousarray(np.column_stack([parent, np.ceil(np.log2(size)), shape]))
    order = np.lexsort(keys.T[::-1])
    ordered = keys[order]
    new = np.ones(J, dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    C = int(new.sum())
    if C * (q + 1) * m > 2 * J * (q + 1) or C == J:
        return None
    which = np.empty(J, dtype=np.int64)
    which[order] = np.cumsum(new) - 1
    begins = np.flatnonzero(new)
    first = order[begins]
    BM = BM[order]
    products = BM[:, :, None, :, None] * BM[:, None, :, None, :]
    above = parent[first]
    return Classes(
        which=which,
        parent=above,
        starts=np.searchsorted(above, np.arange(int(above[-1]) + 1)),
        count=np.diff(np.append(begins, J)).astype(float),
        S=S[first],
        Bz=Bz[first],
        sums=np.add.reduceat(BM, begins, axis=0),
        outer=np.add.reduceat(products, begins, axis=0),
    )
