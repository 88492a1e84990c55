"""The figures of a report; where one does not apply to the model, a sentence says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hmlm.errors import listed
from hmlm.report_parts import (
    figure_html,
    paragraphs,
)
from hmlm.report_subject import UNFIT, Subject, same_fit

NO_GROUPS = "The model has no groups, so there is nothing to show by group."


def _figure(draw: Callable[[], Any], alt: str, caption: str, name: str) -> str:
    """Return a figure, or the sentence that says why there is none."""
    try:
        return figure_html(draw, alt, caption)
    except UNFIT as error:
        return paragraphs([f"{name} does not apply here: {error}"])


def groups_section(subject: Subject) -> str:
    """Draw some groups: their rows, and what each fit makes of them.

    Parameters
    ----------
    subject : Subject
        The fits.
    """
    from hmlm.plots.groups import DEFAULT_PANELS, plot_groups

    design = subject.design
    if not design.data.groups:
        return paragraphs([NO_GROUPS])
    if design.categories and design.spec.family.outcome in ("ordered", "category"):
        return paragraphs(
            [
                f"'{design.spec.outcome}' has categories, and so no curve of its expected value by "
                "group: see data and replicates among the figures."
            ]
        )
    kin = [f for f in subject.companions.values() if not same_fit(f, subject.fit)]
    group = design.data.groups[0]
    rows = -(-min(len(design.data.levels[group]), DEFAULT_PANELS) // 2)
    size = (5.05, 1.55 * rows + 1.1 if rows > 1 else 3.2)  # two in a row can be read on a phone
    page = ""
    for fits in (subject.fit, *kin), (subject.fit,):  # where a companion cannot, without them
        names = listed(f.label for f in fits)
        page = _figure(
            lambda fits=fits: plot_groups(*fits, columns=2, size=size),  # type: ignore[misc]
            f"{design.spec.outcome} by {group}: one panel for each of some groups, with the rows "
            f"as points and the expected outcome by {names}.",
            f"Rows of some groups of {group}, with the expected outcome by {names}. The band is "
            f"the 95% interval of {subject.fit.label}.",
            "The figure of groups",
        )
        if page.startswith("<figure>"):
            break
    return page


def figures_section(subject: Subject) -> str:
    """Draw shrinkage, and data beside replicates.

    Parameters
    ----------
    subject : Subject
        The fits.
    """
    from hmlm.plots.checks import plot_ppc, plot_ppc_groups

    fit, seed, outcome = subject.fit, subject.seed, subject.design.spec.outcome
    n = subject.replicates(200)
    parts = [
        "<h3>Shrinkage</h3>",
        _shrinkage(subject),
        "<h3>Groups, data and replicates</h3>",
        paragraphs([NO_GROUPS])
        if not subject.design.data.groups
        else _figure(
            lambda: plot_ppc_groups(fit, draws=subject.replicates(500), random_seed=seed),
            f"The average {outcome} of every group of {subject.design.data.groups[0]} beside the "
            "95% interval of replicates.",
            "Groups outside of their interval are those that the fit does not reproduce.",
            "The figure of group means and replicates",
        ),
        "<h3>Outcome, data and replicates</h3>",
        _figure(
            lambda: plot_ppc(fit, draws=n, random_seed=seed),
            f"The distribution of {outcome} in the data and in replicates from the fit.",
            f"The distribution of {outcome} in the data, and in replicates from {fit.label}.",
            "The figure of outcomes and replicates",
        ),
    ]
    return "\n".join(parts)


def _shrinkage(subject: Subject) -> str:
    from hmlm.plots.shrinkage import plot_shrinkage

    if not subject.pooled:
        return paragraphs(
            [f"{subject.fit.label} does not pool groups partially, so none of them is pulled."]
        )
    none, complete = (subject.companions.get(name) for name in ("none", "complete"))
    if none is None or complete is None:
        return paragraphs(
            [
                "Shrinkage is shown from a fit without pooling to one with it, beside one with "
                "complete pooling; not all of these are there (see Estimates).",
            ]
        )
    group = subject.design.blocks[0].group
    return _figure(
        lambda: plot_shrinkage(subject.fit, none, complete),
        f"How far partial pooling moves the estimates of each group of {group}, from its own "
        "estimate towards that of the population.",
        f"From each {group}'s own estimate ({none.label}) to that by {subject.fit.label}.",
        "The figure of shrinkage",
    )
