"""Fits as they are printed: nlme's layout for classical ones, ArviZ's figures for draws."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hmlm.design import Design
from hmlm.errors import counted
from hmlm.families import PARAMETERS
from hmlm.status import Status
from hmlm.tables import Table, number, p_text


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Summary:
    """Lines and tables that print in a terminal and show in a notebook.

    Attributes
    ----------
    parts : sequence of str or Table
        What to show, in order.
    """

    parts: Sequence[str | Table]

    def __str__(self) -> str:
        """Return the summary as text."""
        return "\n\n".join(str(p) for p in self.parts)

    def __repr__(self) -> str:
        """Return the summary as text."""
        return str(self)

    def _repr_html_(self) -> str:
        return "\n".join(
            p.to_html() if isinstance(p, Table) else f"<pre>{html.escape(p)}</pre>"
            for p in self.parts
        )


def _groups_line(design: Design) -> str:
    counts = ", ".join(f"{counted(len(b.levels), 'group')} of '{b.group}'" for b in design.blocks)
    return f"{counted(design.n_rows, 'observation')}" + (f"; {counts}" if counts else "")


def _three(value: float) -> str:
    return f"{value:.3f}".replace("-0.000", "0.000")


def _status_lines(status: Status) -> list[str]:
    return ["\n".join([*status.problems, *status.notes])] if status.problems or status.notes else []


def _random_table(fit: Any) -> Table:
    rows: list[list[str]] = []
    width = 0
    for block in fit.design.blocks:
        sd = fit.estimates[f"sd_{block.group}"]
        cor = fit.estimates.get(f"cor_{block.group}")
        for k, column in enumerate(block.columns):
            row = [block.group if k == 0 else "", column, f"{sd[k]:.7f}", f"{sd[k] ** 2:.7f}"]
            for part in block.slices if cor is not None else ():
                if part.start <= k < part.stop:
                    row += [
                        "" if np.isnan(cor[k, j]) else f"{cor[k, j]:.3f}"
                        for j in range(part.start, k)
                    ]
            width = max(width, len(row) - 4)
            rows.append(row)
    if "sigma" in fit.estimates:
        sigma = float(fit.estimates["sigma"])
        rows.append(["Residual", "", f"{sigma:.7f}", f"{sigma**2:.7f}"])
    rows = [row + [""] * (4 + width - len(row)) for row in rows]
    head = ["Group", "Effect", "StdDev", "Variance", *(["Corr"] + [""] * (width - 1))[:width]]
    return Table(header=head, rows=rows, title="Random effects:", left=2)


def _family_line(design: Design) -> list[str]:
    family = design.spec.family
    return [] if str(family) == "gaussian" else [f"{family.name} with the {family.link} link"]


def _fixed_table(fit: Any) -> Table:
    """Lay out the population coefficients: t tests, or z tests where there is no residual sd."""
    numbers = fit.describe("beta", 0.95)
    normal = fit.design.spec.family.name != "gaussian"
    rows = []
    for k, term in enumerate(fit.design.terms):
        free = [] if normal else [number(fit.df[k], 1).removesuffix(".0")]
        p_value = "" if np.isnan(numbers.p_value[k]) else p_text(numbers.p_value[k])
        rows.append(
            [
                term,
                f"{numbers.estimate[k]:.7f}",
                f"{numbers.std_error[k]:.7f}",
                *free,
                f"{numbers.statistic[k]:.6f}",
                p_value,
            ]
        )
    tests = ["z-value"] if normal else ["DF", "t-value"]
    return Table(
        header=["", "Value", "Std.Error", *tests, "p-value"], rows=rows, title="Fixed effects:"
    )


def classical_summary(fit: Any) -> Summary:
    """Lay out a classical fit as nlme's ``summary.lme`` does, or glmer's where not gaussian.

    Parameters
    ----------
    fit : ClassicalFit
        The fit.
    """
    design: Design = fit.design
    head = Table(
        header=["AIC", "BIC", "logLik"],
        rows=[[f"{fit.aic:.4f}", f"{fit.bic:.4f}", f"{fit.log_likelihood:.4f}"]],
        title="\n".join([design.spec.formula, *_family_line(design), f"Fit by {fit.label}"]),
        left=0,
    )
    parts: list[str | Table] = [head]
    if design.spec.pooling == "partial" and design.blocks:
        parts.append(_random_table(fit))
    if design.terms:
        parts.append(_fixed_table(fit))
        if len(design.terms) > 1:
            cor = fit.correlation.to_numpy()
            names = list(design.terms)
            parts.append(
                Table(
                    header=["", *names[:-1]],
                    rows=[
                        [names[i], *map(_three, cor[i, :i]), *[""] * (len(names) - 1 - i)]
                        for i in range(1, len(names))
                    ],
                    title="Correlation of fixed effects:",
                )
            )
    gaussian = design.spec.family.name == "gaussian"
    for name in () if gaussian else design.parameters:
        meaning = PARAMETERS[name].meaning.partition(":")[0].capitalize()
        parts.append(f"{meaning} ({name}): {float(fit.estimates[name]):.7f}")
    if "sigma" in fit.estimates and not (design.spec.pooling == "partial" and design.blocks):
        parts.append(f"Residual standard deviation: {float(fit.estimates['sigma']):.7f}")
    if design.cells is None:
        residuals = fit.standardized_residuals
        known = residuals[~np.isnan(residuals)]
        known = known if len(known) else np.full(1, np.nan)
        parts.append(
            Table(
                header=["Min", "Q1", "Med", "Q3", "Max"],
                rows=[[f"{v:.8f}" for v in np.quantile(known, [0, 0.25, 0.5, 0.75, 1])]],
                title="Standardized within-group residuals:" if gaussian else "Pearson residuals:",
                left=0,
            )
        )
    parts.append(_groups_line(design))
    return Summary(parts=[*parts, *_status_lines(fit.status)])


def bayes_summary(fit: Any, prob: float = 0.95) -> Summary:
    """Lay out a posterior: one row a parameter, group effects left to `hmlm.tidy`.

    Parameters
    ----------
    fit : BayesFit
        The fit.
    prob : float
        Probability of the equal-tailed intervals.
    """
    table = fit.tidy(prob=prob, groups=False)
    rows = [
        [
            r.component,
            r.group,
            r.term,
            *(number(v) for v in (r.estimate, r.std_error, r.lower, r.upper)),
            number(r.ess_bulk, 0),
            number(r.r_hat),
        ]
        for r in table.itertuples()
    ]
    shown = Table(
        header=["", "", "", "mean", "sd", "lower", "upper", "ess_bulk", "r_hat"],
        rows=rows,
        title=f"{fit.design.spec.formula}\nFit by {fit.label}",
        notes=(f"lower, upper: equal-tailed interval, {prob:.0%}",),
        left=3,
    )
    return Summary(parts=[shown, _groups_line(fit.design), *_status_lines(fit.status)])
