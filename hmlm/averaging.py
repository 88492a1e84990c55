"""Expected outcomes averaged over the population of groups: over effects drawn from N(0, D).

At the population of a model with a curved link the group effects are zero; the average over
groups is another number (Zeger, Liang and Albert 1988, Biometrics 44, 1049-1060). It needs no
draws of groups: in a row the effects move one linear predictor by z'b ~ N(0, z'Dz).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from scipy import special

from hmlm.errors import HmlmError
from hmlm.families import Family
from hmlm.links import from_link, link_slope

NODES = 25
POINTS = 1024


@cache
def normal_nodes(dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points and weights that average over independent standard normal variables.

    Gauss-Hermite quadrature of 25 nodes in one dimension and 25 x 25 in two; scrambled Sobol points
    in more.

    Returns
    -------
    points : ndarray, shape (n, dimensions)
        Where to evaluate.
    weights : ndarray, shape (n,)
        Sum to one.

    Examples
    --------
    >>> points, weights = normal_nodes(1)
    >>> round(float(weights @ points[:, 0] ** 4), 8)
    3.0
    """
    if dimensions > 2:
        from scipy.stats import qmc

        sobol = qmc.Sobol(dimensions, rng=np.random.default_rng(1)).random(POINTS)
        return special.ndtri(np.clip(sobol, 1e-12, 1 - 1e-12)), np.full(POINTS, 1 / POINTS)
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()
    if dimensions == 1:
        return nodes[:, None], weights
    grid = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1).reshape(-1, 2)
    return grid, np.outer(weights, weights).reshape(-1)


def check_averages(family: Family) -> None:
    """Raise an HmlmError if the mean of a family has no average over a normal linear predictor."""
    if family.link == "inverse":
        raise HmlmError(
            "under an inverse link the expected outcome has no average over groups: a normal "
            "linear predictor comes too near to zero. Use groups='population', or another link."
        )


def average_mean(link: str, eta: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Average the mean of an outcome over a normal linear predictor.

    Exact for the identity, log and probit links, by quadrature for others.

    Parameters
    ----------
    link : str
        The link.
    eta : ndarray
        Expectation of the linear predictor.
    variance : ndarray
        Its variance z'Dz.

    Examples
    --------
    >>> import numpy as np
    >>> average_mean("log", np.array([0.0]), np.array([1.0])).round(4)
    array([1.6487])
    >>> average_mean("logit", np.array([1.0]), np.array([4.0])).round(4)
    array([0.6477])
    """
    if link == "identity":
        return np.asarray(eta)
    if link == "log":
        return np.exp(eta + 0.5 * variance)
    if link == "probit":
        return np.asarray(special.ndtr(eta / np.sqrt(1.0 + variance)))
    return _quadrature(lambda at: from_link(link, at), eta, variance)


def average_mean_slope(link: str, eta: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return the derivative of `average_mean` by eta."""
    if link == "identity":
        return np.ones_like(eta)
    if link == "log":
        return np.exp(eta + 0.5 * variance)
    if link == "probit":
        root = np.sqrt(1.0 + variance)
        return link_slope(link, eta / root) / root
    return _quadrature(lambda at: link_slope(link, at), eta, variance)


def _quadrature(
    function: Callable[[np.ndarray], np.ndarray], eta: np.ndarray, variance: np.ndarray
) -> np.ndarray:
    points, weights = normal_nodes(1)
    sd = np.sqrt(variance)
    total = np.zeros(np.broadcast_shapes(eta.shape, sd.shape))
    for node, weight in zip(points[:, 0], weights, strict=True):
        total += weight * function(eta + node * sd)
    return total


def average_outcome(
    family: Family,
    names: Sequence[str],
    etas: Sequence[np.ndarray],
    variances: Sequence[np.ndarray | None],
    expected: Callable[[list[np.ndarray], np.ndarray | float], np.ndarray],
) -> np.ndarray:
    """Average what a family expects of an outcome over normal linear predictors.

    Parameters
    ----------
    family : Family
        The family.
    names : sequence of str
        Names of the linear predictors; that of the mean is empty.
    etas : sequence of ndarray, shape (draws, rows)
        Their expectations.
    variances : sequence of ndarray of shape (draws, rows), or None
        Their variances; None where they have none. Effects of groups on two predictors are
        independent.
    expected : callable
        Returns the expected outcome, or the probabilities of categories, of linear predictors, all
        of which (cutpoints among them) are divided by its second argument.

    Raises
    ------
    HmlmError
        If the average is infinite or does not exist.
    """
    etas, left = list(etas), list(variances)
    for k, name in enumerate(names):
        if not _matters(family, name):
            left[k] = None
    if family.name == "lognormal" and any(
        v is not None for n, v in zip(names, left, strict=True) if n == "sigma"
    ):
        raise HmlmError(
            "the log-sd of this lognormal model varies between groups by a normal distribution, "
            "under which the average outcome is infinite: use groups='population'."
        )
    scale: np.ndarray | float = 1.0
    first = left[0]
    if first is not None:
        check_averages(family)
        hurdle = family.name.startswith("hurdle")
        if family.name == "lognormal" or (family.link == "log" and not hurdle):
            etas[0], left[0] = etas[0] + 0.5 * first, None
        elif family.link == "identity":
            left[0] = None
        elif family.link == "probit":
            scale, left[0] = np.sqrt(1.0 + first), None
    moving = [k for k, v in enumerate(left) if v is not None]
    if not moving:
        return expected(etas, scale)
    sds = {k: np.sqrt(v) for k in moving if (v := left[k]) is not None}
    total: np.ndarray | float = 0.0
    for point, weight in zip(*normal_nodes(len(moving)), strict=True):
        moved = list(etas)
        for k, z in zip(moving, point, strict=True):
            moved[k] = etas[k] + z * sds[k]
        total = total + weight * expected(moved, scale)
    return np.asarray(total)


def _matters(family: Family, name: str) -> bool:
    """Whether the expected outcome depends on a linear predictor."""
    if name in ("", "zi", "hu") or name.startswith("mu_"):
        return True
    return (family.name, name) in (
        ("lognormal", "sigma"),
        ("hurdle-negative-binomial", "alpha"),
    )
