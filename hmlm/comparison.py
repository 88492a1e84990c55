"""Fits side by side: posteriors next to classical estimates, a join and never a renaming."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from hmlm.design import Design, make_design
from hmlm.errors import HmlmError, listed
from hmlm.estimates import RATIOS, Scale, tidy_table
from hmlm.families import Family
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.fitting.classical_fit import ClassicalFit
from hmlm.fitting.classical_methods import classical_methods
from hmlm.fitting.maximum_likelihood import REML
from hmlm.fitting.nuts import NUTS
from hmlm.fitting.ols import MAX_DUMMIES
from hmlm.formula import parse_formula
from hmlm.spec import with_pooling
from hmlm.tables import Table, number
from hmlm.tables_read import read_table

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYS = ["component", "group", "level", "term"]
ORDER = ("cutpoint", "population", "sd", "cor", "residual", "total", "line", "mean", "group")
SHOWN_GROUP_ROWS = 12


class Comparison(pd.DataFrame):
    """One row a parameter, one block of columns a fit.

    A `pandas.DataFrame` with the index ``component, group, level, term`` and the columns
    ``(fit, figure)``, that prints as one table. `tidy` holds the same in the long form.
    """

    _metadata = ["fits"]  # noqa: RUF012
    fits: list[pd.DataFrame]

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    @property
    def tidy(self) -> pd.DataFrame:
        """The same figures in the long form of `hmlm.tidy`: one row a parameter and fit."""
        return pd.concat(self.fits, ignore_index=True)

    def table(self, group_rows: int | None = SHOWN_GROUP_ROWS) -> Table:
        """Return the table that is printed.

        Parameters
        ----------
        group_rows : int or None
            How many rows of groups to show at most; all of them when None.
        """
        return _table(self, group_rows)

    def __str__(self) -> str:
        """Return the printed table."""
        return str(self.table())

    def __repr__(self) -> str:
        """Return the printed table."""
        return str(self)

    def _repr_html_(self) -> str:
        return self.table().to_html()

    def to_markdown(self, *args: Any, **kwargs: Any) -> str:  # type: ignore[override]
        """Return the table in Markdown, with `group_rows` as in `table`."""
        return _write(self.table(kwargs.get("group_rows", SHOWN_GROUP_ROWS)).to_markdown(), args)

    def to_latex(self, *args: Any, **kwargs: Any) -> str:  # type: ignore[override]
        """Return the table in LaTeX, with `group_rows` as in `table`."""
        return _write(self.table(kwargs.get("group_rows", SHOWN_GROUP_ROWS)).to_latex(), args)


def _write(text: str, places: Sequence[Any]) -> str:
    for place in places:
        with open(place, "w", encoding="utf-8") as file:
            file.write(text)
    return text


def compare(
    *fits: BayesFit | ClassicalFit,
    prob: float = 0.95,
    groups: bool = True,
    scale: Scale = "link",
) -> Comparison:
    """Put fits side by side in one table.

    Parameters
    ----------
    *fits : BayesFit or ClassicalFit
        Two or more fits, or one; of the same outcome.
    prob : float
        Probability of the intervals.
    groups : bool
        Whether to add the totals of every group under each fit.
    scale : {"link", "ratio", "response"}
        Coefficients and totals as they are; as odds ratios or rate ratios; or, instead of totals,
        the average expected outcome of every group. See `hmlm.tidy`.

    Returns
    -------
    Comparison
        A data frame with one row a parameter. Printed, it shows population coefficients, sds,
        correlations and the residual, then the groups' totals.

    Raises
    ------
    HmlmError
        If there is no fit, if the outcomes differ, or if REML likelihoods with different fixed
        effects would stand side by side.

    Examples
    --------
    >>> import hmlm
    >>> model = hmlm.Model("Reaction ~ Days + (Days | Subject)", hmlm.load_dataset("sleepstudy"))
    >>> pooled = model.with_pooling("complete").fit(hmlm.OLS())
    >>> table = hmlm.compare(model.fit(hmlm.REML()), pooled, groups=False)
    >>> slope = table["REML"].loc[("population", "", "", "Days")]
    >>> slope[["estimate", "std_error"]].round(3).tolist()
    [10.467, 1.546]
    """
    if not fits:
        raise HmlmError("compare needs at least one fit.")
    outcomes = list(dict.fromkeys(f.design.spec.outcome for f in fits))
    if len(outcomes) > 1:
        raise HmlmError(f"fits of different outcomes do not compare: {listed(outcomes)}.")
    if len({f.design.n_rows for f in fits}) > 1:
        rows = listed(f"{f.label}: {f.design.n_rows:,}" for f in fits)
        raise HmlmError(
            f"the fits use different numbers of rows ({rows}): fit them to the same complete rows."
        )
    restricted = [f for f in fits if isinstance(f.method, REML) or getattr(f.method, "reml", False)]
    if len({f.design.terms for f in restricted}) > 1:
        raise HmlmError(
            "REML likelihoods of models with different fixed effects are those of different data "
            "and do not compare: fit the models with hmlm.ML() instead."
        )
    labels = _labels(fits)
    tables = []
    for fit, label in zip(fits, labels, strict=True):
        table = tidy_table(fit, prob, groups, scale)
        table["fit"] = label
        tables.append(table[table["component"] != "group"] if groups else table)
    tables = _with_lines(tables)
    wide = []
    for fit, table in zip(fits, tables, strict=True):
        figures = ["estimate", "std_error", "lower", "upper"]
        figures += ["ess_bulk", "r_hat"] if isinstance(fit, BayesFit) else ["df", "p_value"]
        block = table.set_index(KEYS)[figures]
        block.columns = pd.MultiIndex.from_product([[table["fit"].iloc[0]], figures])
        wide.append(block)
    place = {c: i for i, c in enumerate(ORDER)}
    seen: dict[tuple[Any, ...], int] = {}
    for table in tables:
        for key in table[KEYS].itertuples(index=False, name=None):
            seen.setdefault(key, len(seen))
    keys = sorted(seen, key=lambda k: (place[k[0]], seen[k]))
    index = pd.MultiIndex.from_tuples(keys, names=KEYS)
    joined = pd.concat([block.reindex(index) for block in wide], axis=1)
    joined.columns.names = ["fit", "figure"]
    result = Comparison(joined)
    object.__setattr__(result, "fits", tables)
    result.attrs = {"formula": fits[0].design.spec.formula, "prob": prob, "scale": scale}
    result.attrs["link"] = fits[0].design.spec.family.link
    return result


def _labels(fits: Sequence[BayesFit | ClassicalFit]) -> list[str]:
    labels: list[str] = []
    for fit in fits:
        label, n = fit.label, 2
        while label in labels:
            label, n = f"{fit.label} ({n})", n + 1
        labels.append(label)
    return labels


def _with_lines(tables: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """Where some fit has lines, give them to the others, whose totals are their lines."""
    if not any((t["component"] == "line").any() for t in tables):
        return tables
    filled = []
    for table in tables:
        if not (table["component"] == "line").any():
            lines = table[table["component"] == "total"].assign(component="line")
            table = pd.concat([table, lines], ignore_index=True)
        filled.append(table)
    return filled


def _table(comparison: Comparison, group_rows: int | None) -> Table:
    labels = list(dict.fromkeys(comparison.columns.get_level_values(0)))
    columns: list[tuple[str, str, str]] = []
    over = [("", 2)]
    for label in labels:
        figures = comparison[label].columns
        bayes = "r_hat" in figures
        heads = (
            [
                ("estimate", "mean"),
                ("std_error", "sd"),
                ("lower", "lower"),
                ("upper", "upper"),
                ("ess_bulk", "ESS"),
                ("r_hat", "R-hat"),
            ]
            if bayes
            else [("estimate", "estimate"), ("std_error", "std.error")]
        )
        columns += [(label, figure, head) for figure, head in heads]
        over.append((label, len(heads)))
    components = comparison.index.get_level_values("component")
    group_kind = next((k for k in ("mean", "line") if (components == k).any()), "total")
    upper = comparison[~components.isin(["total", "line", "mean", "group"])]
    lower = comparison[components == group_kind]
    cut = len(lower) if group_rows is None else min(group_rows, len(lower))
    rows = []
    for part in (upper, lower.iloc[:cut]):
        for key, values in zip(part.index, part.to_dict("records"), strict=True):
            rows.append(
                [
                    *_names(key),
                    *(
                        number(values[(label, figure)], 0 if figure == "ess_bulk" else 3)
                        for label, figure, _ in columns
                    ),
                ]
            )
    notes = []
    if len(lower) > cut:
        notes.append(f"... and {len(lower) - cut:,} more rows of groups: .table(group_rows=None).")
    if len(lower) and group_kind == "line":
        notes.append("Groups: own intercept and slopes, group-level predictors included.")
    elif len(lower) and group_kind == "mean":
        notes.append("Groups: average expected outcome of their rows.")
    elif len(lower):
        notes.append("Groups: population + group effect.")
    if comparison.attrs["scale"] == "ratio":
        what = RATIOS.get(comparison.attrs["link"], "ratios")
        notes.append(f"Coefficients, and those of groups, as {what}.")
    if any(figure == "lower" for _, figure, _ in columns):
        prob = comparison.attrs["prob"]
        notes.append(f"lower, upper: equal-tailed interval of the posterior, {prob:.0%}.")
    return Table(
        header=["", "", *(head for _, _, head in columns)],
        rows=rows,
        title=comparison.attrs["formula"],
        notes=notes,
        left=2,
        over=over,
    )


def _names(key: tuple[Any, ...]) -> tuple[str, str]:
    component, group, level, term = key
    if component == "population":
        return "", term
    if component == "residual":
        return "", term
    if component == "cutpoint":
        return component, term
    if component in ("sd", "cor"):
        return f"{component} {group}", term
    return f"{group} {level}", term


def side_by_side(
    formula: str | Sequence[str],
    data: Any,
    family: str | Family = "gaussian",
    priors: Mapping[str, Any] | None = None,
    random_seed: int | None = None,
    progressbar: bool = True,
    prob: float = 0.95,
    *,
    link: str | None = None,
    se: str | None = None,
    scale: Scale = "link",
    aggregate: bool | str = "auto",
) -> Comparison:
    """Fit a model in every way that applies and put the fits side by side.

    Complete pooling and no pooling by least squares, partial pooling by REML and by NUTS; for
    other families by maximum likelihood (`hmlm.GLM`) and by Laplace's approximation, and where
    there is no classical fit, all three by NUTS. No
    pooling is left out where the rows are too few for it, or the factors too many; one row a group
    is enough where the standard errors of the outcome are known.

    Parameters
    ----------
    formula : str
        The model, in lme4's notation, with at least one group term.
    data : data frame, lazy frame, relation or path
        The table, as of `hmlm.Model`.
    family : str
        Family of the outcome.
    priors : mapping of str to Prior, optional
        Priors for the Bayesian fit.
    random_seed : int, optional
        Seed of the sampler.
    progressbar : bool
        Whether to show a progress bar while sampling.
    prob : float
        Probability of the intervals.
    link : str, optional
        Link of the family; its default when None.
    se : str, optional
        Column of known standard errors of the outcome.
    scale : {"link", "ratio", "response"}
        See `compare`.
    aggregate : {"auto", True, False}
        Whether to fit from sums over the rows; as of `hmlm.Model`.

    Returns
    -------
    Comparison
        See `compare`.
    """
    spec = parse_formula(formula, family, priors, link=link, se=se)
    if not spec.group_terms:
        raise HmlmError(f"'{formula}' has no group term: add one, such as (1 | group).")
    grouped = read_table(spec, data, aggregate=aggregate)
    design = make_design(spec, grouped)
    alone = make_design(with_pooling(spec, "none"), grouped)
    pooled = make_design(with_pooling(spec, "complete"), grouped)
    plain, pooling = classical_methods(design)
    nuts = NUTS()

    def sample(of: Design) -> BayesFit:
        return nuts.run(of, random_seed=random_seed, progressbar=progressbar)

    fits: list[BayesFit | ClassicalFit] = [plain.run(pooled) if plain else sample(pooled)]
    own = sorted(len(b.levels) * len(b.columns) for b in alone.blocks)
    needed = sum(own) + len(alone.terms) + (bool(design.spec.family.scale) and not alone.known_se)
    if alone.n_rows >= needed and sum(own[:-1]) <= MAX_DUMMIES:
        fits.append(plain.run(alone) if plain else sample(alone))
    fits += [pooling.run(design)] if pooling else []
    return compare(*fits, sample(design), prob=prob, scale=scale)
