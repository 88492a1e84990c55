"""Predictive checks of a fit: what the data have and replicates do not, and what to do next."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from hmlm.cells import needs_rows
from hmlm.check_advice import advise
from hmlm.check_statistics import (
    Discrepancy,
    bin_counts,
    calibration_statistics,
    count_bins,
    numeric_predictors,
    outcome_statistics,
    residual_statistics,
    rootogram_statistic,
)
from hmlm.design import Design
from hmlm.errors import HmlmError, counted
from hmlm.group_statistics import effect_statistics, group_mean_statistics
from hmlm.replicates import check_draws, replicate_rows, replicated_parameters
from hmlm.status import Status
from hmlm.summaries import Summary
from hmlm.tables import Table, number

LOOK_BELOW = 0.05
MISFIT_BELOW = 0.01
FEWEST_DRAWS = 100
BAD_RHAT = 1.05
COLUMNS = ["check", "group", "term", "observed", "lower", "upper", "p", "verdict", "next_step"]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Checks:
    """Predictive checks of a fit, for terminal and notebook.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a check: ``check``, the ``group`` and ``term`` it is about, the statistic as
        ``observed``, the 95% interval of replicates (``lower``, ``upper``), the tail area ``p``,
        the ``verdict`` ("fine", "look" for p below 0.05, "misfit" below 0.01) and the
        ``next_step``, blank where all is fine.
    title : str
        What was checked.
    draws : int
        Number of replicates.
    """

    table: pd.DataFrame
    title: str
    draws: int

    @property
    def found(self) -> pd.DataFrame:
        """The rows that are not fine, misfits first."""
        order = {"misfit": 0, "look": 1}
        rows = self.table[self.table["verdict"] != "fine"]
        return rows.sort_values("verdict", key=lambda v: v.map(order), kind="stable")

    def summary(self) -> Summary:
        """Return table and next steps, laid out for terminal and notebook."""
        rows = [
            [
                str(r.check),
                _about(r.group, r.term),
                number(r.observed),
                _interval(r.lower, r.upper),
                self._p_text(r.p),
                str(r.verdict),
            ]
            for r in self.table.itertuples()
        ]
        shown = Table(
            header=["check", "of", "observed", "replicated 95%", "p", "verdict"],
            rows=rows,
            title=self.title,
            left=2,
        )
        steps = [
            textwrap.fill(
                f"{r.check}{f' ({_about(r.group, r.term)})' if r.group or r.term else ''}, "
                f"{r.verdict}: {r.next_step}",
                width=100,
                subsequent_indent="  ",
                break_on_hyphens=False,
            )
            for r in self.found.itertuples()
        ]
        found = len(steps)
        head = "All checks are fine." if not found else f"{counted(found, 'check')} to look at:"
        return Summary(parts=[shown, "\n".join([head, *steps])])

    def _p_text(self, p: Any) -> str:
        if np.isnan(p):
            return ""
        return f"<{1 / self.draws:.2g}" if p == 0 else f"{p:.3f}"

    def __str__(self) -> str:
        """Return table and next steps as text."""
        return str(self.summary())

    def __repr__(self) -> str:
        """Return table and next steps as text."""
        return str(self)

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()


def _about(group: Any, term: Any) -> str:
    return f"{term} | {group}" if group and term else str(group or term)


def _interval(lower: Any, upper: Any) -> str:
    return "" if np.isnan(lower) else f"{number(lower)} to {number(upper)}"


def check_fit(fit: Any, draws: int = 500, random_seed: int | None = None) -> Checks:
    """Compare the data with replicates from the fitted model, in every way that its family allows.

    The tail area p of a check is the share of replicates whose statistic is at least as far out as
    that of the data, doubled where misfit may lie on either side. Statistics of residuals and
    group effects depend on the parameters too; they are compared draw by draw (realised
    discrepancies). The sd of group means is compared with new groups (mixed replication), all else
    with the same groups. Tail areas of well-fitting models gather around one half rather than
    spread evenly, so that a small one is stronger evidence than a p-value of its size.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        The fit.
    draws : int
        Number of replicates, 100 or more.
    random_seed : int, optional
        Seed.

    Returns
    -------
    Checks
        With ``.table``; prints itself with the next steps.

    Raises
    ------
    HmlmError
        If there are too few draws, or coefficients of some rows could not be estimated.

    References
    ----------
    Gelman, A., Meng, X.-L., and Stern, H. (1996). Posterior predictive assessment of model fitness
    via realized discrepancies. Statistica Sinica 6, 733-807. Gelman, A., et al. (2013). Bayesian
    Data Analysis, 3rd ed., 6.3-6.4. Yuan, Y., and Johnson, V. E. (2012). Goodness-of-fit
    diagnostics for Bayesian hierarchical models. Biometrics 68, 156-164.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.checks import check_fit
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> fit = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep).fit(hmlm.REML())
    >>> checks = check_fit(fit, random_seed=1)
    >>> checks.found["check"].tolist()
    ['tails of residuals', 'order within groups', 'minimum', 'spread against fitted']
    >>> print(checks.found["next_step"].iloc[0])
    Residuals have heavier tails than normal: family='student-t'.
    """
    check_draws(draws)
    if draws < FEWEST_DRAWS:
        raise HmlmError(
            f"{counted(draws, 'replicate')} cannot show a tail: draw {FEWEST_DRAWS} or more."
        )
    design: Design = fit.design
    needs_rows(design.cells, "A check against replicates", *design.spec.groups[:1])
    found = find_discrepancies(fit, draws, np.random.default_rng(random_seed))
    doubtful = [d for d in found if verdict_of(d.p) != "fine"]
    rows = [_status_row(fit.status, hasattr(fit, "estimates"))]
    for d in found:
        lower, upper = np.quantile(d.replicated, [0.025, 0.975])
        verdict = verdict_of(d.p)
        rows.append(
            {
                "check": d.name,
                "group": d.group,
                "term": d.term,
                "observed": float(np.median(d.observed)),
                "lower": float(lower),
                "upper": float(upper),
                "p": d.p,
                "verdict": verdict,
                "next_step": "" if verdict == "fine" else advise(d, design, doubtful),
            }
        )
    return Checks(
        table=pd.DataFrame(rows, columns=COLUMNS),
        title=f"{design.spec.formula}\nFit by {fit.label}, against {draws:,} replicates",
        draws=draws,
    )


def verdict_of(p: float) -> str:
    """Return the verdict of a tail area: "fine", "look" below 0.05, "misfit" below 0.01.

    Examples
    --------
    >>> verdict_of(0.3), verdict_of(0.02), verdict_of(0.0)
    ('fine', 'look', 'misfit')
    """
    return "misfit" if p < MISFIT_BELOW else "look" if p < LOOK_BELOW else "fine"


def _status_row(status: Status, classical: bool) -> dict[str, Any]:
    """Say first whether the fit itself can be trusted."""
    numbers = status.numbers
    divergent = numbers.get("divergences", 0.0) > 0.01 * numbers.get("draws", np.inf)
    bad = divergent or numbers.get("max_r_hat", 1.0) > BAD_RHAT
    doubt = "misfit" if bad or classical else "look"
    return {
        "check": "convergence" if classical else "sampler (largest R-hat)",
        "group": "",
        "term": "",
        "observed": numbers.get("max_r_hat", np.nan),
        "lower": np.nan,
        "upper": np.nan,
        "p": np.nan,
        "verdict": doubt if status.problems else "fine",
        "next_step": " ".join(status.problems),
    }


def find_discrepancies(fit: Any, draws: int, rng: np.random.Generator) -> list[Discrepancy]:
    """Compute every statistic that the family and the data allow.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        The fit.
    draws : int
        Number of replicates.
    rng : numpy.random.Generator
        Source of the random numbers.
    """
    design: Design = fit.design
    family = design.spec.family
    posterior = replicated_parameters(fit, draws, "include", rng)
    pieces: list[Discrepancy] = []
    lines = [p for p in numeric_predictors(design) if p.block is None]
    width, last = count_bins(design.y)
    bars: list[np.ndarray] = []
    observed = outcome_statistics(design, design.y[None])
    for rows in replicate_rows(design, posterior, "include", rng):
        pieces += [
            Discrepancy(
                name=name,
                group="",
                term="",
                observed=np.broadcast_to(observed[name], values.shape),
                replicated=values,
            )
            for name, values in outcome_statistics(design, rows.y).items()
        ]
        if family.outcome != "category":
            pieces += residual_statistics(design, rows, lines, rng)
        if family.outcome in ("binary", "trials"):
            pieces += calibration_statistics(design, rows)
        if family.outcome == "count":
            bars.append(bin_counts(rows.y, width, last))
        if design.spec.pooling == "complete" and family.outcome != "category":
            pieces += group_mean_statistics(design, rows, design.spec.all_groups)
    found = join_draws(pieces)
    if bars:
        found.append(rootogram_statistic(design, np.concatenate(bars), width, last))
    if design.spec.pooling != "partial":
        return found
    if design.blocks and family.outcome != "category":
        effects = {v.name for v in design.variables if v.kind == "group"}
        shared = {name: v for name, v in posterior.items() if name not in effects}
        factors = [b.group for b in design.blocks]
        found += join_draws(
            d
            for rows in replicate_rows(design, shared, "new", rng)
            for d in group_mean_statistics(design, rows, factors)
        )
    return [*found, *effect_statistics(design, posterior, rng)]


def join_draws(pieces: Iterable[Discrepancy]) -> list[Discrepancy]:
    """Put statistics of several runs of draws together, each under its name, group and term."""
    found: dict[tuple[str, str, str], list[Discrepancy]] = {}
    for piece in pieces:
        found.setdefault((piece.name, piece.group, piece.term), []).append(piece)
    return [
        replace(
            same[0],
            observed=np.concatenate([d.observed for d in same]),
            replicated=np.concatenate([d.replicated for d in same]),
        )
        for same in found.values()
    ]
