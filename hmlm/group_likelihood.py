"""The likelihood of each whole group, its effects integrated out, at draws of the parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import special

from hmlm.cells import needs_rows
from hmlm.design import Block, Design, find_block
from hmlm.likelihoods.structure import parent_of
from hmlm.log_likelihood import log_density
from hmlm.new_rows import new_rows
from hmlm.prediction import block_covariance, effect_root, family_values, linear_predictors

Draws = Mapping[str, np.ndarray]
NUMBERS_AT_ONCE = 4_000_000
NEWTON_STEPS = 30
HALVINGS = 10
CONVERGED = 1e-5
LONGEST_STEP = 3.0
STEP = 1e-4
POINTS = 256
NODES = (15, 9)

_Density = Callable[[list[np.ndarray]], np.ndarray]
_Moved = Callable[[np.ndarray], list[np.ndarray]]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Inside:
    """A block of effects that lies inside the groups, and so is left out with them.

    Attributes
    ----------
    number : int
        Its linear predictor.
    name : str
        Name of its effects.
    block : Block
        The block.
    root : ndarray, shape (draws, q, q)
        Root of the covariance of its effects.
    """

    number: int
    name: str
    block: Block
    root: np.ndarray


def blocks_inside(design: Design, group: str, posterior: Draws) -> list[Inside]:
    """Return the blocks of all predictors whose levels each lie in one level of a factor."""
    outer = find_block(design, group)
    found = []
    for number, p in enumerate(design.predictors):
        for block in p.blocks:
            same = block.group == group
            if not same and parent_of(block, outer) is None:
                continue
            root = effect_root(block_covariance(posterior, p, block))
            name = p.named(f"b_{block.group}")
            found.append(Inside(number=number, name=name, block=block, root=root))
    return found


def integrate_groups(
    design: Design, posterior: Draws, group: str, levels: Sequence[int] | None = None
) -> np.ndarray:
    r"""Return log p(y_j | theta) of every level j of a grouping factor at every draw.

    The effects of the group, and of factors nested in it, are integrated out over N(0, D): exactly
    where the outcome is gaussian with an identity link and one sigma; else by adaptive
    Gauss-Hermite quadrature for one or two effects [1]_, and by quasi-random importance draws about
    the mode for more. Effects of other factors are given, as drawn.

    Parameters
    ----------
    design : Design
        What was fitted, with partial pooling.
    posterior : mapping of str to ndarray
        Draws of every variable, the draw on the first axis.
    group : str
        The grouping factor.
    levels : sequence of int, optional
        Positions of levels; all of them when None.

    Returns
    -------
    ndarray, shape (draws, J)
        Log likelihoods; NaN for levels that are not asked for.

    References
    ----------
    .. [1] Pinheiro and Bates (1995), Approximations to the log-likelihood function in the
       nonlinear mixed-effects model, Journal of Computational and Graphical Statistics 4, 12-35.

    Examples
    --------
    >>> import numpy as np
    >>> import hmlm
    >>> from hmlm.group_likelihood import integrate_groups
    >>> model = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))
    >>> ml = model.fit(hmlm.ML())
    >>> at = {name: np.asarray(value)[None] for name, value in ml.estimates.items()}
    >>> bool(np.isclose(integrate_groups(model.design, at, "Batch").sum(), ml.log_likelihood))
    True
    """
    inside = blocks_inside(design, group, posterior)
    without = dict(posterior)
    for block in inside:
        shape = (len(block.root), len(block.block.levels), len(block.block.columns))
        without[block.name] = np.broadcast_to(0.0, shape)
    outer = find_block(design, group)
    rows = new_rows(design, None, "include", cells=True)
    order = np.argsort(outer.index, kind="stable")
    starts = np.searchsorted(outer.index[order], np.arange(len(outer.levels) + 1))
    n_draws = len(inside[0].root)
    out = np.full((n_draws, len(outer.levels)), np.nan)
    steps = _steps(design)
    for j in range(len(outer.levels)) if levels is None else levels:
        members = order[starts[j] : starts[j + 1]]
        columns = [_columns(block, members) for block in inside]
        width = sum(Z.shape[1] * Z.shape[2] for Z in columns)
        size = max(1, NUMBERS_AT_ONCE // (len(members) * width + width**2))
        for first in range(0, n_draws, size):
            draws = slice(first, first + size)
            given = {name: values[draws] for name, values in without.items()}
            etas = linear_predictors(design, given, rows, members, None)  # type: ignore[arg-type]
            A = _loadings(columns, inside, draws, len(etas))
            out[draws, j] = _one_group(design, given, etas, A, members, steps)
    return out


def _steps(design: Design) -> list[float]:
    """Return by how much to move each linear predictor for differences: little beside its scale."""
    found = [STEP] * len(design.predictors)
    family, y = design.spec.family, design.y
    if family.link == "identity":
        scale = float(np.std(np.log(y) if family.name == "lognormal" else y))
        found[0] *= scale or 1.0
    elif family.link == "inverse":
        found[0] /= float(np.abs(y).mean()) or 1.0
    return found


def _columns(block: Inside, members: np.ndarray) -> np.ndarray:
    """Return Z of the rows, spread over the levels that they have: shape (n, levels, q)."""
    levels, place = np.unique(block.block.index[members], return_inverse=True)
    wide = np.zeros((len(members), len(levels), len(block.block.columns)))
    wide[np.arange(len(members)), place] = block.block.Z[members]
    return wide


def _loadings(
    columns: list[np.ndarray], inside: list[Inside], draws: slice, predictors: int
) -> list[np.ndarray | None]:
    """Return what standard normal effects are multiplied with, (draws, n, M) a predictor."""
    n_draws = len(inside[0].root[draws])
    pieces = [
        np.einsum("nlq,sqk->snlk", Z, block.root[draws], optimize=True).reshape(n_draws, len(Z), -1)
        for Z, block in zip(columns, inside, strict=True)
    ]
    found: list[np.ndarray | None] = []
    for number in range(predictors):
        own = [block.number == number for block in inside]
        parts = [a if o else np.zeros_like(a) for a, o in zip(pieces, own, strict=True)]
        found.append(np.concatenate(parts, axis=2) if any(own) else None)
    return found


def _one_group(
    design: Design,
    posterior: Draws,
    etas: list[np.ndarray],
    A: list[np.ndarray | None],
    members: np.ndarray,
    steps: list[float],
) -> np.ndarray:
    family = design.spec.family
    y = design.y[members]
    trials = None if design.trials is None else design.trials[members]
    weights = None if design.weights is None else design.weights[members]
    if str(family) == "gaussian" and not design.distributional:
        assert A[0] is not None
        sigma = np.ones(len(A[0])) if design.known_se else posterior["sigma"]
        w = np.ones(len(y)) if weights is None else weights
        found = _gaussian(y - etas[0], A[0], sigma, w)
        return found if design.cells is None else found + _rest(design, members, sigma)

    counts = None if design.counts is None else design.counts[members]

    def density(moved: list[np.ndarray]) -> np.ndarray:
        values = log_density(
            family,
            y,
            moved,
            family_values(design, posterior, moved),
            trials=trials,
            weights=weights,
            cutpoints=posterior.get("cutpoints"),
        )
        values = values if counts is None else values * counts
        # Means that the family cannot have, as negative ones of counts.
        return np.where(np.isnan(values), -np.inf, values)

    def at(u: np.ndarray) -> list[np.ndarray]:
        return [
            eta if a is None else eta + np.einsum("snm,sm->sn", a, u)
            for eta, a in zip(etas, A, strict=True)
        ]

    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        mode, H = _mode(density, at, A, steps)
        return _quadrature(density, at, mode, H)


def _rest(design: Design, members: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Return what the rows add that made-up rows stand for: their number, and what they explain."""
    cells = design.cells
    assert cells is not None
    assert cells.within is not None
    if design.spec.weights is not None or design.known_se:
        needs_rows(
            cells, "The log likelihood of single groups under weights", *design.spec.groups[:1]
        )
    more = int(cells.counts[members].sum()) - len(members)
    square = float(cells.within[members].sum()) / sigma**2
    return np.asarray(-0.5 * (more * np.log(2 * np.pi * sigma**2) + square))


def _gaussian(r: np.ndarray, A: np.ndarray, sigma: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return the log density of N(0, sigma^2 / w + A A') by M x M matrices."""
    scaled = A * (np.sqrt(w)[:, None] / sigma[:, None, None])
    z = r * np.sqrt(w) / sigma[:, None]
    M = np.eye(A.shape[2]) + np.swapaxes(scaled, 1, 2) @ scaled
    L = np.linalg.cholesky(M)
    pull = np.linalg.solve(L, np.einsum("snm,sn->sm", scaled, z)[..., None])[..., 0]
    log_det = 2.0 * np.log(np.diagonal(L, axis1=1, axis2=2)).sum(axis=1)
    log_det += 2.0 * r.shape[1] * np.log(sigma) - np.log(w).sum()
    square = (z**2).sum(axis=1) - (pull**2).sum(axis=1)
    return np.asarray(-0.5 * (r.shape[1] * np.log(2 * np.pi) + log_det + square))


def _mode(
    density: _Density, at: _Moved, A: list[np.ndarray | None], steps: list[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Find the mode of the standard normal effects by Newton's method, and its curvature."""
    n_draws, _, M = next(a for a in A if a is not None).shape
    u = np.zeros((n_draws, M))
    etas = at(u)
    rows = density(etas)
    for _ in range(NEWTON_STEPS):
        gradient, H = -u, np.tile(np.eye(M), (n_draws, 1, 1))
        for number, (a, step) in enumerate(zip(A, steps, strict=True)):
            if a is None:
                continue
            up, down = list(etas), list(etas)
            up[number], down[number] = etas[number] + step, etas[number] - step
            high, low = density(up), density(down)
            slope = np.nan_to_num((high - low) / (2 * step), posinf=0.0, neginf=0.0)
            curve = np.nan_to_num((2 * rows - high - low) / step**2, posinf=0.0, neginf=0.0)
            gradient = gradient + np.einsum("snm,sn->sm", a, slope)
            H += np.swapaxes(a, 1, 2) @ (a * np.maximum(curve, 0.0)[..., None])
        move = np.linalg.solve(H, gradient[..., None])[..., 0]
        length = np.sqrt((move**2).sum(axis=1, keepdims=True))
        move *= np.minimum(1.0, LONGEST_STEP / np.maximum(length, 1e-300))
        value = rows.sum(axis=1) - 0.5 * (u**2).sum(axis=1)
        share = np.ones((n_draws, 1))
        for _ in range(HALVINGS):
            tried = u + share * move
            etas = at(tried)
            rows = density(etas)
            reached = rows.sum(axis=1) - 0.5 * (tried**2).sum(axis=1)
            worse = reached < value - 1e-9 * (1.0 + np.abs(value))
            if not worse.any():
                break
            share[worse] *= 0.5
        u = tried
        if (share * length).max() < CONVERGED:
            break
    return u, H


@cache
def _nodes(M: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points and logarithms of weights for one or two standard normal variables."""
    x, w = np.polynomial.hermite_e.hermegauss(NODES[M - 1])
    w = np.log(w / w.sum())
    if M == 1:
        return x[:, None], w
    grid = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 2)
    return grid, (w[:, None] + w).reshape(-1)


@cache
def _quasi_random(M: int) -> np.ndarray:
    """Return points that are spread like M standard normal variables."""
    from scipy.stats import qmc

    return np.asarray(special.ndtri(qmc.Sobol(M, rng=np.random.default_rng(0)).random(POINTS)))


def _quadrature(density: _Density, at: _Moved, mode: np.ndarray, H: np.ndarray) -> np.ndarray:
    """Integrate the effects about their mode."""
    M = mode.shape[1]
    # H = L L', so that L'^-1 z of standard normal z has the covariance H^-1.
    root = np.swapaxes(np.linalg.inv(np.linalg.cholesky(H)), 1, 2)
    if M <= len(NODES):
        nodes, log_weights = _nodes(M)
        wide = 1.0
    else:
        nodes = _quasi_random(M)
        log_weights = np.full(len(nodes), -np.log(len(nodes)))
        wide = 1.0 + 0.3 / np.sqrt(M)
    log_det = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1) + M * np.log(wide)
    terms = np.empty((len(nodes), len(mode)))
    for k, z in enumerate(nodes):
        u = mode + wide * (root @ z)
        prior = -0.5 * (u**2).sum(axis=1) + 0.5 * (z**2).sum()
        terms[k] = density(at(u)).sum(axis=1) + prior + log_weights[k]
    return np.asarray(special.logsumexp(terms, axis=0) + log_det)
