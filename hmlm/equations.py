"""What printing a model shows: its equations level by level, its groups, and its priors."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from rich.cells import cell_len

from hmlm.design import Design
from hmlm.display import clean, html_name, html_table, text_table, wrap_sum, wrap_words
from hmlm.errors import counted
from hmlm.families import PARAMETERS
from hmlm.letters import Marks, Symbol, make_factors, parameter_symbol, prior_symbols
from hmlm.levels import Equation, make_levels
from hmlm.notation import LATEX, TEXT, latex_number

if TYPE_CHECKING:
    from hmlm.default_priors import ResolvedPriors

WIDTH = 88
_LATEX_WIDTH = 72
_IGNORE = 'class="tex2jax_ignore mathjax_ignore"'
_PROCESS = 'class="tex2jax_process mathjax_process"'


def _pooling_notes(design: Design, show: Callable[[object], str]) -> Iterator[str]:
    """Say what a reader must know that the equations do not say, names written with `show`."""
    spec = design.spec
    left_out = [*spec.group_terms, *(t for d in spec.distributional for t in d.group_terms)]
    if left_out and spec.pooling == "complete":
        named = dict.fromkeys(show(str(t)) for t in left_out)
        yield (
            f"Complete pooling: no groups. {', '.join(named)} {'is' if len(named) == 1 else 'are'} "
            "left out, and all rows share the same coefficients."
        )
    factors = make_factors(design)
    if factors and spec.pooling == "none":
        who = " and ".join(f"the {counted(f.size, 'group')} of {show(f.group)}" for f in factors)
        yield (
            f"No pooling: each of {who} has its own coefficients, each with a prior of its own. "
            "They share no distribution, so no group learns from another."
        )
    aliased = [
        p.named(column)
        for p in design.predictors
        for column in p.aliased
        if not p.name or p.name in PARAMETERS  # those of other categories are those of the first
    ]
    if aliased:
        names = ", ".join(map(show, aliased))
        why = (
            "the groups' own coefficients or earlier columns already contain them"
            if factors and spec.pooling == "none"
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


def _is_centred(symbol: Symbol, priors: ResolvedPriors) -> bool:
    """Return whether the prior of a parameter is at the average of the predictors."""
    if symbol.marks is None or symbol.kind not in ("beta", "cutpoints"):
        return False
    own = priors.predictor(symbol.marks.predictor.name)
    constant = symbol.kind == "cutpoints" or bool(own.constant[symbol.k])
    return constant and bool(np.any(own.x_means))


def _prior_rows(design: Design, priors: ResolvedPriors) -> list[tuple[str, str, str, str, str]]:
    """Return symbol, parameter, prior, source and note of every parameter."""
    return [
        (
            f"{s.written}*" if _is_centred(s, priors) else s.written,
            e.parameter,
            clean(e.prior),
            e.source,
            e.note,
        )
        for s, e in zip(prior_symbols(design, TEXT), priors.entries, strict=True)
    ]


def _centred_notes(design: Design, priors: ResolvedPriors) -> list[str]:
    """Say what the stars mean, if there are any."""
    notes: dict[str, str] = {}
    for s in prior_symbols(design, TEXT):
        if s.marks is None or not _is_centred(s, priors):
            continue
        terms, coefficient = s.marks.predictor.terms, s.marks.coefficient
        what = _scale(design, s.marks)
        if s.kind == "cutpoints":
            note = f"* at average predictors, {s.written} - Σₗ {TEXT.at('beta', 'l')} mean(xₗ)"
        elif terms[s.k] != "Intercept":
            note = f"* on {what} at the average of the other predictors"
        else:
            first, slope = TEXT.indexed(coefficient, s.k), TEXT.at(coefficient, "k")
            note = f"* on {what} at average predictors, {first} + Σₖ {slope} mean(xₖ)"
        notes.setdefault(what, note)
    return list(notes.values())


def _scale(design: Design, m: Marks) -> str:
    """Say what a linear predictor is."""
    family, name = design.spec.family, m.predictor.name
    if name in PARAMETERS:
        return f"{PARAMETERS[name].link}({TEXT.indexed(parameter_symbol(name))})"
    if family.outcome in ("ordered", "category"):
        return "η" if family.outcome == "ordered" else "each η"
    if family.link == "identity":
        return "the expected log outcome" if family.name == "lognormal" else "the expected outcome"
    if family.link in ("log", "inverse"):
        return "log(μ)" if family.link == "log" else "1 / μ"
    return f"{family.link}(p)"


def _prior_equations(design: Design, priors: ResolvedPriors) -> list[Equation]:
    """Write in LaTeX the priors that the levels do not show already."""
    equations = []
    for s, e in zip(prior_symbols(design, LATEX), priors.entries, strict=True):
        if s.kind in ("cor", "effect"):
            continue
        left = s.written
        if s.marks is not None and _is_centred(s, priors):
            ordered = s.kind == "cutpoints"
            index = "l" if ordered else "k"
            constant = 1.0 if ordered else priors.predictor(s.marks.predictor.name).constant[s.k]
            times = "" if constant == 1 else f"{latex_number(constant)} "
            slope = LATEX.at(s.marks.beta, index)
            left += rf" {'-' if ordered else '+'} {times}{{\textstyle\sum_{index}}} {slope} "
            left += rf"\bar{{x}}_{index}"
        equations.append(Equation(left=left, relation="~", chunks=((LATEX.prior(e.prior),),)))
    return equations


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
            room = WIDTH - cell_len(start)
            if max(map(max, widths)) + 2 > room:  # a term too wide stands on a line of its own
                lines.append(start.rstrip())
                start, room = " " * 8, WIDTH - 8
            first, *more = wrap_sum(e.chunks, widths, room)
            indent = " " * (cell_len(start) - 2)
            lines += [f"{start}{first}", *(f"{indent}{line}" for line in more)]
    for note in _pooling_notes(design, clean):
        lines += ["", *wrap_words(note, WIDTH)]
    sizes = [f"{name}: {groups} of {of}" for name, groups, of in _group_rows(design)]
    data = "; ".join([counted(design.n_rows, "row"), *sizes])
    lines += ["", "Data", *wrap_words(data, WIDTH, indent="  ", hanging="    ")]
    if design.data.n_dropped:
        lines += wrap_words(design.data.missing_note, WIDTH, indent="  ", hanging="    ")
    lines += ["", "Priors"]
    lines += text_table([row[:4] for row in _prior_rows(design, priors)], WIDTH, flexible=1)
    for note in _centred_notes(design, priors):
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
    relations = {"~": r"\sim", "∝": r"\propto"}
    rows = []
    for i, (heading, equations) in enumerate(sections):
        for k, e in enumerate(equations):
            text = shown[i][1][k].chunks if i < len(shown) else e.chunks
            widths = [[cell_len(t) for t in chunk] for chunk in text]
            first, *more = wrap_sum(e.chunks, widths, _LATEX_WIDTH)
            start = rf"&{heading} \quad" if k == 0 else "&"
            rows.append(rf"{start} & {e.left} &{relations.get(e.relation, e.relation)} {first}")
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
    rows = counted(design.n_rows, "row")
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
    parts += [f"<p>{note}</p>" for note in _centred_notes(design, priors)]
    return "\n".join([*parts, "</div>"])
