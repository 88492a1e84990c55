"""A fit is gone on from: fitted again with changes, or with more draws."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hmlm.data import GroupedData
from hmlm.design import Design, make_design
from hmlm.errors import DataError, FormulaError, HmlmError, counted
from hmlm.fitting.conditional_effects import draw_conditional_effects
from hmlm.fitting.diagnostics import diagnose
from hmlm.fitting.interruption import interruption_notes, run_method
from hmlm.fitting.settings import check_seed
from hmlm.formula import parse_formula, split_formulas
from hmlm.grammar import scan_formula, split_sum, write
from hmlm.lazy_table import encoded_texts
from hmlm.priors import check_priors
from hmlm.spec import ModelSpec
from hmlm.status import Status
from hmlm.storage import chosen_collinear
from hmlm.table_columns import read_data
from hmlm.tables_read import read_table

# What stands between quotes, or a dot that is no part of a name or a number.
_DOT = re.compile(r"""(`[^`]*`|'[^']*'|"[^"]*")|(?<![\w.])\.(?![\w.])""")
_MARK = "old_side_of_the_formula"


def update_fit(
    fit: Any,
    data: Any = None,
    priors: Mapping[str, Any] | None = None,
    formula: str | Sequence[str] | None = None,
    method: Any = None,
    random_seed: int | None = None,
    *,
    collinear: str | None = None,
    progressbar: bool = True,
) -> Any:
    """Fit again with something changed and the rest as it was.

    Parameters
    ----------
    fit : BayesFit or ClassicalFit
        The fit to go on from.
    data : data frame, optional
        New rows. The rows of the fit when None; of them it has only the columns of its formula.
    priors : mapping of str to Prior, optional
        Priors added to those that the user gave, or in their place; None as a value brings the
        default back.
    formula : str or sequence of str, optional
        A new formula. A ``.`` stands for that side of the old one, as in R's ``update``:
        ``". ~ . + x"``, ``". ~ . - x"``, ``". ~ . - (1 | group)"``, ``"log(y) ~ ."``; ``"sigma ~ .
        + x"`` after a semicolon for a family parameter. Formulas of family parameters that a
        formula with dots does not name stay.
    method : object, optional
        Another method, such as ``hmlm.REML()`` or ``hmlm.NUTS(draws=4000)``.
    random_seed : int, optional
        Seed; that of the fit when None.
    collinear : {"error", "drop"}, optional
        As in `hmlm.Model`; as it was when None.
    progressbar : bool
        Whether to show a progress bar while sampling.

    Returns
    -------
    BayesFit or ClassicalFit
        The new fit. Nothing is compiled for it where the compiled density samples the model.

    Raises
    ------
    HmlmError
        If the new model cannot be read or fitted, or needs columns that the fit does not have.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.refitting import update_fit
    >>> alcohol = hmlm.load_dataset("alcohol")
    >>> fit = hmlm.Model("alcuse ~ coa * time + (time | id)", alcohol).fit(hmlm.REML())
    >>> update_fit(fit, formula=". ~ . - coa:time", method=hmlm.ML()).design.spec.formula
    'alcuse ~ coa * time - coa:time + (time | id)'
    """
    design: Design = fit.design
    spec = design.spec
    chosen = fit.method if method is None else method
    if isinstance(chosen, type) or not hasattr(chosen, "run"):
        raise HmlmError(
            f"method must be a method object such as hmlm.REML() or hmlm.NUTS(draws=1000), not "
            f"{chosen!r:.60}."
        )
    if collinear not in (None, "error", "drop"):
        raise HmlmError(f"collinear is 'error' or 'drop', not {collinear!r}.")
    if priors is not None:
        spec = replace(spec, priors=_changed_priors(spec, priors))
    if formula is not None:
        spec = _changed_formula(spec, formula)
    if formula is None and data is None and collinear is None:
        design = replace(design, spec=spec)
    else:
        missing = "drop" if design.data.held is None else "impute"
        rows = _old_rows(design, spec) if data is None else read_table(spec, data, missing)
        design = make_design(spec, rows, collinear or chosen_collinear(design))
    seed = getattr(fit, "random_seed", None) if random_seed is None else random_seed
    return run_method(chosen, design, seed, progressbar)


def extend_fit(
    fit: Any, draws: int = 1000, random_seed: int | None = None, *, progressbar: bool = True
) -> Any:
    """Draw more from a posterior, on top of the draws that are there.

    Every chain becomes longer by `draws`. The sampler is tuned again, with the settings of the
    fit and from new starting points, for nutpie takes no step size and mass matrix of an earlier
    run; so a chain is two runs one after the other, and R-hat and the other diagnostics, computed
    anew on all draws, compare the runs as well as the chains. The draws that were there, and their
    group effects, stay as they were.

    Parameters
    ----------
    fit : BayesFit
        The fit to go on from.
    draws : int
        Draws to add to each chain.
    random_seed : int, optional
        Seed of the new draws; when None it follows from the seed of the fit and its draws.
    progressbar : bool
        Whether to show a progress bar.

    Returns
    -------
    BayesFit
        All draws in one fit; the old fit is as it was.

    Raises
    ------
    HmlmError
        If the fit has no draws, or the seed has been used in it: the same draws would come again.

    Examples
    --------
    >>> import hmlm
    >>> from hmlm.refitting import extend_fit
    >>> model = hmlm.Model("Reaction ~ Days + (1 | Subject)", hmlm.load_dataset("sleepstudy"))
    >>> fit = model.fit(hmlm.NUTS(draws=200), random_seed=1, progressbar=False)
    >>> extend_fit(fit, draws=300, progressbar=False).variable("beta").shape
    (4, 500, 2)
    """
    if not hasattr(fit, "_runs"):
        raise HmlmError(
            f"{type(fit).__name__} has no draws to add to: fit the model with hmlm.NUTS()."
        )
    chains, n = fit._shape
    # Of a fit that was interrupted, chains that had hardly begun are missing.
    method = replace(fit.method, draws=draws, chains=chains)
    runs = fit._runs
    if not runs:
        raise HmlmError(
            "these draws come from several fits: add draws to each of those before putting them "
            "together."
        )
    used = [seed for seed, _ in runs]
    if random_seed is None:
        random_seed = int(np.random.SeedSequence([*used, n]).generate_state(1)[0])
    seed = check_seed(random_seed)
    if seed in used:
        raise HmlmError(
            f"random_seed={seed} has been used in this fit, so the same draws would come again: "
            "leave it out, or take another."
        )
    design: Design = fit.design
    more = run_method(method, design, seed, progressbar)
    if more._shape[0] < chains:
        raise KeyboardInterrupt(
            f"sampling was interrupted while only {more._shape[0]} of {chains} chains had new "
            "draws: the fit is as it was."
        )
    added = more._shape[1]
    was, now = ([(e.parameter, e.prior) for e in f.priors.entries] for f in (fit, more))
    if was != now or more._parameters.keys() != fit._parameters.keys():
        raise HmlmError(
            "this hmlm samples the model otherwise than the one that made the fit (other default "
            "priors or another sampler), so their draws cannot be put together: fit it again."
        )
    parameters = _joined(fit._parameters, more._parameters)
    stats = _joined(fit._stats, more._stats)
    runs = (*runs, *more._runs)
    made = replace(method, draws=n + added)
    again = "started" if str(made) == "Gibbs" else "tuned"
    note = (
        f"{counted(added, 'draw')} a chain added to {n:,} with random_seed {seed}, the sampler "
        f"{again} again."
    )
    told = [*fit.status.notes, *interruption_notes(fit.status)]
    status = _diagnose_all(design, parameters, stats, made, [*told, note])
    if added < draws:
        status = replace(status, problems=(more.status.problems[0], *status.problems))
    return replace(
        fit,
        method=made,
        status=status,
        seconds=fit.seconds + more.seconds,
        _parameters=parameters,
        _stats=stats,
        _draw_effects=_more_effects(fit, more, parameters, runs),
        _runs=runs,
        _kept={},
    )


def _joined(
    first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Put draws end to end, chain by chain."""
    both = [name for name in first if name in second]
    return {
        name: np.concatenate([np.asarray(first[name]), np.asarray(second[name])], axis=1)
        for name in both
    }


def _more_effects(
    fit: Any, more: Any, parameters: Mapping[str, np.ndarray], runs: tuple[tuple[int, int], ...]
) -> Any:
    """Return what draws the group effects of a longer fit; None where those of the first are gone.

    Effects that come from the parameters are drawn again with their own seeds; others are kept.
    """
    design: Design = fit.design
    if fit._draw_effects is None or more._draw_effects is None:
        return None
    if fit._conditional and more._conditional:
        return lambda: draw_conditional_effects(design, parameters, runs)
    names = [v.name for v in design.variables if v.kind == "group" and v.name not in parameters]
    return lambda: {
        name: np.concatenate([fit.variable(name), more.variable(name)], axis=1) for name in names
    }


def _diagnose_all(
    design: Design,
    parameters: Mapping[str, np.ndarray],
    stats: Mapping[str, np.ndarray],
    method: Any,
    notes: list[str],
) -> Status:
    import xarray as xr

    coords = {k: np.asarray(v, dtype=object) for k, v in design.coords.items()}
    dataset = xr.Dataset(
        {n: (("chain", "draw", *design.dims[n]), values) for n, values in parameters.items()},
        coords={d: coords[d] for n in parameters for d in design.dims[n]},
    )
    status = diagnose(dataset, stats, getattr(method, "max_treedepth", 0), notes)
    problems = tuple(p.replace("hmlm.NUTS(", f"hmlm.{method}(") for p in status.problems)
    return replace(status, problems=problems)


def _changed_priors(spec: ModelSpec, priors: Any) -> dict[str, Any]:
    if not isinstance(priors, Mapping):
        return check_priors(priors)
    given = check_priors({k: v for k, v in priors.items() if v is not None})
    return {k: v for k, v in {**spec.priors, **given}.items() if priors.get(k, v) is not None}


def _old_rows(design: Design, spec: ModelSpec) -> GroupedData:
    """Return the rows of a fit for another formula, with the count of those that it left out."""
    old = design.data
    lacking = [c for c in spec.columns if c not in old.frame]
    if lacking:
        raise DataError(
            f"a fit keeps the columns of its formula only, and '{lacking[0]}' is none of them: "
            "give the table too, as update(data=...)."
        )
    if old.cells is not None:
        known = set(encoded_texts(spec)) <= set(old.cells.encodings)
        if known and spec.outcome == design.spec.outcome and spec.family is design.spec.family:
            return old
        raise DataError(
            f"'{spec.formula}' needs other sums over the table than the fit has: give the table "
            "too, as update(data=...)."
        )
    rows = read_data(spec, old.frame)
    return replace(rows, n_rows=old.n_rows, missing=old.missing, held=old.held)


def _changed_formula(spec: ModelSpec, formula: str | Sequence[str]) -> ModelSpec:
    """Read a new formula, in which dots stand for sides of the old one."""
    pieces = [_sides(text) for text in split_formulas(formula)]
    (old_left, old_right), *old_others = map(_sides, split_formulas(spec.formula))
    others = dict(old_others) if any(map(_has_dot, sum(pieces, ()))) else {}
    left, right = pieces[0]
    found = [f"{_replace_dots(left, old_left)} ~ {_filled(right, old_right)}"]
    for name, side in pieces[1:]:
        if _has_dot(side) and name not in others:
            raise FormulaError(
                f"'{name}' had no formula that '.' could stand for: write '{name} ~ x'."
            )
        others[name] = _filled(side, others.get(name, ""))
    found += [f"{name} ~ {side}" for name, side in others.items()]
    again = parse_formula(found, spec.family, spec.priors, spec.weights)
    return replace(again, pooling=spec.pooling)


def _sides(formula: str) -> tuple[str, str]:
    """Return what stands before and after the '~' of a formula."""
    left, tilde, right = formula.partition("~")
    if not tilde or not left.strip() or not right.strip():
        raise FormulaError(
            f"a formula has '~' with something on both sides, as '. ~ . + x'; see '{formula}'."
        )
    return left.strip(), right.strip()


def _has_dot(side: str) -> bool:
    return _MARK in _replace_dots(side, _MARK)


def _replace_dots(side: str, by: str) -> str:
    return _DOT.sub(lambda found: found[1] or by, side)


def _filled(side: str, old: str) -> str:
    """Put the old right side in the place of a dot, and take out of it what is subtracted."""
    try:
        pieces = _summands(_replace_dots(side, _MARK))
    except FormulaError as error:
        raise FormulaError(str(error).replace(_MARK, ".")) from error
    if ("-", _MARK) in pieces or any(_MARK in text and text != _MARK for _, text in pieces):
        raise FormulaError(f"'.' is a term of its own, as in '. ~ . + x': see '{side}'.")
    if ("+", _MARK) not in pieces:
        return side
    kept = _summands(old)
    added: list[tuple[str, str]] = []
    for sign, text in pieces:
        if text == _MARK:
            continue
        if sign == "-" and _is_group_term(text):
            for term in _group_terms(text):
                if ("+", term) not in kept:
                    raise FormulaError(f"there is no {term} in '{old}' to take out.")
                kept.remove(("+", term))
        elif sign == "-" and ("+", text) in kept:
            kept.remove(("+", text))
        else:
            added.append((sign, text))
    terms = [*kept, *added] or [("+", "1")]
    return " ".join(f"{sign} {text}" for sign, text in terms).removeprefix("+ ")


def _summands(side: str) -> list[tuple[str, str]]:
    """Split one side at its signs; group terms are written out in full."""
    found: list[tuple[str, str]] = []
    for sign, piece in split_sum(scan_formula(side), side):
        text = write(piece)
        terms = _group_terms(text) if _is_group_term(text) and sign == "+" else [text]
        found += [(sign, term) for term in terms]
    return found


def _is_group_term(text: str) -> bool:
    return text.startswith("(") and text.endswith(")") and "|" in text


def _group_terms(text: str) -> list[str]:
    return [str(term) for term in parse_formula(f"{_MARK} ~ {text}").group_terms]
