"""Whether draws can be trusted, said in sentences with what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from scipy import stats as distributions

from hmlm.errors import counted, listed
from hmlm.status import Status

MAX_RHAT = 1.01
MIN_ESS = 400.0
MIN_BFMI = 0.3
FEWEST_DIVERGENT = 3
TOLD_APART = 0.65


def named_elements(dataset: Any) -> tuple[list[str], np.ndarray]:
    """Flatten a posterior into named scalars.

    Parameters
    ----------
    dataset : xarray.Dataset
        Variables with dims chain and draw first.

    Returns
    -------
    names : list of str
        ``variable[label, label]``; the diagonal of a correlation matrix, its zeros between
        uncorrelated effects and entries that repeat another are left out.
    draws : ndarray, shape (chains, draws, number)
        Their draws.
    """
    names: list[str] = []
    pieces: list[np.ndarray] = []
    for name, variable in dataset.data_vars.items():
        values = variable.to_numpy()
        shape = values.shape[2:]
        flat = values.reshape(*values.shape[:2], -1)
        labels = [[str(v) for v in dataset[d].to_numpy()] for d in variable.dims[2:]]
        keep = []
        for k, place in enumerate(np.ndindex(*shape)):
            is_cor = str(name).startswith("cor_")
            if is_cor and (place[0] <= place[1] or not flat[:, :, k].any()):
                continue
            keep.append(k)
            inside = ", ".join(lab[i] for lab, i in zip(labels, place, strict=True))
            names.append(f"{name}[{inside}]" if inside else str(name))
        pieces.append(flat[:, :, keep])
    return names, np.concatenate(pieces, axis=2)


def convergence(draws: np.ndarray) -> dict[str, np.ndarray]:
    """Return R-hat and effective sample sizes of many scalars, by ArviZ.

    Parameters
    ----------
    draws : ndarray, shape (chains, draws, ...)
        Draws.

    Returns
    -------
    dict of str to ndarray
        ``r_hat``, ``ess_bulk`` and ``ess_tail``, with the shape of one draw.
    """
    from arviz_stats.base.array import array_stats

    axes = {"chain_axis": 0, "draw_axis": 1}
    if draws.shape[0] < 2 or draws.shape[1] < 4:
        blank = np.full(draws.shape[2:], np.nan)
        return {"r_hat": blank, "ess_bulk": blank, "ess_tail": blank}
    # Constants, such as the diagonal of a correlation matrix; chains that each stand still.
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "r_hat": np.asarray(array_stats.rhat(draws, **axes)),
            "ess_bulk": np.asarray(array_stats.ess(draws, method="bulk", **axes)),
            "ess_tail": np.asarray(
                array_stats.ess(draws, method="tail", prob=(0.05, 0.95), **axes)
            ),
        }


def bfmi(energy: np.ndarray) -> np.ndarray:
    """Return the Bayesian fraction of missing information of every chain (Betancourt 2016)."""
    change = np.square(np.diff(energy, axis=1)).mean(axis=1)
    return np.asarray(change / np.var(energy, axis=1))


def divergent_ranks(draws: np.ndarray, diverging: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compare the values of parameters in divergent draws with those in all others.

    Parameters
    ----------
    draws : ndarray, shape (chains, draws, number)
        Draws of scalars.
    diverging : ndarray of bool, shape (chains, draws)
        Which draws diverged.

    Returns
    -------
    below : ndarray, shape (number,)
        Probability that the value of a divergent draw is below that of another draw: a half where
        the two do not differ.
    z : ndarray, shape (number,)
        Its distance from a half in standard errors (Mann and Whitney 1947), as if the draws were
        independent.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.arange(10.0).reshape(1, 10, 1)
    >>> below, z = divergent_ranks(values, np.arange(10)[None] < 3)
    >>> below.tolist(), z.round(2).tolist()
    ([1.0], [2.39])
    """
    flat = draws.reshape(-1, draws.shape[2])
    bad = np.asarray(diverging).reshape(-1)
    n, m = int(bad.sum()), int((~bad).sum())
    if not n or not m:
        blank = np.full(flat.shape[1], np.nan)
        return blank, blank
    ranks = distributions.rankdata(flat, axis=0)
    above = (ranks[bad].sum(axis=0) - n * (n + 1) / 2) / (n * m)
    return 1.0 - above, (0.5 - above) / np.sqrt((n + m + 1) / (12 * n * m))


def _where_divergent(names: list[str], draws: np.ndarray, diverging: np.ndarray) -> str:
    """Say which sd is near zero in divergent draws."""
    sds = [k for k, name in enumerate(names) if "sd_" in name.partition("[")[0]]
    if int(diverging.sum()) < FEWEST_DIVERGENT or not sds:
        return ""
    below, z = divergent_ranks(draws[:, :, sds], diverging)
    worst = int(np.argmax(np.nan_to_num(below)))
    if not (below[worst] > TOLD_APART and z[worst] > 3):
        return ""
    values = draws[:, :, sds[worst]]
    return (
        f" They lie where {names[sds[worst]]} is near zero: its median is "
        f"{np.median(values[diverging]):.3g} there and {np.median(values[~diverging]):.3g} "
        "elsewhere, the funnel of few or small groups."
    )


def diagnose(
    dataset: Any, stats: Mapping[str, Any], max_treedepth: int, notes: Iterable[str] = ()
) -> Status:
    """Check draws and the sampler's own statistics.

    Parameters
    ----------
    dataset : xarray.Dataset
        The posterior.
    stats : mapping of str to array
        ``diverging``, ``energy`` and ``depth``, shape (chains, draws), as far as there are any.
    max_treedepth : int
        The largest depth that was allowed.
    notes : iterable of str
        Sentences to carry along.

    Returns
    -------
    Status
        With a sentence for every problem found.
    """
    problems: list[str] = []
    names, draws = named_elements(dataset)
    for bad, what in (
        (~np.isfinite(draws).all(axis=(0, 1)), "are not all numbers"),
        (np.ptp(draws, axis=(0, 1)) == 0, "never moved"),
    ):
        if bad.any():
            problems.append(
                f"The draws of {counted(int(bad.sum()), 'parameter')} {what} "
                f"({_worst(names, np.arange(len(names)), bad)}): they cannot be used. Check the "
                "priors, scale the predictors, and draw again with another random_seed."
            )
    found = convergence(draws)
    numbers = {
        "draws": float(draws.shape[0] * draws.shape[1]),
        "max_r_hat": _largest(found["r_hat"]),
        "min_ess_bulk": -_largest(-found["ess_bulk"]),
        "min_ess_tail": -_largest(-found["ess_tail"]),
    }
    if "diverging" in stats:
        diverging = int(np.asarray(stats["diverging"]).sum())
        numbers["divergences"] = float(diverging)
        if diverging:
            problems.append(
                f"{counted(diverging, 'divergence')} in {draws.shape[0] * draws.shape[1]:,} draws: "
                "parts of the posterior may not have been reached. Raise target_accept, as "
                "hmlm.NUTS(target_accept=0.99), or write the group effects the other way round "
                "with centered=True or False; tighter priors on the sds help too."
                + _where_divergent(names, draws, np.asarray(stats["diverging"], dtype=bool))
            )
    if draws.shape[0] < 2:
        problems.append("One chain cannot be checked for convergence: draw two chains or more.")
    elif draws.shape[1] < 4:
        problems.append(
            f"{counted(draws.shape[1], 'draw')} a chain cannot be checked for convergence: raise "
            "draws, as hmlm.NUTS(draws=1000)."
        )
    high = found["r_hat"] > MAX_RHAT
    if high.any():
        worst = _worst(names, -found["r_hat"], high)
        problems.append(
            f"R-hat above {MAX_RHAT} for {counted(int(high.sum()), 'parameter')} (up to "
            f"{np.nanmax(found['r_hat']):.3f}: {worst}): the chains do not agree yet. Draw longer, "
            "as hmlm.NUTS(draws=4000, tune=2000); where that does not help, give the sds tighter "
            "priors or drop a group effect."
        )
    for kind in ("bulk", "tail"):
        ess = found[f"ess_{kind}"]
        low = ess < MIN_ESS
        if low.any():
            problems.append(
                f"{kind.capitalize()} effective sample size below {MIN_ESS:.0f} for "
                f"{counted(int(low.sum()), 'parameter')} (down to {np.nanmin(ess):.0f}: "
                f"{_worst(names, ess, low)}): {'means and sds' if kind == 'bulk' else 'intervals'} "
                "are not precise yet. Raise draws."
            )
    if "energy" in stats and draws.shape[1] >= 4:
        fraction = bfmi(np.asarray(stats["energy"]))
        numbers["min_bfmi"] = -_largest(-fraction)
        if (fraction < MIN_BFMI).any():
            problems.append(
                f"BFMI below {MIN_BFMI} in {counted(int((fraction < MIN_BFMI).sum()), 'chain')} "
                f"(down to {fraction.min():.2f}): the sampler moves badly between levels of "
                "energy, often because an sd may be near zero. Write the group effects the other "
                "way round with centered=True or False, or tighten the priors of the sds."
            )
    if "depth" in stats:
        at_limit = int((np.asarray(stats["depth"]) >= max_treedepth).sum())
        numbers["max_treedepth_hits"] = float(at_limit)
        if at_limit:
            problems.append(
                f"{counted(at_limit, 'draw')} stopped at the tree depth of {max_treedepth}: slow, "
                f"not wrong. Raise max_treedepth, or centre and scale the predictors."
            )
    return Status(
        converged=not problems, problems=tuple(problems), notes=tuple(notes), numbers=numbers
    )


def _largest(values: np.ndarray) -> float:
    """Return the largest value that is a number; NaN where there is none."""
    known = values[~np.isnan(values)]
    return float(known.max()) if known.size else np.nan


def _worst(names: list[str], order: np.ndarray, which: np.ndarray) -> str:
    ranked = [names[k] for k in np.argsort(order) if which[k]]
    return listed(ranked, 3)
