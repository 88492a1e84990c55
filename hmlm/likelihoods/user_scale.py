"""The deviance by sds, correlations and sigma, on the user's scale.

Correlations enter through angles: the rows of the correlation matrix's Cholesky factor are points
on a sphere. So the deviance is smooth for every real value, at the edges too, and an optimiser
needs no bounds. The correlation of two chosen effects is the cosine of a single angle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hmlm.likelihoods.covariance import CovarianceShape
from hmlm.likelihoods.crossproducts import OneFactor
from hmlm.likelihoods.curvature import curvature
from hmlm.likelihoods.gaussian import bases_of
from hmlm.likelihoods.profiled import GaussianSums, profiled_deviance, shapes_of, split_theta
from hmlm.likelihoods.tree import Tree


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class UserPart:
    """Effects that are correlated with each other.

    Attributes
    ----------
    block : int
        Position of their factor in the order of theta.
    effects : tuple of int
        Their columns of Z, in the order in which the angles take them.
    sds : tuple of int
        Where their sds stand among the parameters.
    angles : tuple of tuple of int
        Where the angles of each effect stand; the first effect has none.
    """

    block: int
    effects: tuple[int, ...]
    sds: tuple[int, ...]
    angles: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class UserScale:
    """Parameters (sds and angles of every part, log sigma last) and the deviance by them.

    Attributes
    ----------
    sums : OneFactor, Tree or Crossed
        The data, with every entry of Lambda inside a part free.
    parts : tuple of UserPart
        The parts of all blocks.
    large : ndarray
        What is a large change of each parameter.
    known : bool
        Whether sigma is known and keeps its value.
    """

    sums: GaussianSums
    parts: tuple[UserPart, ...]
    large: np.ndarray
    known: bool = False

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self.large)

    @property
    def sds(self) -> tuple[int, ...]:
        """Where the sds stand."""
        return tuple(sd for part in self.parts for sd in part.sds)

    @property
    def angles(self) -> tuple[int, ...]:
        """Where the angles stand."""
        return tuple(a for part in self.parts for own in part.angles for a in own)

    def sd_of(self, block: int, effect: int) -> int:
        """Return where the sd of one effect stands."""
        part = self._part(block, effect)
        return part.sds[part.effects.index(effect)]

    def angle_of(self, block: int, effect: int) -> int:
        """Return where the angle between the first two effects of a part stands."""
        return self._part(block, effect).angles[1][0]

    def _part(self, block: int, effect: int) -> UserPart:
        return next(p for p in self.parts if p.block == block and effect in p.effects)

    def deviance(
        self, phi: np.ndarray, held: tuple[np.ndarray, float] | None = None
    ) -> tuple[float, np.ndarray]:
        """Return the ML deviance, maximised over the coefficients, and its gradient.

        Parameters
        ----------
        phi : ndarray, shape (size,)
            The parameters.
        held : tuple, optional
            A combination of coefficients to hold, as in `profiled_deviance`.
        """
        sigma = float(np.exp(phi[-1]))
        theta, slopes = self._theta(phi)
        point = profiled_deviance(theta, self.sums, False, sigma**2, held)
        gradient = point.gradient @ slopes
        gradient[-1] += 2 * self.sums.n - 2 * point.r2 / sigma**2
        return point.deviance, gradient

    def hessian(self, phi: np.ndarray) -> np.ndarray:
        """Return second derivatives of the deviance where its gradient is zero.

        They are differenced by Lambda, whose entries are of like size, and carried over: so they
        hold where sds and correlations are nearly dependent, as with a predictor far from zero.
        """
        theta, slopes = self._theta(phi)
        by_theta = curvature(theta, float(np.exp(2 * phi[-1])), self.sums, reml=False).hessian
        whole = np.vstack([slopes, np.eye(self.size)[-1]])
        return np.asarray(whole.T @ by_theta @ whole)

    def _theta(self, phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return theta and its derivatives, shape (k, size)."""
        shapes, bases = shapes_of(self.sums), bases_of(self.sums)
        sigma = float(np.exp(phi[-1]))
        factors = [np.zeros((s.q, s.q)) for s in shapes]
        moves = [np.zeros((self.size, s.q, s.q)) for s in shapes]
        for part in self.parts:
            columns = sorted(part.effects)
            for effect, sd, angles in zip(part.effects, part.sds, part.angles, strict=True):
                row, turned = sphere(phi[list(angles)])
                at = columns[: len(row)]
                factors[part.block][effect, at] = phi[sd] * row
                moves[part.block][sd, effect, at] = row
                for angle, change in zip(angles, turned, strict=True):
                    moves[part.block][angle, effect, at] = phi[sd] * change
        theta, slopes = [], []
        for shape, T, factor, move in zip(shapes, bases, factors, moves, strict=True):
            Lambda = np.linalg.solve(T, factor) / sigma
            by_phi = np.linalg.solve(T, move) / sigma
            by_phi[-1] = -Lambda
            theta.append(shape.pack(Lambda))
            slopes.append(by_phi[:, shape.rows, shape.columns])
        return np.concatenate(theta), np.concatenate(slopes, axis=1).T


def sphere(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the point on the unit sphere at some angles, and its derivatives by each.

    Examples
    --------
    >>> sphere(np.array([np.pi / 3]))[0].round(3)
    array([0.5  , 0.866])
    """
    m = len(angles)
    cos, sin = np.cos(angles), np.sin(angles)
    point = np.append(cos, 1.0) * np.cumprod(np.append(1.0, sin))
    turned = np.zeros((m, m + 1))
    for k in range(m):
        replaced = sin.copy()
        replaced[k] = cos[k]
        turned[k] = np.append(cos, 1.0) * np.cumprod(np.append(1.0, replaced))
        turned[k, :k] = 0.0
        turned[k, k] = -sin[k] * np.prod(sin[:k])
    return point, turned


def angles_of(half: np.ndarray) -> list[np.ndarray]:
    """Return the angles of every row of the Cholesky factor of ``half @ half.T``.

    Singular matrices have them too; right angles stand where any would do.

    Examples
    --------
    >>> [row.round(3).tolist() for row in angles_of(np.array([[2.0, 0.0], [1.5, 1.5]]))]
    [[], [0.785]]
    """
    factor = np.linalg.qr(half.T, mode="r").T
    factor = factor * np.where(np.diagonal(factor) < 0, -1.0, 1.0)
    found = []
    for i, row in enumerate(factor):
        beyond = np.sqrt(np.cumsum(row[: i + 1][::-1] ** 2)[::-1])
        angles = np.arctan2(beyond[1:], row[:i])
        found.append(angles if beyond[0] > 0 else np.full(i, np.pi / 2))
    return found


def user_scale(
    sums: GaussianSums,
    theta: np.ndarray,
    sigma2: float,
    first: tuple[int, int, int] | None = None,
    known: bool = False,
) -> tuple[UserScale, np.ndarray]:
    """Change from theta and sigma to sds, angles and log sigma.

    Parameters
    ----------
    sums : OneFactor, Tree or Crossed
        The data.
    theta : ndarray
        Free entries of Lambda.
    sigma2 : float
        Residual variance.
    first : tuple of int, optional
        Block and two effects whose correlation shall be the cosine of one angle.
    known : bool
        Whether sigma is known.

    Returns
    -------
    scale : UserScale
        The deviance.
    phi : ndarray
        The parameters that theta and sigma are.
    """
    parts: list[UserPart] = []
    phi: list[float] = []
    large: list[float] = []
    full = []
    shapes, bases = shapes_of(sums), bases_of(sums)
    split = split_theta(theta, sums)
    for k, (shape, T, own) in enumerate(zip(shapes, bases, split, strict=True)):
        half = T @ shape.unpack(own)
        sd = np.sqrt(sigma2 * (half**2).sum(axis=1))
        unit = np.sqrt(sigma2 * (T**2).sum(axis=1))
        groups = _correlated(shape)
        for effects in groups:
            order = list(effects)
            if first is not None and first[0] == k and {*first[1:]} <= {*order}:
                order = [*first[1:], *(e for e in order if e not in first[1:])]
            angles = angles_of(half[np.ix_(order, effects)])
            start = len(phi)
            phi += [float(sd[e]) for e in order]
            large += [float(max(sd[e], unit[e] / 10)) for e in order]
            places = []
            for row in angles:
                places.append(tuple(range(len(phi), len(phi) + len(row))))
                phi += [float(a) for a in row]
                large += [1.0] * len(row)
            parts.append(
                UserPart(
                    block=k,
                    effects=tuple(order),
                    sds=tuple(range(start, start + len(order))),
                    angles=tuple(places),
                )
            )
        pairs = [(r, c) for effects in groups for c in effects for r in effects]
        full.append(
            CovarianceShape(
                q=shape.q,
                rows=np.array([r for r, _ in pairs]),
                columns=np.array([c for _, c in pairs]),
            )
        )
    phi.append(0.5 * float(np.log(sigma2)))
    scale = UserScale(
        sums=_with_shapes(sums, full),
        parts=tuple(parts),
        large=np.array([*large, 1.0]),
        known=known,
    )
    return scale, np.array(phi)


def _correlated(shape: CovarianceShape) -> list[list[int]]:
    """Return the effects of each correlated part, from the free entries of Lambda."""
    parts: list[list[int]] = []
    for r, c in zip(shape.rows, shape.columns, strict=True):
        if r == c and not any(r in part for part in parts):
            parts.append([int(x) for x in shape.rows[shape.columns == c]])
    return parts


def _with_shapes(sums: GaussianSums, shapes: list[CovarianceShape]) -> GaussianSums:
    if isinstance(sums, OneFactor):
        return replace(sums, shape=shapes[0])
    if isinstance(sums, Tree):
        left = iter(shapes)
        levels = [replace(v, shapes=tuple(next(left) for _ in v.shapes)) for v in sums.levels]
        return replace(sums, levels=tuple(levels))
    return replace(sums, fine_shape=shapes[0], rest_shapes=tuple(shapes[1:]))
