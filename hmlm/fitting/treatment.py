"""Remedies for unhappy sampling, tried one after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hmlm.errors import HmlmError
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.fitting.diagnostics import MIN_BFMI
from hmlm.fitting.nuts import NUTS
from hmlm.fitting.settings import check_seed

if TYPE_CHECKING:
    import pandas as pd

HIGH_ACCEPT = 0.99
COLUMNS = ["try", "divergences", "max_r_hat", "min_ess", "min_bfmi", "seconds", "problems"]


def treat(
    fit: BayesFit,
    random_seed: int | None = None,
    most: int = 4,
    progressbar: bool = False,
) -> BayesFit:
    """Sample again with remedies, in order of promise, until sampling is happy.

    Parameters
    ----------
    fit : BayesFit
        A fit by `hmlm.NUTS()`.
    random_seed : int, optional
        Seed; that of the fit when None.
    most : int
        Most remedies to try.
    progressbar : bool
        Whether sampling shows a progress bar.

    Returns
    -------
    BayesFit
        The first fit without a problem, else the one with the fewest divergences and, of these,
        the largest smallest effective sample size; the fit itself if nothing was better or nothing
        was wrong. The notes of its status hold a table of the tries; `treatment_table` returns it.

    Raises
    ------
    HmlmError
        If the fit is not by `hmlm.NUTS()`.

    Notes
    -----
    The model and its priors stay as they are. Remedies: the compiled density instead of the PyMC
    model, in which the group effects of gaussian models are integrated out, so that there is no
    funnel; group effects written another way (Betancourt and Girolami 2015; Papaspiliopoulos,
    Roberts and Skold 2007); smaller steps with longer tuning; more draws. What would change the
    model (centring a predictor, a tighter prior) is left to `examine`, which says so.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.fitting.treatment import treat
    >>> model = hmlm.Model("Reaction ~ Days + (1 | Subject)", hmlm.load_dataset("sleepstudy"))
    >>> short = hmlm.NUTS(draws=40, tune=200)
    >>> fit = model.fit(short, random_seed=1, progressbar=False)
    >>> better = treat(fit)
    >>> fit.status.converged, better.status.converged
    (False, True)
    """
    import pandas as pd

    method = fit.method
    if not isinstance(method, NUTS):
        raise HmlmError(
            f"remedies are those of hmlm.NUTS(), and this fit is by {method}: sample it with "
            "hmlm.NUTS() first."
        )
    seed = check_seed(fit.random_seed if random_seed is None else random_seed)
    if not fit.status.problems:
        return _noted(fit, ["Treatment: nothing to treat."], None)
    tries = [_row("as it was", fit)]
    fits = [fit]
    for words, other in remedies(fit)[:most]:
        try:
            made = other.run(fit.design, random_seed=seed, progressbar=progressbar)
        except HmlmError as error:
            tries.append({"try": words, "problems": str(error)})
            continue
        tries.append(_row(words, made))
        fits.append(made)
        if not made.status.problems:
            break
    best = min(fits, key=_badness)
    table = pd.DataFrame(tries, columns=COLUMNS)
    chosen = next(k for k, f in enumerate(fits) if f is best)
    words = [t["try"] for t in tries if "seconds" in t][chosen]
    if best is fit:
        said = "Treatment: no remedy was better than the fit as it was."
    else:
        said = f"Treatment: {words}."
    shown = table.drop(columns="problems").round(3).to_string(index=False, na_rep="-")
    return _noted(best, [said, *shown.splitlines()], table)


def treatment_table(fit: BayesFit) -> pd.DataFrame:
    """Return what `treat` tried: divergences, R-hat, effective sample sizes and seconds.

    Raises
    ------
    HmlmError
        If the fit does not come from `treat`, or nothing had to be tried.
    """
    table: pd.DataFrame | None = fit._kept.get("treatment")
    if table is None:
        raise HmlmError("no remedies were tried for this fit: pass what treat(fit) returns.")
    return table.copy()


def _noted(fit: BayesFit, notes: list[str], table: Any) -> BayesFit:
    status = replace(fit.status, notes=(*fit.status.notes, *notes))
    kept = {k: v for k, v in fit._kept.items() if k != "treatment"}
    if table is not None:
        kept["treatment"] = table
    return replace(fit, status=status, _kept=kept)


def _row(words: str, fit: BayesFit) -> dict[str, Any]:
    numbers = fit.status.numbers
    return {
        "try": words,
        "divergences": int(numbers.get("divergences", 0)),
        "max_r_hat": numbers.get("max_r_hat", np.nan),
        "min_ess": _min_ess(fit),
        "min_bfmi": numbers.get("min_bfmi", np.nan),
        "seconds": fit.seconds,
        "problems": " ".join(fit.status.problems),
    }


def _min_ess(fit: BayesFit) -> float:
    numbers = fit.status.numbers
    both = [numbers.get("min_ess_bulk", np.nan), numbers.get("min_ess_tail", np.nan)]
    return float(np.min(both))


def _badness(fit: BayesFit) -> tuple[float, ...]:
    numbers = fit.status.numbers
    ess = _min_ess(fit)
    return (
        float(bool(fit.status.problems)),
        numbers.get("divergences", 0.0),
        -ess if np.isfinite(ess) else 0.0,
    )


def remedies(fit: BayesFit) -> list[tuple[str, NUTS]]:
    """Return what could be tried, in order of promise, with the methods to run.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.fitting.treatment import remedies
    >>> model = hmlm.Model("Reaction ~ Days + (1 | Subject)", hmlm.load_dataset("sleepstudy"))
    >>> fit = model.fit(hmlm.NUTS(draws=40, tune=200), random_seed=1, progressbar=False)
    >>> [words for words, _ in remedies(fit)][0]
    'more draws after longer tuning'
    """
    from hmlm.likelihoods.glmm_pack import rows_cover
    from hmlm.likelihoods.posterior import kernel_covers

    design, method = fit.design, fit.method
    integrated = not kernel_covers(design, fit.priors)
    compiled = integrated or not rows_cover(design, fit.priors)
    by_pymc = method.engine == "pymc" or not compiled
    numbers = fit.status.numbers
    geometry = numbers.get("divergences", 0.0) > 0 or numbers.get("min_bfmi", np.inf) < MIN_BFMI
    found: list[tuple[str, NUTS]] = []
    base = method
    if method.engine == "pymc" and compiled:
        base = replace(method, engine="auto", centered=None)
        how = "group effects integrated out" if integrated else "the compiled density"
        found.append((f"{how}, in place of the PyMC model", base))
        by_pymc = False
    elif method.centered is not None and design.blocks:
        base = replace(method, centered=None)
        found.append(("group effects centred as far as the data say", base))
    careful = replace(
        base,
        target_accept=max(HIGH_ACCEPT, base.target_accept),
        tune=max(2 * base.tune, 1000),
        max_treedepth=max(12, base.max_treedepth),
    )
    longer = replace(base, draws=max(4 * base.draws, 1000), tune=max(2 * base.tune, 1000))
    patience = [("more draws after longer tuning", longer)]
    steps = [(f"target_accept={careful.target_accept:g}, longer tuning", careful)]
    ways: list[tuple[str, NUTS]] = []
    if design.blocks and design.spec.pooling == "partial" and (by_pymc or not integrated):
        asked = method.centered if base is method else None
        for centered in (False, True):
            if asked is not centered and not (base is not method and method.centered == centered):
                word = "centred" if centered else "not centred"
                ways.append((f"group effects {word}", replace(base, centered=centered)))
    both = replace(careful, draws=longer.draws)
    last = [(f"target_accept={both.target_accept:g}, longer tuning and more draws", both)]
    if geometry:
        return [*found, *steps, *ways, *last]
    return [*found, *patience, *last, *ways]
