"""What the page of an explored model says, as HTML with every name escaped."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hmlm.display import clip
from hmlm.errors import counted
from hmlm.exploration import Exploration, Findings, GroupEstimates
from hmlm.palette import COMPLETE, NONE, PARTIAL
from hmlm.report_parts import escape

STYLE = """
:host { font: 16px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  color: #1f2328; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.05rem; margin: 0 0 .2rem; }
p { margin: .2rem 0; }
code { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: .9em;
  overflow-wrap: anywhere; }
.help { font-size: .9rem; color: #454c54; }
.key span { margin-right: 1.1rem; white-space: nowrap; }
.key i { display: inline-block; width: 1.8rem; margin-right: .35rem; vertical-align: middle; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { padding: .15rem .6rem .15rem 0; text-align: right; border-bottom: 1px solid #d8dee4; }
th:first-child { text-align: left; font-weight: 400; }
.wrong { color: #a40e26; font-weight: 600; }
"""
KEY = {
    "complete pooling": f"border-top: 3px dashed {COMPLETE}",
    "partial pooling": f"border-top: 4px solid {PARTIAL}",
    "no pooling": f"border-top: 3px solid {NONE}",
}


def title_html(state: Exploration, labels: Mapping[str, str]) -> str:
    """Return the head of the page: the model, what to do, and the colours."""
    group = escape(state.group)
    key = "".join(f"<span><i style='{line}'></i>{name}</span>" for name, line in KEY.items())
    shown = [state.design.spec.outcome, state.lines.axis.name, state.group]
    units = "; ".join(
        f"<b>{escape(c)}</b>, {escape(labels[c])}" for c in shown if c is not None and c in labels
    )
    return (
        "<h1>How much do the groups share?</h1>"
        f"<p><code>{escape(state.design.spec.formula)}</code></p>"
        + (f"<p class='help'>{units}.</p>" if units else "")
        + f"<p class='help'>Move the sd between groups: at 0 every {group} has the common line, "
        "at ∞ the line of its own rows alone, and in between each is pulled to the common line the "
        f"more, the less its own rows say.</p><p class='key'>{key}</p>"
    )


def card_words(state: Exploration) -> dict[str, str]:
    """Return the heading of each card and how to read it."""
    group = escape(state.group)
    plane = len(state.block.columns) > 1
    middle = "cross" if plane else "dashed line"
    ratio = ", the other sds in their ratios to it and correlations as estimated," * plane
    texts = {
        "lines": (
            "All groups",
            f"Partial pooling draws the groups' lines together; the thick line is the {group} "
            "chosen, and the dashed one the common line at average predictors.",
        ),
        "shrinkage": (
            "Shrinkage",
            "An arrow goes from a group's estimate without pooling (orange) to the one with "
            f"partial pooling (blue); the {middle} is complete pooling, and the dark arrow the "
            f"{group} chosen.",
        ),
        "sd": (
            f"The sd of {escape(clip(state.block.columns[0], 30))} between {group}",
            f"The area over a stretch is the probability that the sd{ratio} lies there: given the "
            "data (blue) and before them (green, dotted); the red line is the sd in use.",
        ),
    }
    return {k: f"<h2>{head}</h2><p class='help'>{text}</p>" for k, (head, text) in texts.items()}


def answer_html(found: Findings) -> str:
    """Return the sd in use, and what the data and the prior say about it."""
    state, posterior = found.state, found.posterior
    block = state.block
    sd = "∞" if np.isinf(found.sd) else f"{found.sd:.3g}"
    how = "as estimated: the posterior median" if state.sd is None else "chosen"
    if found.sd == 0:
        how = "complete pooling: all share one line"
    elif np.isinf(found.sd):
        how = "no pooling: each has its own line"
    prior = escape(state.prior)
    if state.width != 1:
        prior += f", made {state.width:.3g} times as wide"
    rows = counted(int(state.kept.sum()), "row")
    return (
        f"<p>sd in use: <b class='chosen'>{sd}</b> ({how}){_other_sds(found)}.</p>"
        f"<p>Estimate: median <b class='median'>{posterior.median:.3g}</b>, with 95% probability "
        f"between {posterior.lower:.3g} and {posterior.upper:.3g}, from {rows} in "
        f"{counted(len(block.levels), 'group')}.</p>"
        f"<p class='help'>Prior of the sd: {prior}.</p>"
    )


def _other_sds(found: Findings) -> str:
    state, names = found.state, found.state.block.columns[1:]
    if not names or np.isinf(found.sd) or found.sd == 0:
        return ""
    sds = state.parameters[f"sd_{state.group}"][1:] * (found.sd / state.unit)
    words = ", ".join(f"{escape(clip(n, 30))} {s:.3g}" for n, s in zip(names, sds, strict=True))
    return f", and with it {words}"


def group_html(found: Findings, level: int) -> str:
    """Return the estimates of one group under the three poolings."""
    state = found.state
    block = state.block
    parts = {"complete": found.complete, "partial": found.partial, "none": found.none}
    body = ""
    for k, column in enumerate(block.columns):
        cells = "".join(
            f"<td class='{name}'>{_number(e.lines[level, k])}</td>" for name, e in parts.items()
        )
        body += f"<tr><th>{escape(clip(column, 30))}</th>{cells}</tr>"
    spreads = "".join(f"<td>{_number(_spread(e))}</td>" for e in parts.values())
    body += f"<tr><th>sd over all {escape(block.group)}</th>{spreads}</tr>"
    head = "".join(f"<th>{name}</th>" for name in parts)
    rows = counted(int(state.kept[block.index == level].sum()), "row")
    return (
        f"<h2>{escape(state.group)} <span class='name'>{escape(clip(block.levels[level], 40))}"
        f"</span>: {rows}</h2>"
        f"<table class='estimates'><tr><th>pooling</th>{head}</tr>{body}</table>"
    )


def _spread(estimates: GroupEstimates) -> float:
    """Return the sd of the groups' first coefficients, of those that are known."""
    known = estimates.lines[np.isfinite(estimates.lines[:, 0]), 0]
    return float(known.std(ddof=1)) if len(known) > 1 else np.nan


def _number(value: float) -> str:
    if not np.isfinite(value):
        return ""
    return f"{0.0 if abs(value) < 1e-9 else value:.4g}"
