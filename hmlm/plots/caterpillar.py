"""Group estimates in their order, with intervals, of one fit or of several side by side."""

from __future__ import annotations

from typing import Any

import numpy as np

from hmlm.design import find_block
from hmlm.display import clip
from hmlm.errors import HmlmError, listed, suggest
from hmlm.palette import GREY, distinct_styles
from hmlm.plots.canvas import (
    PLAIN,
    add_note,
    drawn_groups,
    group_areas,
    is_bayesian,
    look,
    new_axes,
    place_legend,
    set_labels,
)
from hmlm.plots.sizes import (
    DASHES,
    check_figure_prob,
    estimate_kind,
    group_figures,
    pick_column,
)

MOST_LABELS = 60
MOST_FITS = 5


def plot_caterpillar(
    *fits: Any,
    group: str | None = None,
    column: str | None = None,
    prob: float = 0.95,
    ax: Any = None,
    size: tuple[float, float] | None = None,
) -> Any:
    """Draw the estimates of all groups in the order of the first fit, with intervals.

    Estimates are totals (population + group), or with group-level predictors those of the groups'
    own lines, which are comparable between ways of pooling. Fits with complete pooling are dashed
    lines.

    Parameters
    ----------
    *fits : BayesFit or ClassicalFit
        One to five fits of the same rows; the first sets the order.
    group : str, optional
        Grouping factor; by default the first of the formula.
    column : str, optional
        Column of its group term; the first by default.
    prob : float
        Probability of the intervals.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.
    size : (float, float), optional
        Width and height of the new figure in inches.

    Returns
    -------
    matplotlib Axes
        A row for each group. More than 60 have no labels, and intervals of one fit alone; of more
        than 1,000 a random sample of 1,000 is drawn, the same each time, and the figure says so.

    Raises
    ------
    HmlmError
        If there is no fit, or more than five, if the fits differ in groups, or if a column or a
        grouping factor does not exist.

    Examples
    --------
    >>> import hmlm, matplotlib
    >>> matplotlib.use("Agg")
    >>> from hmlm.plots.caterpillar import plot_caterpillar
    >>> model = hmlm.Model("Reaction ~ Days + (Days | Subject)", hmlm.load_dataset("sleepstudy"))
    >>> ax = plot_caterpillar(model.fit(hmlm.REML()), column="Days")
    >>> [label.get_text() for label in ax.get_yticklabels()][:3]
    ['335', '309', '310']
    """
    from matplotlib.lines import Line2D

    check_figure_prob(prob)
    if not 1 <= len(fits) <= MOST_FITS:
        raise HmlmError(f"plot_caterpillar draws from 1 to {MOST_FITS} fits, not {len(fits)}.")
    design = fits[0].design
    name_of_group = known_group(design, group)
    blocks = [find_block(f.design, known_group(f.design, name_of_group)) for f in fits]
    first = blocks[0]
    name = first.columns[pick_column(first, column)]
    kinds = [estimate_kind(f.design, b) for f, b in zip(fits, blocks, strict=True)]
    places, sampled = drawn_groups(len(first.levels))
    levels = first.levels[places]
    figures = [
        group_figures(f, b, name, kind, levels, prob)
        for f, b, kind in zip(fits, blocks, kinds, strict=True)
    ]
    J = len(levels)
    labelled = J <= MOST_LABELS
    order = np.argsort(figures[0].estimate, kind="stable")  # blank ones last
    drawn = [f.design.spec.pooling != "complete" or kinds[k] == "line" for k, f in enumerate(fits)]
    count = max(1, sum(drawn))
    if ax is None:
        height = (0.13 + 0.09 * count) * J + 1.4 if labelled else 7.0
        ax = new_axes(1, 1, size or (6.2, float(np.clip(height, 2.6, 14.0))))[0, 0]
    styles = distinct_styles([(f.design.spec.pooling, is_bayesian(f)) for f in fits])
    alpha = 1.0 if labelled else float(np.clip(6.0 / np.sqrt(J), 0.35, 0.9))
    areas, meaning = group_areas(first.sizes[places][order], 24.0 if labelled else 5.0)
    handles, slot = [], 0
    with look():
        for fit, own, style, rows in zip(fits, figures, styles, drawn, strict=True):
            if not rows:
                at = own.estimate[0]
                handles.append(ax.axvline(at, color=style.color, linestyle=DASHES, linewidth=1.3))
                continue
            place = np.arange(J) + ((slot - (count - 1) / 2) * 0.62 / count)
            slot += 1
            many: dict[str, Any] = {"color": style.color, "alpha": alpha}
            # Intervals of several fits of many groups would cover each other.
            if labelled or slot == 1:
                width = 1.5 if labelled else 0.7
                ends = own.lower[order], own.upper[order]
                ax.hlines(place, *ends, linewidth=width, zorder=2, **many)
            ax.scatter(
                own.estimate[order],
                place,
                s=areas,
                marker="o" if is_bayesian(fit) or count == 1 else "D",
                linewidths=0,
                zorder=2.5 - 0.05 * slot,
                **many,
            )
            mark = "o" if is_bayesian(fit) or count == 1 else "D"
            handles.append(
                Line2D([], [], linestyle="", marker=mark, markersize=5, color=style.color)
            )
        ax.set_ylim(-0.8, J - 0.2)
        ax.set_yticks([])
        if labelled:
            ax.set_yticks(range(J), [clip(levels[j], 24) for j in order], **PLAIN)
            ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        set_labels(ax, x=name, y=name_of_group)
        ax.set_title(f"{prob:.0%} intervals", loc="right", fontsize=8.5, color=GREY)
        place_legend(ax, handles, [f.label for f in fits], 3)
        notes = [*sampled, *_notes(fits, figures), *meaning]
        if not labelled and count > 1:
            notes.append(f"Intervals are those of {fits[drawn.index(True)].label} alone.")
        add_note(ax, notes)
    return ax


def known_group(design: Any, group: str | None) -> str:
    """Return the name of a grouping factor of the formula, the first by default.

    Raises
    ------
    HmlmError
        If the formula has no such grouping factor.
    """
    names = list(dict.fromkeys(t.group for t in design.spec.group_terms))
    if not names:
        raise HmlmError("the formula has no group term, so there are no groups to draw.")
    if group is None:
        return names[0]
    if group not in names:
        raise HmlmError(
            f"'{group}' is no grouping factor of the formula.{suggest(group, names)} There are: "
            f"{listed(names)}."
        )
    return group


def _notes(fits: tuple[Any, ...], figures: list[Any]) -> list[str]:
    notes = []
    for fit, own in zip(fits, figures, strict=True):
        if blank := int((~np.isfinite(own.estimate)).sum()):
            notes.append(f"{fit.label} has no estimate of {blank:,} of {len(own.estimate):,}.")
    return notes
