"""The sections of a report, each as HTML; where one does not apply, a sentence says why."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hmlm.checks import Checks
from hmlm.comparison import compare
from hmlm.default_priors import resolve_priors
from hmlm.design import Design
from hmlm.errors import counted, listed
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.report_parts import (
    bullets,
    escape,
    paragraphs,
    scrolling,
    table_html,
)
from hmlm.report_subject import UNFIT, Subject
from hmlm.tables import Table, number
from hmlm.variance import split_variance
from hmlm.version import __version__

MOST_COMPARED = 2_000
SHOWN_GROUP_ROWS = 40
PACKAGES = ("pymc", "arviz", "nutpie", "numpy")


def family_sentence(design: Design) -> str:
    """Say what the outcome is and how many rows there are.

    Parameters
    ----------
    design : Design
        The model.
    """
    family = design.spec.family
    return f"Family {family.name} with the {family.link} link, {counted(len(design.y), 'row')}."


def short_verdict(fit: Any, checks: Checks | str) -> Iterator[str]:
    """Say in a sentence or two whether the fit can be trusted.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        The fit.
    checks : Checks or str
        Its checks, or why there are none.
    """
    problems = len(fit.status.problems)
    state = f"{counted(problems, 'problem')} found" if problems else "no problems found"
    yield f"Fit by {fit.label}: {state}."
    if isinstance(checks, Checks):
        found = len(checks.found)
        n = counted(len(checks.table), "check")
        yield f"Of {n}, {found} to look at." if found else f"Of {n}, all are fine."


def model_section(design: Design) -> str:
    """Write the question in words and in equations.

    Parameters
    ----------
    design : Design
        The model.
    """
    spec = design.spec
    groups = [str(b.group) for b in design.blocks]
    terms = [t for t in design.terms if t != "Intercept"]
    asked = {
        "binary": "the probability of",
        "trials": "the expected share of",
        "ordered": "the probability of each category of",
        "category": "the probability of each category of",
    }.get(spec.family.outcome, "the expected")
    question = f"What is {asked} {spec.outcome}"
    if terms:
        question += f", how does it change with {listed(terms)}"
    if groups:
        question += f", and how much do groups of {listed(groups)} differ"
    equations = _model_text(design).rpartition("\n\nData\n")[0].rstrip()
    code = "\n".join(escape(line) for line in equations.splitlines())
    return "\n".join(
        [paragraphs([f"{question}?"]), scrolling(f"<pre>{code}</pre>", "Equations of the model")]
    )


def _model_text(design: Design) -> str:
    from hmlm.equations import model_text

    return model_text(design, resolve_priors(design))


def data_section(design: Design) -> str:
    """Write what the rows are: groups, sizes, columns, and what was left out.

    Parameters
    ----------
    design : Design
        The model on its data.
    """
    data = design.data
    notes = list(design.notes)
    if not data.missing_note:
        notes.insert(0, "No row was left out: none has a missing value in a column of the model.")
    parts = [
        paragraphs([f"{counted(data.n_rows, 'row')} in the table, {design.n_rows:,} used.", *notes])
    ]
    if data.groups:
        rows = []
        for group in data.groups:
            counts = None if data.cells is None else data.cells.counts
            found = np.bincount(data.index[group], counts, len(data.levels[group]))
            sizes = found.astype(np.int64)
            low, middle, high = sizes.min(), np.median(sizes), sizes.max()
            rows.append([group, f"{len(sizes):,}", f"{low:,}", f"{middle:,g}", f"{high:,}"])
        head = ["grouping factor", "groups", "smallest", "median", "largest"]
        parts.append(table_html(Table(header=head, rows=rows), "Groups, and their sizes in rows"))
    else:
        parts.append(paragraphs(["The rows belong to no groups that the model knows of."]))
    if data.cells is not None:  # whose frame does not hold the rows
        return "\n".join(parts)
    rows = [_column_row(name, data.frame[name]) for name in data.frame.columns]
    head = ["column", "kind", "values", "smallest", "mean", "largest"]
    parts.append(table_html(Table(header=head, rows=rows, left=2), "Columns of the model"))
    return "\n".join(parts)


def _column_row(name: object, column: pd.Series) -> list[str]:
    values = f"{column.nunique():,}"
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return [str(name), "labels", values, "", "", ""]
    figures = [column.min(), column.mean(), column.max()]
    return [str(name), "numbers", values, *(number(float(v)) for v in figures)]


def estimates_section(subject: Subject) -> str:
    """Put the fits side by side in one table.

    Parameters
    ----------
    subject : Subject
        The fits.
    """
    levels = sum(len(b.levels) * len(b.columns) for f in subject.every for b in f.design.blocks)
    notes = list(subject.absent)
    groups = levels <= MOST_COMPARED
    if not groups:
        notes.append(
            f"Estimates of single groups are left out of this table: there are {levels:,} of them."
        )
    roads: list[tuple[Sequence[Any], bool]] = [(subject.every, groups)]
    roads += [(subject.every, False), ((subject.fit,), False)]
    for fits, with_groups in roads:
        try:
            table = compare(*fits, groups=with_groups).table(group_rows=SHOWN_GROUP_ROWS)
            break
        except UNFIT as error:
            without = "groups" if with_groups else "the other fits"
            notes.append(f"The table does without {without}: {error}")
    else:
        return paragraphs(notes)
    shown = Table(
        header=table.header,
        rows=table.rows,
        notes=[note.replace(": .table(group_rows=None)", "") for note in table.notes],
        left=table.left,
        over=table.over,
    )
    caption = f"Estimates by {listed(f.label for f in fits)}"
    return "\n".join([paragraphs(notes), table_html(shown, caption)]).strip()


def checks_section(checks: Checks | str) -> str:
    """Write the verdicts of the checks, and the next steps first.

    Parameters
    ----------
    checks : Checks or str
        The checks of the fit, or why there are none.
    """
    if isinstance(checks, str):
        return paragraphs([checks])
    table, steps = checks.summary().parts
    assert isinstance(table, Table)
    found = [
        f"{r.check}{_about(r.group, r.term)}, {r.verdict}: {r.next_step}"
        for r in checks.found.itertuples()
    ]
    head = str(steps).partition("\n")[0]
    return "\n".join(
        [
            paragraphs(
                [
                    "Each check compares a statistic of the data with the same statistic of "
                    f"{checks.draws:,} data sets replicated from the fit. A verdict of look is a "
                    "tail area p below 0.05, one of misfit below 0.01.",
                    head,
                ]
            ),
            bullets(found),
            table_html(table, "Predictive checks"),
        ]
    )


def _about(group: object, term: object) -> str:
    of = " | ".join(str(part) for part in (term, group) if part)
    return f" ({of})" if of else ""


def variance_section(fit: Any) -> str:
    """Write how the variance divides between predictors, groups and residual.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        The fit.
    """
    try:
        found = split_variance(fit)
    except UNFIT as error:
        return paragraphs([f"The variance was not split: {error}"])
    rows = [
        [str(r.component), " ".join(filter(None, (str(r.group), str(r.term))))]
        + [number(v) for v in (r.estimate, r.lower, r.upper)]
        + [number(v, 2) for v in (r.share, r.share_lower, r.share_upper)]
        for r in found.itertuples()
    ]
    head = ["component", "of", "variance", "lower", "upper", "share", "lower", "upper"]
    notes = ["population: what the predictors explain; group: between groups; residual: the rest."]
    if found["lower"].notna().any():
        notes.append("lower, upper: equal-tailed interval of the posterior, 95%.")
    shown = Table(header=head, rows=rows, left=2, notes=notes)
    return table_html(shown, "Variance on the scale of the linear predictor")


def priors_section(fit: Any) -> str:
    """Write the prior of every parameter.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        The fit.
    """
    bayes = isinstance(fit, BayesFit)
    priors = fit.priors if isinstance(fit, BayesFit) else resolve_priors(fit.design)
    rows = [[e.parameter, str(e.prior), e.source, e.note] for e in priors.entries]
    table = Table(header=["parameter", "prior", "source", "scale"], rows=rows, left=4)
    said = (
        f"{fit.label} uses no priors. Those below are what a Bayesian fit of the model would use."
    )
    return "\n".join(
        filter(None, [paragraphs([] if bayes else [said]), table_html(table, "Priors")])
    )


def status_section(subject: Subject) -> str:
    """Write what every fit has to say about itself.

    Parameters
    ----------
    subject : Subject
        The fits.
    """
    parts = []
    for fit in subject.every:
        parts.append(f"<h3>{escape(fit.label)}</h3>")
        lines = str(fit.status).splitlines()
        if not lines:
            lines = ["It did not converge." if not fit.status.converged else "No problems found."]
        parts.append(bullets(lines))
    return "\n".join(parts)


def session_section(subject: Subject) -> str:
    """Write settings, seeds and versions.

    Parameters
    ----------
    subject : Subject
        The fits.
    """
    fit = subject.fit
    rows = [["method", repr(fit.method)]]
    if isinstance(fit, BayesFit):
        seed = "not given" if fit.random_seed is None else str(fit.random_seed)
        chains, n = next(iter(fit._stats.values())).shape[:2]
        rows += [["draws", f"{counted(chains, 'chain')} of {counted(n, 'draw')}"]]
        rows += [["seed of the fit", seed], ["seconds of sampling", number(fit.seconds, 1)]]
    rows += [["seed of the replicates", str(subject.seed)], ["replicates", f"{subject.draws:,}"]]
    rows += [["python", platform.python_version()], ["hmlm", __version__]]
    rows += [[name, _version(name)] for name in PACKAGES]
    return table_html(Table(header=["what", "value"], rows=rows, left=2), "Settings and versions")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
