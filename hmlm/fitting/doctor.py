"""Why sampling is unhappy: which sd, which group, which predictor, and what would help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hmlm.errors import HmlmError, counted
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.fitting.diagnostics import (
    FEWEST_DIVERGENT,
    MAX_RHAT,
    MIN_BFMI,
    MIN_ESS,
    TOLD_APART,
    bfmi,
    convergence,
    divergent_ranks,
)
from hmlm.fitting.model_findings import far_from_zero, prior_alone, separation
from hmlm.given_parameters import number_names

if TYPE_CHECKING:
    import pandas as pd

MOST_EFFECTS = 20_000
_COLUMNS = ["finding", "where", "evidence", "remedy", "strength"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Diagnosis:
    """What was found about a fit that may not be trusted.

    Attributes
    ----------
    findings : pandas.DataFrame
        One row a finding: ``finding`` (what), ``where`` (parameter, group or column), ``evidence``
        (a sentence with figures), ``remedy`` (a sentence) and ``strength`` (the figure behind it:
        a probability for divergent draws, an R-hat, a ratio).
    problems : tuple of str
        The problems of the status, which the findings explain.
    """

    findings: pd.DataFrame
    problems: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Whether sampling had no problem; findings may still be worth knowing."""
        return not self.problems

    def __str__(self) -> str:
        """Return problems and findings as text."""
        lines = ["Sampling had no problems."] if self.healthy else list(self.problems)
        for _, row in self.findings.iterrows():
            lines.append(f"- {row['finding']} ({row['where']}): {row['evidence']} {row['remedy']}")
        if not len(self.findings):
            lines.append("Nothing was found that would explain a problem.")
        return "\n".join(lines)


def examine(fit: BayesFit) -> Diagnosis:
    """Look for the reasons why sampling is unhappy.

    Parameters
    ----------
    fit : BayesFit
        Draws from a posterior.

    Returns
    -------
    Diagnosis
        Findings with evidence and remedies: the sds that are near zero and the group effects that
        are extreme where draws diverged; the sd that moves with the energy where BFMI is low;
        chains that stand apart; parameters that mix slowly, with what they move along; predictors
        and groups that separate the outcomes; predictors far from zero whose slope is correlated
        with the intercept between groups; parameters about which the data say little.

    Raises
    ------
    HmlmError
        If the fit has no draws.

    Notes
    -----
    Divergent draws are compared with the others by ranks (Mann and Whitney 1947). A centred
    parametrisation has a funnel where an sd is small: the effects of all groups are squeezed
    together, more than one step size can follow (Betancourt and Girolami 2015, Hamiltonian Monte
    Carlo for hierarchical models, section 3).

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.fitting.doctor import examine
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> model = hmlm.Model("Reaction ~ Days + (1 | Subject)", sleep)
    >>> fit = model.fit(hmlm.NUTS(draws=500), random_seed=1, progressbar=False)
    >>> print(examine(fit))
    Sampling had no problems.
    Nothing was found that would explain a problem.
    """
    import pandas as pd

    if not hasattr(type(fit), "draws"):
        raise HmlmError(
            "a classical fit has no draws to examine: its .status says what it knows. Sample with "
            "hmlm.NUTS() first."
        )
    names, draws = _scalars(fit)
    rows: list[tuple[str, str, str, str, float]] = []
    if len(names):
        rows += _divergent(fit, names, draws)
        rows += _energetic(fit, names, draws)
        rows += _unmixed(names, draws)
    for p in fit.design.predictors:
        rows += far_from_zero(fit, p)
    rows += separation(fit.design)
    rows += prior_alone(fit, names, draws)
    return Diagnosis(
        findings=pd.DataFrame(rows, columns=_COLUMNS), problems=tuple(fit.status.problems)
    )


def _scalars(fit: BayesFit) -> tuple[list[str], np.ndarray]:
    """Return names and draws (chains, draws, number) of all but the group effects."""
    names: list[str] = []
    pieces: list[np.ndarray] = []
    for variable in fit.design.variables:
        if variable.kind != "group":
            values = fit.variable(variable.name)
            for name, at in number_names(fit.design, variable):
                names.append(name)
                pieces.append(values.reshape(*values.shape[:2], -1)[..., _flat(values, at)])
    return names, np.stack(pieces, axis=-1) if pieces else np.empty((*fit._shape, 0))


def _flat(values: np.ndarray, at: tuple[int, ...]) -> int:
    return int(np.ravel_multi_index(at, values.shape[2:])) if at else 0


def _is_sd(name: str) -> bool:
    return "sd_" in name.partition("[")[0] and name.endswith("]")


def _divergent(fit: BayesFit, names: list[str], draws: np.ndarray) -> list[Any]:
    diverging = np.asarray(fit._stats.get("diverging", np.zeros(fit._shape)), dtype=bool)
    number = int(diverging.sum())
    if number < FEWEST_DIVERGENT:
        return []
    rows = []
    below, z = divergent_ranks(draws, diverging)
    for k in np.argsort(-np.nan_to_num(below)):
        if _is_sd(names[k]) and below[k] > TOLD_APART and z[k] > 3:
            there, else_ = np.median(draws[diverging][:, k]), np.median(draws[~diverging][:, k])
            rows.append(
                (
                    "sd near zero where draws diverge",
                    names[k],
                    f"Its median is {there:.3g} in the {counted(number, 'divergent draw')} and "
                    f"{else_:.3g} in the others; it is smaller there with probability "
                    f"{below[k]:.2f}.",
                    "The effects of the groups make a funnel there: do not centre them "
                    "(centered=False), integrate them out (engine='auto'), or give this sd a prior "
                    "that leaves zero.",
                    float(below[k]),
                )
            )
    away = np.maximum(below, 1 - below)
    other = [k for k in range(len(names)) if not _is_sd(names[k])]
    far = [k for k in other if away[k] > TOLD_APART and abs(z[k]) > 4]
    for k in sorted(far, key=lambda k: -away[k])[:2]:
        side = "smaller" if below[k] > 0.5 else "larger"
        rows.append(
            (
                "parameter extreme where draws diverge",
                names[k],
                f"It is {side} in divergent draws than in others with probability {away[k]:.2f}.",
                "See which values of it the data rule out, and give it a prior that does so too.",
                float(away[k]),
            )
        )
    return rows + _divergent_effects(fit, diverging)


def _divergent_effects(fit: BayesFit, diverging: np.ndarray) -> list[Any]:
    """Return the group whose effect is most extreme in divergent draws."""
    rows = []
    for variable in fit.design.variables:
        if variable.kind != "group" or fit._left_out(variable.name):
            continue
        levels, columns = (list(fit.design.coords[d]) for d in variable.dims)
        if len(levels) * len(columns) > MOST_EFFECTS:
            continue
        values = fit.variable(variable.name)
        below, z = divergent_ranks(values.reshape(*values.shape[:2], -1), diverging)
        worst = int(np.argmax(np.abs(np.nan_to_num(z))))
        # The largest of many: each has its share of the chance of a false alarm.
        if not abs(z[worst]) > 3 + np.sqrt(2 * np.log(len(z))) / 2:
            continue
        j, k = divmod(worst, len(columns))
        inside = values[:, :, j, k]
        rows.append(
            (
                "group effect extreme where draws diverge",
                f"{variable.name}[{levels[j]}, {columns[k]}]",
                f"Its median is {np.median(inside[diverging]):.3g} in divergent draws and "
                f"{np.median(inside[~diverging]):.3g} in others.",
                f"Look at the rows of '{levels[j]}' of '{variable.group}': few rows, or outcomes "
                "unlike those of all other groups.",
                float(max(below[worst], 1 - below[worst])),
            )
        )
    return rows


def _energetic(fit: BayesFit, names: list[str], draws: np.ndarray) -> list[Any]:
    """Return the sd that moves with the energy, where BFMI is low."""
    from scipy.stats import rankdata

    energy = fit._stats.get("energy")
    if energy is None or energy.shape[1] < 4 or not (bfmi(np.asarray(energy)) < MIN_BFMI).any():
        return []
    ranks = rankdata(draws.reshape(-1, len(names)), axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.corrcoef(ranks.T, rankdata(np.asarray(energy).reshape(-1)))[-1, :-1]
    k = int(np.argmax(np.abs(np.nan_to_num(r))))
    if abs(r[k]) < 0.3:
        return []
    return [
        (
            "energy moves with a parameter",
            names[k],
            f"Its rank correlation with the energy is {r[k]:.2f}: the sampler needs many steps to "
            "come from its small values to its large ones.",
            "Write the group effects the other way round with centered=True or False, or give it "
            "a tighter prior.",
            float(abs(r[k])),
        )
    ]


def _unmixed(names: list[str], draws: np.ndarray) -> list[Any]:
    """Return chains that stand apart, and the slowest parameter with what it moves along."""
    found = convergence(draws)
    rows = []
    r_hat = np.nan_to_num(found["r_hat"])
    k = int(np.argmax(r_hat))
    if r_hat[k] > MAX_RHAT:
        values = draws[:, :, k]
        middle = values.mean(axis=1)
        apart = int(np.argmax(np.abs(middle - np.median(middle))))
        rest = np.delete(middle, apart).mean()
        stuck = np.ptp(values[apart]) == 0
        advice = (
            "Tune longer and draw more; if the chains keep apart the posterior has several modes, "
            "and a prior must say which is meant."
        )
        if _is_sd(names[k]) and middle[apart] < 0.5 * rest:
            advice = (
                "That chain is held where this sd is near zero, in the neck of the funnel: do not "
                "centre the effects of these groups (centered=False), or integrate them out."
            )
        rows.append(
            (
                "chains apart",
                names[k],
                f"Chain {apart} {'stands still' if stuck else 'has its mean'} at "
                f"{middle[apart]:.3g}, the others at {rest:.3g} (R-hat {r_hat[k]:.3f}).",
                advice,
                float(r_hat[k]),
            )
        )
    ess = np.where(np.isnan(found["ess_bulk"]), np.inf, found["ess_bulk"])
    k = int(np.argmin(ess))
    if ess[k] < MIN_ESS:
        flat = draws.reshape(-1, len(names))
        with np.errstate(invalid="ignore", divide="ignore"):
            r = np.nan_to_num(np.atleast_2d(np.corrcoef(flat.T))[k])
        r[k] = 0.0
        other = int(np.argmax(np.abs(r)))
        along = f"; it moves with {names[other]} (correlation {r[other]:.2f})"
        near = np.quantile(flat[:, k], 0.05) < 0.1 * np.median(flat[:, k])
        piled = "; it piles up near zero" if _is_sd(names[k]) and near else ""
        rows.append(
            (
                "slow mixing",
                names[k],
                f"{flat.shape[0]:,} draws are worth {ess[k]:.0f} independent ones"
                f"{along if abs(r[other]) > 0.5 else ''}{piled}.",
                "Draw more, or write the group effects the other way round.",
                float(ess[k] / flat.shape[0]),
            )
        )
    return rows
