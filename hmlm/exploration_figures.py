"""The figures of an explored model in bokeh: made once, then patched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hmlm.display import clip
from hmlm.exploration import Exploration, Findings
from hmlm.exploration_posterior import SHARES, sd_of, share_of
from hmlm.palette import COMPLETE, GREEN, GREY, INK, NONE, PARTIAL, VERMILION

MOST_ARROWS = 150
MOST_NAMES = 30
_WIDE = {"sizing_mode": "stretch_width", "toolbar_location": None}


class Figures:
    """The figures of one page, and the sources that they draw from.

    Attributes
    ----------
    lines : figure or None
        All groups along the axis; None where nothing runs along one.
    group : figure
        One group with its points.
    shrinkage : figure
        From no pooling to partial pooling, group by group.
    sd : figure
        The posterior of the sd.
    points : ColumnDataSource
        Points of the chosen group; its selection is what was clicked.
    """

    def __init__(self, found: Findings) -> None:
        self._sources: dict[str, Any] = {}
        state = found.state
        axis = state.lines.axis
        self.lines = None if axis.name is None else self._make_lines(state)
        self.group = self._make_group(state)
        self.shrinkage = self._make_shrinkage(found)
        self.sd = self._make_sd(state)
        self.points = self._sources["points"]
        self.draw(found, 0)

    def draw(self, found: Findings, level: int) -> None:
        """Patch every source with what follows from where the controls stand."""
        self._draw_lines(found, level)
        self._draw_group(found, level)
        self._draw_shrinkage(found, level)
        self._draw_sd(found)

    def _source(self, name: str, **columns: Any) -> Any:
        from bokeh.models import ColumnDataSource

        self._sources[name] = ColumnDataSource(columns)
        return self._sources[name]

    def _put(self, name: str, **columns: Any) -> None:
        """Patch a source, unless it holds these columns: what is sent is drawn anew."""
        source = self._sources[name]
        if any(not _same(source.data[k], v) for k, v in columns.items()):
            source.data = columns

    def _figure(self, x: str, y: str, height: int = 330, **more: Any) -> Any:
        from bokeh.plotting import figure

        make: Any = figure
        made = make(
            height=height,
            x_axis_label=_plain(clip(x, 60)),
            y_axis_label=_plain(clip(y, 40)),
            **{"tools": "", **_WIDE, **more},
        )
        made.outline_line_color = None
        made.grid.grid_line_alpha = 0.25
        made.background_fill_color = made.border_fill_color = "#ffffff"
        for axis in made.axis:
            axis.axis_label_text_font_style = "normal"
            axis.axis_label_text_color = axis.major_label_text_color = INK
            axis.axis_label_text_font_size = "13px"
            axis.major_label_text_font_size = "12px"
            axis.minor_tick_line_color = None
        return made

    def _make_lines(self, state: Exploration) -> Any:
        axis, design = state.lines.axis, state.design
        made = self._figure(axis.label, design.spec.outcome)
        _name_categories(made, axis.categories)
        made.scatter(
            "x", "y", source=self._source("rows", x=[], y=[]), size=4, color=GREY, alpha=0.35
        )
        faint = float(np.clip(5 / np.sqrt(len(state.block.levels)), 0.18, 0.9))
        for name, color, alpha, width in (
            ("all none", NONE, faint, 1.0),
            ("all partial", PARTIAL, min(1.4 * faint, 0.9), 1.3),
        ):
            made.line(
                "x",
                "y",
                source=self._source(name, x=[], y=[]),
                color=color,
                alpha=alpha,
                line_width=width,
            )
        made.line(
            "x",
            "y",
            source=self._source("all complete", x=[], y=[]),
            color=INK,
            line_dash=[8, 5],
            line_width=2.5,
        )
        made.line(
            "x", "y", source=self._source("this partial", x=[], y=[]), color=PARTIAL, line_width=4
        )
        return made

    def _draw_lines(self, found: Findings, level: int) -> None:
        if self.lines is None:
            return
        state, rest = found.state, found.state.lines
        keep = state.kept
        self._put("rows", x=_along(state)[keep], y=state.design.y[keep])
        own = _own_range(state)
        x = _in_one(rest.x)
        self._put("all none", x=x, y=_in_one(np.where(own, found.none.traces, np.nan)))
        self._put("all partial", x=x, y=_in_one(found.partial.traces))
        at = np.unique(rest.x)
        pooled = [
            np.interp(at, line, y) for line, y in zip(rest.x, found.complete.traces, strict=True)
        ]
        self._put("all complete", x=at, y=np.mean(pooled, axis=0))
        self._put("this partial", x=rest.x[level], y=found.partial.traces[level])

    def _make_group(self, state: Exploration) -> Any:
        axis, design = state.lines.axis, state.design
        made = self._figure(axis.label, design.spec.outcome, tools="tap", tags=["group"])
        _name_categories(made, axis.categories)
        if axis.name is None:
            made.xaxis.ticker.min_interval = 1
        for name, color, dash, width in (
            ("complete", COMPLETE, [8, 5], 2.5),
            ("none", NONE, "solid", 2.5),
            ("partial", PARTIAL, "solid", 4),
        ):
            made.line(
                "x",
                "y",
                source=self._source(f"own {name}", x=[], y=[]),
                color=color,
                line_dash=dash,
                line_width=width,
            )
        drawn = made.scatter(
            "x",
            "y",
            source=self._source("points", x=[], y=[], row=[], marker=[], alpha=[]),
            marker="marker",
            size=13,
            fill_color=INK,
            line_color=INK,
            line_width=2,
            alpha="alpha",
        )
        drawn.nonselection_glyph = drawn.selection_glyph = None  # a click changes no looks
        pad = 0.08 * float(np.ptp(design.y)) or 1.0
        made.y_range.start, made.y_range.end = design.y.min() - pad, design.y.max() + pad
        return made

    def _draw_group(self, found: Findings, level: int) -> None:
        state, rest = found.state, found.state.lines
        rows = np.flatnonzero(state.block.index == level)
        kept = state.kept[rows]
        self._put(
            "points",
            x=_along(state)[rows],
            y=state.design.y[rows],
            row=rows,
            marker=np.where(kept, "circle", "x"),
            alpha=np.where(kept, 0.85, 0.35),
        )
        own = _own_range(state)[level]
        self._put("own none", x=rest.x[level], y=np.where(own, found.none.traces[level], np.nan))
        for name, drawn in (("complete", found.complete), ("partial", found.partial)):
            self._put(f"own {name}", x=rest.x[level], y=drawn.traces[level])

    def _make_shrinkage(self, found: Findings) -> Any:
        from bokeh.models.annotations import Arrow, VeeHead

        state = found.state
        block, plane = state.block, state.block.Z.shape[1] > 1
        J = len(block.levels)
        height = 330 if plane else int(np.clip(80 + 17 * J, 260, 620))
        if plane:
            first, second = (f"{c} of each {state.group}" for c in block.columns[:2])
            made = self._figure(first, second)
        else:
            made = self._figure(f"{block.columns[0]} of each {state.group}", state.group, height)
            self._rank_levels(made, found)
        area = float(np.clip(80 / np.sqrt(J), 5, 12))
        columns: dict[str, Any] = {"x0": [], "y0": [], "x1": [], "y1": []}
        self._source("complete mark", x=[], y=[])
        if plane:
            made.scatter(
                "x", "y", source=self._sources["complete mark"], marker="cross", size=18,
                line_color=COMPLETE, line_width=3,
            )  # fmt: skip
        else:
            made.line(
                "x", "y", source=self._sources["complete mark"], color=COMPLETE, line_width=2.5,
                line_dash=[8, 5],
            )  # fmt: skip
        source = self._source("arrows", **columns, names=[])
        made.scatter("x0", "y0", source=source, size=area, color=NONE, alpha=0.8)
        made.segment("x0", "y0", "x1", "y1", source=source, color=GREY, alpha=0.6)
        made.scatter("x1", "y1", source=source, size=area, color=PARTIAL, alpha=0.9)
        one = self._source("this arrow", **columns)
        made.scatter("x1", "y1", source=one, size=area + 5, color=PARTIAL)
        arrow: Any = Arrow  # bokeh's types name its lines otherwise than its models do
        ends = {"x_start": "x0", "y_start": "y0", "x_end": "x1", "y_end": "y1"}
        if J <= MOST_ARROWS:
            head = VeeHead(size=6, fill_color=GREY, line_color=GREY)
            made.add_layout(arrow(end=head, source=source, line_color=None, **ends))
        head = VeeHead(size=9, fill_color=INK, line_color=INK)
        dark = {"line_color": INK, "line_width": 2}
        made.add_layout(arrow(end=head, source=one, **dark, **ends))
        return made

    def _rank_levels(self, made: Any, found: Findings) -> None:
        """Put each group on a row of its own, by its estimate without pooling."""
        lines = found.none.lines[:, 0]
        self._rank = np.empty(len(lines))
        self._rank[np.argsort(lines, kind="stable")] = np.arange(len(lines))
        made.ygrid.grid_line_color = None
        if len(lines) <= MOST_NAMES:
            made.yaxis.ticker = list(range(len(lines)))
            names = [clip(level, 16) for level in found.state.block.levels]
            made.yaxis.major_label_overrides = {
                int(at): _plain(name) for at, name in zip(self._rank, names, strict=True)
            }
        else:
            made.yaxis.visible = False

    def _draw_shrinkage(self, found: Findings, level: int) -> None:
        none, partial, pooled = found.none.lines, found.partial.lines, found.complete.lines
        if none.shape[1] > 1:
            start, end = none[:, :2], partial[:, :2]
            middle = pooled[:, :2].mean(axis=0)
            self._put("complete mark", x=middle[:1], y=middle[1:])
        else:
            start = np.column_stack([none[:, 0], self._rank])
            end = np.column_stack([partial[:, 0], self._rank])
            middle = np.full(2, pooled[:, 0].mean())
            self._put("complete mark", x=middle, y=[-0.6, len(none) - 0.4])
        known = np.isfinite(start).all(axis=1)
        start = np.where(known[:, None], start, end)  # nothing of their own to shrink from
        columns = {"x0": start[:, 0], "y0": start[:, 1], "x1": end[:, 0], "y1": end[:, 1]}
        self._put("arrows", **columns, names=[str(v) for v in found.state.block.levels])
        self._put("this arrow", **{k: v[level : level + 1] for k, v in columns.items()})

    def _make_sd(self, state: Exploration) -> Any:
        from bokeh.models.annotations import Span

        made = self._figure(
            f"sd of {state.block.columns[0]} between {state.group}, on the slider's scale",
            "density",
            height=240,
            x_range=(-0.02, 1.02),
        )
        made.yaxis.major_label_text_font_size = "0px"
        made.yaxis.major_tick_line_color = None
        shares = np.array([0.0, 0.25, 0.5, 0.75, 0.9, 1.0])
        made.xaxis.ticker = shares.tolist()
        made.xaxis.major_label_overrides = {
            float(s): "∞" if s == 1 else f"{sd_of(s, state.unit):.3g}" for s in shares
        }
        source = self._source("sd", s=[], density=[], prior=[])
        made.varea("s", 0, "density", source=source, color=PARTIAL, alpha=0.3)
        made.line("s", "density", source=source, color=PARTIAL, line_width=2)
        made.line("s", "prior", source=source, color=GREEN, line_width=2, line_dash=[2, 3])
        self._chosen = Span(dimension="height", line_color=VERMILION, line_width=3)
        made.add_layout(self._chosen)
        made.y_range.start = 0.0
        return made

    def _draw_sd(self, found: Findings) -> None:
        posterior = found.posterior
        top = 2.5 * float(posterior.density.max())
        self._put(
            "sd",
            s=SHARES,
            density=posterior.density,
            prior=np.where(posterior.prior <= top, posterior.prior, np.nan),
        )
        self._chosen.location = share_of(found.sd, found.state.unit)


def _same(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    numbers = a.dtype.kind == "f" and b.dtype.kind == "f"
    return a.dtype.kind == b.dtype.kind and np.array_equal(a, b, equal_nan=numbers)


def _along(state: Exploration) -> np.ndarray:
    """Return where every row stands along the axis."""
    axis, block = state.lines.axis, state.block
    if axis.name is None:
        place = np.empty(len(block.index))
        for level in range(len(block.levels)):
            rows = np.flatnonzero(block.index == level)
            place[rows] = np.arange(1, len(rows) + 1)
        return place
    values = state.design.data.frame[axis.name]
    if axis.categories:
        codes: Sequence[float] = [axis.categories.index(v) for v in values.tolist()]
        return np.asarray(codes, dtype=float)
    return values.to_numpy(dtype=float)


def _in_one(lines: np.ndarray) -> np.ndarray:
    """Return lines end to end with gaps: one array is one message, and a list of them is many."""
    return np.column_stack([lines, np.full(len(lines), np.nan)]).ravel()


def _own_range(state: Exploration) -> np.ndarray:
    """Return where each group's line lies within its own rows, shape (J, G)."""
    x, block = state.lines.x, state.block
    if state.lines.axis.name is None:
        return np.ones(x.shape, dtype=bool)
    keep, along, J = state.kept, _along(state), len(block.levels)
    low, high = np.full(J, np.inf), np.full(J, -np.inf)
    np.minimum.at(low, block.index[keep], along[keep])
    np.maximum.at(high, block.index[keep], along[keep])
    return (x >= low[:, None]) & (x <= high[:, None])


def _name_categories(made: Any, categories: Sequence[Any]) -> None:
    if categories:
        made.xaxis.ticker = list(range(len(categories)))
        made.xaxis.major_label_overrides = {
            k: _plain(clip(name, 16)) for k, name in enumerate(categories)
        }


def _plain(text: str) -> Any:
    """Return a name from the table as text that is no formula."""
    from bokeh.models import PlainText

    return PlainText(text=text)
