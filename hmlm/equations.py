"""What printing a model shows: its equations level by level, its groups, and its priors."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from rich.cells import cell_len

from hmlm.design import Design
from hmlm.display import (
    LATEX,
    TEXT,
    Notation,
    clean,
    html_name,
    html_table,
    latex_number,
    text_table,
    wrap_sum,
    wrap_words,
)
from hmlm.errors import counted
from hmlm.levels import Equation, make_factors, make_levels

if TYPE_CHECKING:
    from hmlm.default_priors import ResolvedPriors

WIDTH = 88
_LATEX_WIDTH = 72
_IGNORE = 'class="tex2jax_ignore mathjax_ignore"'
_PROCESS = 'class="tex2jax_process mathjax_process"'


def _pooling_notes(design: Design, show: Callable[[object], str]) -> Iterator[str]:
    """Say what a reader must know that the equations do not say, names written with `show`."""
    spec = design.spec
    if spec.group_terms and spec.pooling == "complete":
        terms = ", ".join(show(str(t)) for t in spec.group_terms)
        yield (
            f"Complete pooling: no groups. {terms} {'is' if len(spec.group_terms) == 1 else 'are'} "
            "left out, and all rows share the same coefficients."
        )
    if design.blocks and spec.pooling == "none":
        who = " and ".join(
            f"the {counted(len(b.levels), 'group')} of {show(b.group)}" for b in design.blocks
        )
        yield (
            f"No pooling: each of {who} has its own coefficients, each with a prior of its own. "
            "They share no distribution, so no group learns from another."
        )
    if design.aliased:
        names = ", ".join(map(show, design.aliased))
        why = (
            "the groups' own coefficients or earlier columns already contain them"
            if design.blocks and spec.pooling == "none"
            else "they are linear combinations of earlier columns"
        )
        yield f"Left out of the population part, because {why}: {names}."


def _missing_note(design: Design, show: Callable[[object], str]) -> str:
    data = design.data
    where = ", ".join(f"{show(column)} ({n:,})" for column, n in data.missing.items())
    return (
        f"{data.n_dropped:,} of {counted(data.n_rows, 'row')} left out because of missing values "
        f"in {where}."
    )


def _group_rows(design: Design) -> list[tuple[str, str, str]]:
    """Return for each grouping factor its name, the number of groups, and their sizes."""
    rows = []
    for f in make_factors(design):
        sizes = f.block.sizes
        low, high = int(sizes.min()), int(sizes.max())
        of = counted(low, "row")
        if low < high:
            of = f"{low:,} to {high:,} rows (median {np.median(sizes):g})"
        rows.append((f.group, counted(f.size, "group"), of))
    return rows


def _symbols(design: Design, n: Notation) -> list[str]:
    """Write the symbols of the parameters, in the order of `ResolvedPriors.entries`."""
    factors = make_factors(design)
    partial = design.spec.pooling == "partial"
    symbols = [n.indexed("beta", k) for k in range(len(design.terms))]
    for f in factors if partial else ():
        symbols += [n.indexed(f"sd{f.tag}", k) for k in range(len(f.block.columns))]
        symbols += [n.indexed(f"R{f.tag}")] if f.block.correlated else []
    if design.spec.family.scale:
        symbols.append(n.indexed("sigma"))
    for f in () if partial else factors:
        symbols += [n.indexed(f.letter, k, f.index) for k in range(len(f.block.columns))]
    return symbols


def _centred(priors: ResolvedPriors) -> list[int]:
    """Return the coefficients whose prior is on the outcome at average predictors."""
    return np.flatnonzero(priors.constant).tolist() if np.any(priors.x_means) else []


def _prior_rows(design: Design, priors: ResolvedPriors) -> list[tuple[str, str, str, str, str]]:
    """Return symbol, parameter, prior, source and note of every parameter."""
    symbols = _symbols(design, TEXT)
    for k in _centred(priors):
        symbols[k] += "*"
    return [
        (symbol, e.parameter, clean(e.prior), e.source, e.note)
        for symbol, e in zip(symbols, priors.entries, strict=True)
    ]


def _centred_note(design: Design, priors: ResolvedPriors) -> list[str]:
    """Say what a star means, if there is one."""
    centred = _centred(priors)
    if not centred:
        return []
    if design.terms[centred[0]] != "Intercept":
        return ["* on the expected outcome at the average of the other predictors"]
    first = TEXT.indexed("beta", centred[0])
    return [f"* on the expected outcome at average predictors, {first} + Σₖ βₖ mean(xₖ)"]


def _prior_equations(design: Design, priors: ResolvedPriors) -> list[Equation]:
    """Write in LaTeX the priors that the levels do not show already."""
    symbols = _symbols(design, LATEX)
    for k in _centred(priors):
        times = "" if priors.constant[k] == 1 else f"{latex_number(priors.constant[k])} "
        symbols[k] += rf" + {times}{{\textstyle\sum_k}} \beta_k \bar{{x}}_k"
    in_levels = {LATEX.indexed(f"R{f.tag}") for f in make_factors(design)}
    last = len(symbols) - sum(map(len, priors.b.values()))
    return [
        Equation(left=symbol, relation="~", chunks=((LATEX.prior(e.prior),),))
        for symbol, e in zip(symbols[:last], priors.entries[:last], strict=True)
        if symbol not in in_levels
    ]


def model_text(design: Design, priors: ResolvedPriors) -> str:
    r"""Write a model for a terminal: equations by level, groups and sizes, priors.

    Parameters
    ----------
    design : Design
        The model on its data.
    priors : ResolvedPriors
        The prior of every parameter, from `hmlm.default_priors.resolve_priors`.

    Returns
    -------
    str
        Lines at most 88 columns wide.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.default_priors import resolve_priors
    >>> from hmlm.equations import model_text
    >>> model = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))
    >>> text = model_text(model.design, resolve_priors(model.design))
    >>> print("\n".join(text.split("\n\n")[1:4]))
    Level 1: rows i = 1, ..., 30
      Yieldᵢ ~ Normal(μᵢ, σ²)
      μᵢ = β₀ + b₀[Batchᵢ]
    Level 2: Batch j = 1, ..., 6
      b₀ⱼ ~ Normal(0, sd₀²)
    Data
      30 rows; Batch: 6 groups of 5 rows
    """
    spec, n = design.spec, TEXT
    lines = wrap_words(spec.formula, WIDTH, hanging="    ")
    for heading, equations in make_levels(design, priors, n):
        lines += ["", *wrap_words(heading, WIDTH, hanging="  ")]
        for e in equations:
            start = f"  {e.left} {e.relation} "
            widths = [[cell_len(t) for t in chunk] for chunk in e.chunks]
            first, *more = wrap_sum(e.chunks, widths, WIDTH - cell_len(start))
            indent = " " * (cell_len(start) - 2)
            lines += [f"{start}{first}", *(f"{indent}{line}" for line in more)]
    for note in _pooling_notes(design, clean):
        lines += ["", *wrap_words(note, WIDTH)]
    sizes = [f"{name}: {groups} of {of}" for name, groups, of in _group_rows(design)]
    data = "; ".join([counted(len(design.y), "row"), *sizes])
    lines += ["", "Data", *wrap_words(data, WIDTH, indent="  ", hanging="    ")]
    if design.data.n_dropped:
        lines += wrap_words(design.data.missing_note, WIDTH, indent="  ", hanging="    ")
    lines += ["", "Priors"]
    lines += text_table([row[:4] for row in _prior_rows(design, priors)], WIDTH, flexible=1)
    for note in _centred_note(design, priors):
        lines += wrap_words(note, WIDTH, indent="  ", hanging="    ")
    return "\n".join(lines)


def model_latex(design: Design, priors: ResolvedPriors | None = None) -> str:
    r"""Write the equations of a model in LaTeX.

    Parameters
    ----------
    design : Design
        The model on its data.
    priors : ResolvedPriors, optional
        If they are given, a prior with its numbers is added for every parameter.

    Returns
    -------
    str
        A complete ``aligned`` environment, to be put between ``\[`` and ``\]``. It needs amsmath,
        and MathJax or KaTeX draw it as it is.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.equations import model_latex
    >>> model = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))
    >>> print(model_latex(model.design))
    \begin{aligned}
      &\text{Level 1: rows }i = 1, \dots, 30 \quad & \text{Yield}_i &\sim ...
      & & \mu_i &= \beta_0 + b_{0,\text{Batch}[i]} \\
      &\text{Level 2: Batch }j = 1, \dots, 6 \quad & b_{0j} &\sim ...
    \end{aligned}
    """
    sections = make_levels(design, priors, LATEX)
    if priors is not None:
        sections.append((LATEX.words("Priors"), _prior_equations(design, priors)))
    return _aligned(sections, make_levels(design, priors, TEXT))


def _aligned(
    sections: list[tuple[str, list[Equation]]], shown: list[tuple[str, list[Equation]]]
) -> str:
    """Lay out equations in LaTeX; `shown` are the same as text, which says how wide they are."""
    relations = {"~": r"\sim", "=": "="}
    rows = []
    for i, (heading, equations) in enumerate(sections):
        for k, e in enumerate(equations):
            text = shown[i][1][k].chunks if i < len(shown) else e.chunks
            widths = [[cell_len(t) for t in chunk] for chunk in text]
            first, *more = wrap_sum(e.chunks, widths, _LATEX_WIDTH)
            start = rf"&{heading} \quad" if k == 0 else "&"
            rows.append(rf"{start} & {e.left} &{relations[e.relation]} {first}")
            rows += [rf"& & &\qquad {{}} {line}" for line in more]
    body = " \\\\\n".join(f"  {row}" for row in rows)
    return f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}"


def model_html(design: Design, priors: ResolvedPriors) -> str:
    r"""Write a model for a notebook: equations that MathJax draws, and tables.

    Parameters
    ----------
    design : Design
        The model on its data.
    priors : ResolvedPriors
        The prior of every parameter.

    Returns
    -------
    str
        HTML in which every name is escaped, for HTML and for LaTeX.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.default_priors import resolve_priors
    >>> from hmlm.equations import model_html
    >>> model = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))
    >>> page = model_html(model.design, resolve_priors(model.design))
    >>> "<code>Batch</code>" in page, r"\begin{aligned}" in page
    (True, True)
    """
    latex = _aligned(make_levels(design, priors, LATEX), make_levels(design, priors, TEXT))
    parts = [
        f"<div {_IGNORE}>",
        f"<p>{html_name(design.spec.formula)}</p>",
        f"<div {_PROCESS}>\\[\n{html.escape(latex, quote=False)}\n\\]</div>",
        *(f"<p>{note}</p>" for note in _pooling_notes(design, html_name)),
    ]
    groups = [(html_name(name), groups, of) for name, groups, of in _group_rows(design)]
    rows = counted(len(design.y), "row")
    if groups:
        parts.append(html_table(("Factor", "Groups", "Rows in a group"), groups, f"Data: {rows}"))
    else:
        parts.append(f"<p><strong>Data:</strong> {rows}</p>")
    if design.data.n_dropped:
        parts.append(f"<p>{_missing_note(design, html_name)}</p>")
    table = [
        (symbol, html_name(name), html.escape(prior), source, html_name(note) if note else "")
        for symbol, name, prior, source, note in _prior_rows(design, priors)
    ]
    parts.append(html_table(("Symbol", "Parameter", "Prior", "Source", "Scale"), table, "Priors"))
    parts += [f"<p>{note}</p>" for note in _centred_note(design, priors)]
    return "\n".join([*parts, "</div>"])
