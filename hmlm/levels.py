"""The equations of a model, level by level, in either notation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len

from hmlm.design import Block, Design
from hmlm.display import clip
from hmlm.families import PARAMETERS
from hmlm.letters import Factor, Marks, make_factors, make_marks, parameter_symbol
from hmlm.notation import Notation

if TYPE_CHECKING:
    from hmlm.default_priors import PredictorPriors, ResolvedPriors

_LABELS_WIDTH = 60
_NAMES = {"gaussian": "Normal", "lognormal": "Normal", "student-t": "Student-t"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Equation:
    """One equation; its right side is a sum of chunks of terms."""

    left: str
    relation: str
    chunks: tuple[tuple[str, ...], ...]


def _equation(left: str, relation: str, *right: str) -> Equation:
    return Equation(left=left, relation=relation, chunks=(right,))


def _outcome_equations(design: Design, n: Notation) -> list[Equation]:
    """Write the distribution of a row given the linear predictors."""
    family, y = design.spec.family, n.row(design.spec.outcome)
    if family.outcome == "ordered":
        return _ordinal_equations(design, n)
    if family.outcome == "category":
        count = f"{n.words(' for ')}k = {_numbers(n, len(design.categories))}"
        weight = n.function("exp", n.at("eta", "ki"))
        equations = [_equation(n.function("P", f"{y} = k"), "∝", f"{weight}{count}")]
        return [*equations, *_labels(design, n), _equation(n.indexed("eta", 1, "i"), "=", "0")]
    name = family.name.removeprefix("zero-inflated-").removeprefix("hurdle-")
    mixed = name != family.name
    words = _NAMES.get(name, name.title().replace("-", ""))
    if family.name.startswith("hurdle-"):
        words = f"ZeroTruncated{words}"
    distribution = n.function(words, *_arguments(design, name, n))
    if mixed:
        extra = _parameter(design, "zi" if "zi" in family.parameters else "hu", n)
        zero = n.function("PointMass", "0")
        return [_equation(y, "~", n.times(extra, zero), n.times(_complement(extra), distribution))]
    return [_equation(n.function("log", y) if name == "lognormal" else y, "~", distribution)]


def _arguments(design: Design, name: str, n: Notation) -> tuple[str, ...]:
    """Write the parameters of the distribution of a row; a lognormal is that of the log."""
    if name in ("gaussian", "lognormal", "student-t"):
        variance = n.squared(_parameter(design, "sigma", n))
        if design.spec.weights is not None:
            variance = f"{variance} / {n.weight}"
        first = (_parameter(design, "nu", n),) if name == "student-t" else ()
        return (*first, n.mu, variance)
    if name == "poisson":
        return (n.mu,)
    if name in ("gamma", "negative-binomial"):
        mean, shape = n.words("mean "), n.words("shape ")
        return (f"{mean}{n.mu}", f"{shape}{_parameter(design, 'alpha', n)}")
    p = n.at("p")
    trials = (_trials(design, n),) if design.spec.family.outcome == "trials" else ()
    if name in ("bernoulli", "binomial"):
        return (*trials, p)
    phi = _parameter(design, "phi", n)
    return (*trials, n.times(p, phi), n.times(_complement(p), phi))


def _parameter(design: Design, name: str, n: Notation) -> str:
    """Write a parameter of the family, with an index where rows differ in it."""
    symbol = parameter_symbol(name)
    return n.indexed(symbol) if name in design.parameters else n.at(symbol)


def _complement(probability: str) -> str:
    return f"(1 - {probability})"


def _trials(design: Design, n: Notation) -> str:
    return "1" if design.spec.trials is None else _column(design, design.spec.trials, n)


def _column(design: Design, text: str, n: Notation) -> str:
    """Write a column's value in row i, or a number."""
    return n.row(text) if text in design.data.frame else n.name(text)


def _ordinal_equations(design: Design, n: Notation) -> list[Equation]:
    cuts = len(design.categories) - 1
    below = n.inverse(design.spec.family.link, f"{n.at('c', 'k')} - {n.at('eta')}")
    probability = n.function("P", f"{n.row(design.spec.outcome)} {n.at_most} k")
    count = f"{n.words(' for ')}k = {_numbers(n, cuts)}"
    equations = [_equation(probability, "=", f"{below}{count}")]
    if cuts > 1:
        numbers = range(2, cuts + 1) if cuts <= 4 else (2, None, cuts)
        c = [n.dots if k is None else n.indexed("c", k) for k in numbers]
        equations.append(_equation(n.indexed("c", 1), "<", " < ".join(c)))
    return [*equations, *_labels(design, n)]


def _numbers(n: Notation, size: int) -> str:
    few = ", ".join(str(k) for k in range(1, size + 1))
    return few if size <= 4 else f"1, {n.dots}, {size}"


def _labels(design: Design, n: Notation) -> list[Equation]:
    """Say which number is which category, unless the categories are 1, 2, ... themselves."""
    labels = design.categories
    if labels == tuple(str(k) for k in range(1, len(labels) + 1)):
        return []
    shown = [clip(label, 14) for label in labels]
    written = [n.name(label) for label in shown]
    if cell_len(", ".join(shown)) > _LABELS_WIDTH:
        written = [*written[:2], n.dots, written[-1]]
    right = f"{_numbers(n, len(labels))}{n.words(' for ')}{', '.join(written)}"
    return [_equation(n.row(design.spec.outcome), "=", right)]


def _mean(design: Design, m: Marks, n: Notation) -> str:
    """Write the left side of the equation of a linear predictor."""
    family, name = design.spec.family, m.predictor.name
    if name in PARAMETERS:
        return n.function(PARAMETERS[name].link, n.at(parameter_symbol(name)))
    if m.category:
        return n.indexed("eta", m.category, "i")
    if family.outcome == "ordered":
        return n.at("eta")
    if family.link == "inverse":
        return f"1 / {n.mu}"
    if family.link in ("identity", "log"):
        return n.mu if family.link == "identity" else n.function("log", n.mu)
    return n.function(family.link, n.at("p"))


def _sum(design: Design, m: Marks, factors: dict[str, Factor], n: Notation) -> Equation:
    """Write a linear predictor: its population part, its offset, and its group effects."""
    p = m.predictor
    numbered = [(n.indexed(m.beta, k), term) for k, term in enumerate(p.terms, start=m.first)]
    population = [b if term == "Intercept" else n.times(b, n.row(term)) for b, term in numbered]
    if p.offset is not None:
        terms = getattr(p.encoding.source, "terms", {}).values()
        offsets = [label for t in terms if t.kind == "offset" for label in t.labels]
        population += [n.row(label) for label in offsets or ["offset"]]
    chunks = [population]
    for block in p.blocks:
        symbol = m.effect(factors[block.group].letter)
        effects = [(n.effect(symbol, k, block.group), c) for k, c in enumerate(block.columns)]
        chunks.append([e if c == "Intercept" else n.times(e, n.row(c)) for e, c in effects])
    sums = tuple(tuple(chunk) for chunk in chunks if chunk) or (("0",),)
    return Equation(left=_mean(design, m, n), relation="=", chunks=sums)


def _row_equations(design: Design, factors: tuple[Factor, ...], n: Notation) -> Iterator[Equation]:
    """Write level 1: the distribution of a row, and its linear predictors."""
    spec = design.spec
    yield from _outcome_equations(design, n)
    if design.categories and spec.family.outcome in ("binary", "trials"):
        success = f"{n.row(spec.outcome)} = {n.name(design.categories[1])}"
        yield _equation(n.at("p"), "=", n.function("P", success))
    by_group = {f.group: f for f in factors}
    for m in make_marks(design):
        yield _sum(design, m, by_group, n)
    if spec.weights is not None:
        yield _equation(n.weight, "=", _column(design, spec.weights, n))
    if spec.standard_error is not None:
        known = f"{_column(design, spec.standard_error, n)}{n.words(' (known)')}"
        yield _equation(n.at("sigma"), "=", known)


def _group_equations(
    f: Factor, block: Block, m: Marks, pooling: str, priors: PredictorPriors | None, n: Notation
) -> list[Equation]:
    """Write the distribution of a factor's effects in one linear predictor."""
    members = [n.indexed(m.effect(f.letter), k, f.index) for k in range(len(block.columns))]
    if pooling == "none":
        own = priors.b[f.group] if priors is not None else None
        return [
            _equation(e, "~", n.prior(own[k]) if own is not None else n.words("its own prior"))
            for k, e in enumerate(members)
        ]
    several = sum(size > 1 for size in block.parts) > 1
    most = 3 if m.tag or m.category else 4
    equations, number = [], 0
    for part in block.slices:
        sds = [n.indexed(m.effect("sd", f.tag), k) for k in range(part.start, part.stop)]
        if len(sds) == 1:
            right = n.function("Normal", "0", n.squared(sds[0]))
            equations.append(_equation(members[part.start], "~", right))
            continue
        number += 1
        D, R = (n.indexed(m.effect(s, f.tag), number if several else None) for s in "DR")
        shown = sds if len(sds) <= most else [*sds[: most - 2], n.dots, sds[-1]]
        diagonal = n.function("diag", *shown)
        lkj = n.function("LKJ", n.eta)
        if priors is not None:
            lkj = n.prior(priors.cor[f.group])
        equations += [
            _equation(n.vector(members[part]), "~", n.function("MVN", "0", D)),
            _equation(D, "=", n.times(diagonal, R, diagonal)),
            _equation(R, "~", lkj),
        ]
    return equations


def make_levels(
    design: Design, priors: ResolvedPriors | None, n: Notation
) -> list[tuple[str, list[Equation]]]:
    """Write each level with its heading, from the rows upward."""
    factors, pooling = make_factors(design), design.spec.pooling
    count = _count(n, "i", design.n_rows)
    sections = [(n.words("Level 1: rows ") + count, list(_row_equations(design, factors, n)))]
    for f in sorted(factors, key=lambda f: f.level):
        heading = n.name(f"Level {f.level}: {clip(f.group, 24)} ") + _count(n, f.index, f.size)
        if f.outer:
            heading += n.name(f", each in one {clip(f.outer, 20)}")
        if pooling == "none":
            heading += n.words(", each on its own")
        equations: list[Equation] = []
        for m in make_marks(design):
            own = None if priors is None else priors.predictor(m.predictor.name)
            for block in m.predictor.blocks:
                if block.group == f.group:
                    equations += _group_equations(f, block, m, pooling, own, n)
        sections.append((heading, equations))
    return sections


def _count(n: Notation, index: str, size: int) -> str:
    return f"{index} = 1, {n.dots}, {n.number(size)}"
