"""A page with sliders: how the groups follow the sd between them, its prior, and the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from hmlm.display import clip
from hmlm.errors import HmlmError
from hmlm.exploration import (
    Exploration,
    Findings,
    begin_exploration,
    drop_rows,
    follow,
    resize_group,
)
from hmlm.exploration_figures import Figures
from hmlm.exploration_posterior import sd_of, share_of
from hmlm.exploration_text import STYLE, answer_html, card_words, group_html, title_html
from hmlm.report_parts import escape

CARD = {
    "background": "#ffffff",
    "border": "1px solid #d8dee4",
    "border-radius": "8px",
    "padding": "12px 14px",
    "flex": "1 1 440px",
    "min-width": "min(100%, 300px)",
    "box-sizing": "border-box",
}
BAR = {"flex": "none", "margin-bottom": "14px", "padding": "4px 14px"} | {
    "position": "sticky",
    "top": "0",
    "z-index": "5",
}


def explore(model: Any, group: str | None = None, labels: Mapping[str, str] | None = None) -> Any:
    """Return a page with sliders on which a model's groups can be pooled more and less.

    The sd between groups moves from zero, where all share one line, to infinity, where each has
    the line of its own rows; the width of its prior, the number of rows of one group, and single
    points move too. Lines, shrinkage and the posterior of the sd follow; what they are is said in
    `hmlm.exploration.follow`. In a notebook the page stands below the cell; `hmlm explore` opens it
    in a browser.

    Parameters
    ----------
    model : Model or BayesFit
        A gaussian model of the mean under partial pooling.
    group : str, optional
        Grouping factor whose sds move; the first by default.
    labels : mapping of str to str, optional
        What to write along the axes for columns of the table, with units.

    Returns
    -------
    panel.viewable.Viewable
        The page, which shows itself in a notebook and has ``.save`` and ``.servable``.

    Raises
    ------
    HmlmError
        If the model is of another kind, or Panel is not installed.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.exploration_page import explore
    >>> model = hmlm.Model("Reaction ~ Days + (Days | Subject)", hmlm.load_dataset("sleepstudy"))
    >>> explore(model)  # doctest: +SKIP
    """
    pn = import_panel()
    if _in_notebook():
        pn.extension(inline=True)
    found = follow(begin_exploration(model, group))
    return Page(found, labels or {}).view


def import_panel() -> Any:
    """Import Panel, or say how it is installed."""
    try:
        import panel
    except ImportError as error:
        raise HmlmError(
            "hmlm.explore draws with Panel, which is not installed: "
            "python -m pip install 'hmlm[explore]'."
        ) from error
    return panel


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell: Any = get_ipython()
    return getattr(shell, "kernel", None) is not None


class Page:
    """The controls of one page and what they move.

    Attributes
    ----------
    found : Findings
        What follows from where the controls stand.
    view : panel.viewable.Viewable
        The page.
    """

    def __init__(self, found: Findings, labels: Mapping[str, str]) -> None:
        self._pn = import_panel()
        self.found = self._first = found
        self._labels = labels
        self._quiet = False
        state = found.state
        self.figures = Figures(found)
        self._make_controls(state)
        self._answer = self._html("")
        self._note = self._html("")
        self._this = self._html("")
        self.view = self._lay_out(state)
        self._connect()
        self._say()

    @property
    def state(self) -> Exploration:
        """Where the controls stand."""
        return self.found.state

    def _html(self, text: str) -> Any:
        return self._pn.pane.HTML(
            text, stylesheets=[STYLE], sizing_mode="stretch_width", margin=(0, 5)
        )

    def _make_controls(self, state: Exploration) -> None:
        w, wide = self._pn.widgets, {"sizing_mode": "stretch_width"}
        block = state.block
        self.share = w.FloatSlider(
            label="sd between groups, from 0 to ∞",
            start=0.0,
            end=1.0,
            step=0.005,
            value=share_of(self.found.sd, state.unit),
            show_value=False,
            css_classes=["sd"],
            **wide,
        )
        self.ends = {
            name: w.Button(label=name, css_classes=[css], color=kind, width=92, margin=4)
            for name, css, kind in (
                ("sd = 0", "zero", "default"),
                ("as estimated", "estimate", "primary"),
                ("sd = ∞", "infinity", "default"),
            )
        }
        self.width = w.FloatSlider(
            label="width of the prior of the sd, from 1/20 to 20 times",
            start=-1.3,
            end=1.3,
            step=0.05,
            value=0.0,
            show_value=False,
            css_classes=["width"],
            **wide,
        )
        names = [str(level) for level in block.levels]
        self.level = w.Select(
            label=f"look at one {state.group}",
            options={clip(name, 40): k for k, name in enumerate(names)},
            value=0,
            css_classes=["level"],
            **wide,
        )
        most = int(block.sizes[0])
        self.size = w.IntSlider(
            label="rows it has", start=1, end=max(most, 2), value=most, css_classes=["size"], **wide
        )
        self.dropped = w.MultiSelect(
            label="points left out (or click one in the figure)",
            options=self._row_names(0),
            value=[],
            css_classes=["dropped"],
            **wide,
        )
        self.reset = w.Button(label="start again", css_classes=["reset"], width=105)

    def _row_names(self, level: int) -> dict[str, int]:
        state = self.state
        y, name = state.design.y, state.design.spec.outcome
        axis = state.lines.axis.name
        found = {}
        for row in np.flatnonzero(state.block.index == level):
            value = None if axis is None else state.design.data.frame[axis].iloc[row]
            text = f"{value:.4g}" if isinstance(value, (float, np.floating)) else value
            where = "" if axis is None else f"{axis} {text}, "
            found[clip(f"row {row + 1}: {where}{name} {y[row]:.4g}", 60)] = int(row)
        return found

    def _connect(self) -> None:
        self.share.param.watch(self._on_share, "value")
        self.width.param.watch(self._on_width, "value")
        self.level.param.watch(self._on_level, "value")
        self.size.param.watch(self._on_size, "value")
        self.dropped.param.watch(self._on_dropped, "value")
        for button, sd in zip(self.ends.values(), (0.0, None, np.inf), strict=True):
            button.on_click(lambda event, sd=sd: self._move(replace(self.state, sd=sd)))
        self.reset.on_click(self._on_reset)
        self.figures.points.selected.on_change("indices", self._on_tap)

    def _on_share(self, event: Any) -> None:
        if not self._quiet:
            self._move(replace(self.state, sd=sd_of(event.new, self.state.unit)))

    def _on_width(self, event: Any) -> None:
        if not self._quiet:
            self._move(replace(self.state, width=float(10.0**event.new)))

    def _on_level(self, event: Any) -> None:
        self._show_level()
        self._move(self.state)

    def _on_size(self, event: Any) -> None:
        if not self._quiet:
            level, size = self.level.value, event.new
            most = int(self.state.block.sizes[level])
            self._try(lambda: resize_group(self.state, level, min(size, most)))

    def _on_dropped(self, event: Any) -> None:
        if not self._quiet:
            others = self.state.dropped - set(self.dropped.options.values())
            self._try(lambda: drop_rows(self.state, others | frozenset(event.new)))

    def _on_tap(self, attr: str, old: Any, new: list[int]) -> None:
        if new:
            row = int(self.figures.points.data["row"][new[0]])
            self.figures.points.selected.indices = []
            value = self.dropped.value
            self.dropped.value = [r for r in value if r != row] if row in value else [*value, row]

    def _on_reset(self, event: Any) -> None:
        self.found = self._first
        with self._silence():
            self.width.value = 0.0
        self._show_level()
        self._move(self._first.state)

    def _show_level(self) -> None:
        """Set the controls of rows to those of the chosen group."""
        level, state = self.level.value, self.state
        most = int(state.block.sizes[level])
        with self._silence():
            self.size.param.update(
                end=max(most, 2), value=state.sizes.get(level, most), disabled=most < 2
            )
            names = self._row_names(level)
            kept = [r for r in names.values() if r in state.dropped]
            self.dropped.param.update(options=names, value=kept)

    def _try(self, change: Callable[[], Exploration]) -> None:
        try:
            state = change()
        except HmlmError as error:
            self._show_level()
            self._note.object = f"<p class='wrong' role='alert'>{escape(error)}</p>"
            return
        self._move(state)

    @contextmanager
    def _silence(self) -> Iterator[None]:
        """Let controls be set without being taken for moved."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _move(self, state: Exploration) -> None:
        """Compute what follows, and patch the page with it, in one message."""
        self.found = follow(state, self.found)
        with self._pn.io.hold():
            with self._silence():
                self.share.value = share_of(self.found.sd, state.unit)
            self.figures.draw(self.found, self.level.value)
            self._say()

    def _say(self) -> None:
        self._answer.object = answer_html(self.found)
        self._this.object = group_html(self.found, self.level.value)
        self._note.object = ""

    def _lay_out(self, state: Exploration) -> Any:
        pn, figures = self._pn, self.figures
        words = card_words(state)
        bar = pn.Column(
            self.share,
            pn.FlexBox(*self.ends.values(), gap="4px"),
            styles=CARD | BAR,
            sizing_mode="stretch_width",
        )
        controls = self._card(words["sd"], self._answer, figures.sd, self.width, self.reset)
        one = self._card(
            "",
            self.level,
            self._this,
            pn.pane.Bokeh(figures.group, css_classes=["group-figure"], sizing_mode="stretch_width"),
            self.size,
            self.dropped,
            self._note,
        )
        cards = [controls, one]
        if figures.lines is not None:
            cards.append(self._card(words["lines"], figures.lines))
        cards.append(self._card(words["shrinkage"], figures.shrinkage))
        return pn.Column(
            self._html(title_html(state, self._labels)),
            bar,
            pn.FlexBox(*cards, gap="14px", sizing_mode="stretch_width"),
            sizing_mode="stretch_width",
            max_width=1500,
            styles={"padding": "8px", "box-sizing": "border-box", "margin": "0 auto"},
        )

    def _card(self, words: str, *parts: Any) -> Any:
        head = [self._html(words)] if words else []
        return self._pn.Column(*head, *parts, styles=CARD, sizing_mode="stretch_width")
