"""The user's door: a formula and a table become a model that can be built and fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hmlm.data import GroupedData
from hmlm.design import Design, make_design
from hmlm.errors import HmlmError
from hmlm.families import Family
from hmlm.fitting.interruption import run_method
from hmlm.formula import parse_formula
from hmlm.spec import ModelSpec, with_pooling, with_priors
from hmlm.tables_read import read_table

if TYPE_CHECKING:
    import pandas as pd
    import pymc as pm

    from hmlm.default_priors import ResolvedPriors


class Model:
    """A hierarchical model of one table.

    Parameters
    ----------
    formula : str or sequence of str
        The model in lme4's notation, for example ``"y ~ x + (x | group)"``; see
        `hmlm.formula.parse_formula`. A count out of trials is ``p(successes, trials)``. A family
        parameter may have a formula of its own: ``"y ~ x + (1 | group); sigma ~ x"``.
    data : data frame, lazy frame, relation or path
        The rows: a pandas, polars or other table in memory; or one that may be larger than memory:
        a polars LazyFrame, a DuckDB relation, a Dask or PySpark data frame, or the path or glob of
        Parquet or CSV files. Rows with a missing value in a column of the formula are left out and
        counted in ``status``.
    family : str or Family
        Family of the outcome: gaussian, student-t, bernoulli, binomial, beta-binomial, poisson,
        negative-binomial, gamma, lognormal, beta, ordinal, categorical, or a zero-inflated or
        hurdle model of counts; see `hmlm.families.FAMILIES`.
    priors : mapping of str to Prior, optional
        Priors that replace the defaults, distributions of PyMC and PreliZ among them; see
        `with_priors`.
    link : str, optional
        Link of the family; its default when None.
    weights : str, optional
        Column of positive weights: the residual variance of a row is sigma^2 / weight.
    se : str, optional
        Column of known standard errors of a gaussian outcome (a meta-analysis); the same as
        ``se(y, column)`` before the ``~``.
    collinear : {"error", "drop"}
        Refuse predictors that depend on earlier ones, or drop them as lme4 does.
    missing : {"drop", "impute"}
        Leave rows with missing values out, or keep those aside whose outcome alone is missing, to
        be predicted by `hmlm.predict_missing`. Other gaps: see `hmlm.impute_fit`.
    aggregate : {"auto", True, False}
        Fit from sums over the rows, which are all that the likelihood depends on, made where the
        data are: a gaussian model takes the products of its columns within groups, others how
        often each combination of values occurs. "auto" does so for tables that may be larger than
        memory; False reads the columns of the formula into memory.
    memory_limit : str, optional
        How much memory DuckDB may take to read files, and sums or merged rows, as ``"1GiB"``.

    Raises
    ------
    ValueError
        If the formula cannot be read, or the data cannot bear the model; the message names column,
        rows and the next step.

    Examples
    --------
    >>> import hmlm
    >>> alcohol = hmlm.load_dataset("alcohol")
    >>> model = hmlm.Model("alcuse ~ coa + peer + time + (time | id)", alcohol)
    >>> reml = model.fit(hmlm.REML())
    >>> round(reml.aic, 4), round(reml.log_likelihood, 4)
    (619.7211, -301.8606)
    """

    def __init__(
        self,
        formula: str | Sequence[str],
        data: Any,
        family: str | Family = "gaussian",
        priors: Mapping[str, Any] | None = None,
        *,
        link: str | None = None,
        weights: str | None = None,
        se: str | None = None,
        collinear: str = "error",
        missing: str = "drop",
        aggregate: bool | str = "auto",
        memory_limit: str | None = None,
    ) -> None:
        if collinear not in ("error", "drop"):
            raise HmlmError(f"collinear is 'error' or 'drop', not {collinear!r}.")
        named: tuple[tuple[str, Any], ...] = (("weights", weights), ("se", se))
        for name, column in named:
            if column is not None and (not isinstance(column, str) or not column):
                raise HmlmError(f"{name} is the name of a column, not {column!r:.60}.")
        spec = parse_formula(formula, family, priors, weights, link, se)
        table = read_table(spec, data, missing, aggregate, memory_limit)
        self._set(spec, table, collinear)
        if spec.priors:
            self._resolved()

    def _set(self, spec: ModelSpec, data: GroupedData, collinear: str) -> None:
        self._spec = spec
        self._data = data
        self._collinear = collinear
        self._design = make_design(spec, data, collinear)
        self._priors: ResolvedPriors | None = None

    def _with(self, spec: ModelSpec) -> Model:
        other = object.__new__(Model)
        other._set(spec, self._data, self._collinear)
        return other

    @property
    def spec(self) -> ModelSpec:
        """What to fit."""
        return self._spec

    @property
    def data(self) -> GroupedData:
        """The rows used, with the levels and index of every grouping factor."""
        return self._data

    @property
    def design(self) -> Design:
        """Arrays and coordinates."""
        return self._design

    @property
    def priors(self) -> pd.DataFrame:
        """The prior of every parameter, with its source."""
        return self._resolved().table()

    def _resolved(self) -> ResolvedPriors:
        from hmlm.default_priors import resolve_priors

        if self._priors is None:
            self._priors = resolve_priors(self._design)
        return self._priors

    def with_pooling(self, pooling: str) -> Model:
        """Return the same model under another pooling.

        Parameters
        ----------
        pooling : {"complete", "none", "partial"}
            Ignore the groups; fit each on its own; or let them share a distribution.

        Examples
        --------
        >>> import hmlm
        >>> model = hmlm.Model("Reaction ~ Days + (1 | Subject)", hmlm.load_dataset("sleepstudy"))
        >>> model.with_pooling("complete").design.blocks
        ()
        """
        return self._with(with_pooling(self._spec, pooling))

    def with_priors(self, **priors: Any) -> Model:
        """Return the same model with other priors.

        Parameters
        ----------
        **priors : Prior
            By term name; `sd` and `cor` for all group terms, `sd_<group>` and `cor_<group>` for
            one; `sigma` for the residual. Names that are no Python words go through
            ``**{"a:b": ...}``.

        Examples
        --------
        >>> import hmlm
        >>> model = hmlm.Model("Reaction ~ Days + (1 | Subject)", hmlm.load_dataset("sleepstudy"))
        >>> tight = model.with_priors(Days=hmlm.Prior("normal", mu=0, sigma=5))
        >>> tight.spec.priors["Days"]
        Prior('normal', mu=0, sigma=5)
        """
        other = self._with(with_priors(self._spec, priors))
        other._resolved()
        return other

    def build(self, centered: bool | Mapping[str, bool] | None = None) -> pm.Model:
        """Return the model as a PyMC model, with dims and coords by the names of the table.

        Parameters
        ----------
        centered : bool or mapping of str to bool, optional
            Whether group effects are written in their centred form, for all grouping factors or
            by name; chosen by how much the data say about each group when None.

        Returns
        -------
        pymc.Model
            The specification: readable, and open to extension.
        """
        from hmlm.models.build import build_model

        return build_model(self._design, self._resolved(), centered=centered)

    def fit(
        self, method: Any = None, random_seed: int | None = None, progressbar: bool = True
    ) -> Any:
        """Fit the model.

        Parameters
        ----------
        method : object, optional
            `hmlm.NUTS()` (the default); for gaussian models `hmlm.REML()`, `hmlm.ML()`,
            `hmlm.OLS()`, `hmlm.EM()` or `hmlm.Gibbs()`; for other families `hmlm.Laplace()` and
            `hmlm.GLM()`.
        random_seed : int, optional
            Seed, for draws that can be had again.
        progressbar : bool
            Whether to show a progress bar while sampling.

        Returns
        -------
        BayesFit or ClassicalFit
            Draws or estimates, with `.status`, `.summary()` and `.predict()`. Sampling that is
            interrupted (Ctrl-C) after tuning gives a fit of what was drawn, whose status says so.
        """
        return run_method(chosen_method(method), self._design, random_seed, progressbar)

    def imply_priors(self, prob: float = 0.9, random_seed: int | None = None) -> pd.DataFrame:
        """Say the priors as what they imply; see `hmlm.imply_priors`.

        Parameters
        ----------
        prob : float
            Probability of the intervals.
        random_seed : int, optional
            Seed of the draws.
        """
        from hmlm.implied_priors import imply_priors

        return imply_priors(self, prob=prob, random_seed=random_seed)

    def draw_prior_predictive(self, draws: int = 500, random_seed: int | None = None) -> Any:
        """Draw parameters and outcomes from the prior; see `hmlm.draw_prior_predictive`.

        Parameters
        ----------
        draws : int
            Number of draws.
        random_seed : int, optional
            Their seed.
        """
        from hmlm.prior_draws import draw_prior_predictive

        return draw_prior_predictive(self, draws=draws, random_seed=random_seed)

    def sensitivity(self, fit: Any = None, random_seed: int | None = None) -> pd.DataFrame:
        """Say which parameters the prior drives, by power-scaling; see `hmlm.measure_sensitivity`.

        Parameters
        ----------
        fit : BayesFit, optional
            A posterior of this model; sampled here when None.
        random_seed : int, optional
            Seed of the sampler.
        """
        from hmlm.sensitivity import measure_sensitivity

        if fit is None:
            fit = self.fit(random_seed=random_seed, progressbar=False)
        return measure_sensitivity(fit)

    def simulate(
        self, parameters: Mapping[str, Any], random_seed: int | None = None, n: int = 1
    ) -> Any:
        """Simulate outcomes of the rows from given parameters; see `hmlm.simulate_outcomes`.

        Parameters
        ----------
        parameters : mapping of str to array
            By name: ``beta``, ``sd_<group>``, ``sigma`` and so on, whole or one by one.
        random_seed : int, optional
            Seed.
        n : int
            How many data sets.
        """
        from hmlm.simulation import simulate_outcomes

        return simulate_outcomes(self, parameters, random_seed=random_seed, n=n)

    def graph(self) -> Any:
        """Draw the model as a graph: graphviz where its `dot` is installed, Mermaid otherwise."""
        from hmlm.graph import draw_graph

        return draw_graph(self.build())

    def to_latex(self) -> str:
        """Return the equations of the model in LaTeX."""
        from hmlm.equations import model_latex

        return model_latex(self._design, self._resolved())

    def __str__(self) -> str:
        """Return equations, groups and priors as text."""
        from hmlm.equations import model_text

        return model_text(self._design, self._resolved())

    def __repr__(self) -> str:
        """Return equations, groups and priors as text."""
        return str(self)

    def _repr_html_(self) -> str:
        from hmlm.equations import model_html

        return model_html(self._design, self._resolved())


def chosen_method(method: Any) -> Any:
    """Return a method, `NUTS()` when None; refuse what is none."""
    if method is None:
        from hmlm.fitting.nuts import NUTS

        return NUTS()
    if isinstance(method, type) or not hasattr(method, "run"):
        raise HmlmError(
            f"method must be a method object such as hmlm.REML() or hmlm.NUTS(draws=1000), not "
            f"{method!r:.60}."
        )
    return method
