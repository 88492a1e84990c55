"""Whether ranks of true values among posterior draws are uniform."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def rank_truth(
    draws: np.ndarray, truth: np.ndarray, n_draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Rank true values among evenly spaced draws, ties at random.

    Parameters
    ----------
    draws : ndarray, shape (D, K)
        Draws of K quantities.
    truth : ndarray, shape (K,)
        Their true values.
    n_draws : int
        How many of the draws to rank among.
    rng : numpy.random.Generator
        Source of the random numbers.

    Examples
    --------
    >>> import numpy as np
    >>> draws = np.arange(100.0)[:, None]
    >>> rank_truth(draws, np.array([50.5]), 9, np.random.default_rng(1)).tolist()
    [5]
    """
    keep = np.linspace(0, len(draws) - 1, n_draws).round().astype(np.int64)
    thinned = draws[keep]
    below, equal = (thinned < truth).sum(axis=0), (thinned == truth).sum(axis=0)
    return np.asarray(below + rng.integers(0, equal + 1))


def uniformity_table(
    names: list[str],
    ranks: np.ndarray,
    n_draws: int,
    bins: int,
    prob: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Test the ranks of every quantity for uniformity.

    Parameters
    ----------
    names : list of str
        The quantities.
    ranks : ndarray of int, shape (S, K)
        Ranks of the true values.
    n_draws : int
        The largest rank.
    bins : int
        Bins of the chi-square statistic, which divide the n_draws + 1 ranks evenly.
    prob : float
        Probability of the simultaneous bands.
    rng : numpy.random.Generator
        Source of the random numbers of the bands.

    Returns
    -------
    pandas.DataFrame
        Columns ``quantity, chi2, df, p_value, mean_rank, furthest, inside``; see
        `hmlm.calibration.Calibration`.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> ranks = np.column_stack([rng.integers(0, 20, 200), rng.integers(5, 15, 200)])
    >>> table = uniformity_table(["right", "too wide"], ranks, 19, 10, 0.95, rng)
    >>> table["inside"].tolist(), (table["p_value"] < 0.001).tolist()
    ([True, False], [False, True])
    """
    from scipy.stats import chi2

    rows = []
    expected = len(ranks) / bins
    for k, name in enumerate(names):
        count = np.bincount(ranks[:, k] * bins // (n_draws + 1), minlength=bins)
        statistic = float(((count - expected) ** 2).sum() / expected)
        _, difference, lower, upper = rank_band(ranks[:, k], n_draws, prob, rng)
        inside = bool(((difference >= lower - 1e-9) & (difference <= upper + 1e-9)).all())
        rows.append(
            {
                "quantity": name,
                "chi2": statistic,
                "df": bins - 1,
                "p_value": float(chi2.sf(statistic, bins - 1)),
                "mean_rank": float(ranks[:, k].mean() / n_draws),
                "furthest": float(difference[np.argmax(np.abs(difference))]),
                "inside": inside,
            }
        )
    return pd.DataFrame(rows)


def rank_band(
    ranks: np.ndarray, n_draws: int, prob: float = 0.95, random_seed: Any = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the ECDF of ranks less the uniform one, with a simultaneous band.

    Parameters
    ----------
    ranks : ndarray of int, shape (S,)
        Ranks from 0 to `n_draws`.
    n_draws : int
        The largest rank.
    prob : float
        Probability that the whole ECDF of uniform ranks stays within the band.
    random_seed : int or numpy.random.Generator
        Seed of the place of each rank within its bin and of the band.

    Returns
    -------
    x, difference, lower, upper : ndarray
        Points in [0, 1], difference of the ECDF at these, and the band.

    Examples
    --------
    >>> import numpy as np
    >>> from hmlm.rank_uniformity import rank_band
    >>> x, difference, lower, upper = rank_band(np.arange(100) % 20, 19)
    >>> bool(((difference >= lower) & (difference <= upper)).all())
    True
    """
    from arviz_stats.ecdf_utils import ecdf_pit

    rng = np.random.default_rng(random_seed)
    spread = (ranks + rng.random(len(ranks))) / (n_draws + 1)
    x, ecdf, lower, upper = ecdf_pit(spread, prob, 2000, rng=rng)
    return x, ecdf - x, lower - x, upper - x
