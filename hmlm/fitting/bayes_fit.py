"""The result of sampling a posterior."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from hmlm.default_priors import ResolvedPriors
from hmlm.design import Block, Design, find_block
from hmlm.errors import HmlmError
from hmlm.estimates import Numbers, Scale, line_lead, tidy_table, total_lead
from hmlm.fitting.diagnostics import convergence
from hmlm.fitting.fit_methods import FitMethods
from hmlm.group_rows import row_shares
from hmlm.new_rows import Groups, new_rows
from hmlm.prediction import Kind, expected_rows, predict_bayes
from hmlm.status import Status
from hmlm.summaries import Summary, bayes_summary
from hmlm.version import __version__

if TYPE_CHECKING:
    import pymc as pm
    import xarray as xr


LARGEST_VARIABLE = 2**28
MOST_CHECKED = 5_000


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class BayesFit(FitMethods):
    """Draws from the posterior of a model.

    Attributes
    ----------
    design : Design
        What was fitted.
    method : object
        The method and its settings.
    priors : ResolvedPriors
        The prior of every parameter.
    status : Status
        Divergences, R-hat, effective sample sizes and what to do about them, in sentences.
    random_seed : int or None
        The seed.
    seconds : float
        How long sampling took.
    """

    design: Design
    method: Any
    priors: ResolvedPriors
    status: Status
    random_seed: int | None
    seconds: float
    _parameters: Mapping[str, np.ndarray]
    _stats: Mapping[str, np.ndarray]
    _draw_effects: Callable[[], Mapping[str, np.ndarray]] | None = None
    _centered: Any = None
    _runs: tuple[tuple[int, int], ...] = ()  # seed, and draws a chain, of each run of the sampler
    _conditional: bool = False  # group effects can be drawn again from parameters and seeds
    _kept: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Lay draws out in one way, so that saved ones give the same sums to the last bit."""
        laid = {k: np.ascontiguousarray(v) for k, v in self._parameters.items()}
        object.__setattr__(self, "_parameters", laid)

    @property
    def model(self) -> pm.Model:
        """The same density as a PyMC model, built at the first access."""
        if "model" not in self._kept:
            from hmlm.models.build import build_model

            self._kept["model"] = build_model(self.design, self.priors, self._centered)
        model: pm.Model = self._kept["model"]
        return model

    @property
    def draws(self) -> xr.DataTree:
        """All draws, as the DataTree that ArviZ takes; the first access draws the group effects.

        Effects of so many groups that their draws would take more than 2 GiB are left out.
        """
        if "draws" not in self._kept:
            self._kept["draws"] = self._make_draws()
        draws: xr.DataTree = self._kept["draws"]
        return draws

    def variable(self, name: str) -> np.ndarray:
        """Return the draws of one variable, shape (chains, draws, ...)."""
        if name not in self._parameters and name in self.design.dims:
            if self._too_many(name):
                size = self._size(name) * 8 / 2**30
                raise HmlmError(
                    f"the draws of '{name}' would take {size:,.0f} GiB. Draw fewer, as "
                    "hmlm.NUTS(draws=100), or leave the groups out with groups=False."
                )
            if "effects" not in self._kept:
                if self._draw_effects is None:
                    raise HmlmError(
                        f"the draws of '{name}' were not saved with this fit, and cannot be had "
                        "without sampling again: save it with effects=True, or leave the groups "
                        "out with groups=False."
                    )
                self._kept["effects"] = self._draw_effects()
            effects: Mapping[str, np.ndarray] = self._kept["effects"]
            return effects[name]
        return self._parameters[name]

    @property
    def _shape(self) -> tuple[int, int]:
        """Number of chains, and of draws of each."""
        # Not from a parameter: a model may have group effects only, drawn when asked for.
        chains, n = next(iter(self._stats.values())).shape[:2]
        return chains, n

    def _size(self, name: str) -> int:
        """Return how many numbers the draws of one variable are."""
        chains, n = self._shape
        return chains * n * math.prod(len(self.design.coords[d]) for d in self.design.dims[name])

    def _too_many(self, name: str) -> bool:
        """Whether group effects are too many for memory, so that `draws` leaves them out."""
        return name not in self._parameters and self._size(name) > LARGEST_VARIABLE

    def _left_out(self, name: str) -> bool:
        """Whether `draws` goes without group effects: too many, or not saved."""
        unsaved = name not in self._parameters and self._draw_effects is None
        return unsaved or self._too_many(name)

    def _make_draws(self) -> xr.DataTree:
        import xarray as xr

        design = self.design
        chains, n = self._shape
        base = {"chain": np.arange(chains), "draw": np.arange(n)}
        dims = {name: d for name, d in design.dims.items() if not self._left_out(name)}
        used = {d for ds in dims.values() for d in ds}
        coords = {**base, **{d: _plain(v) for d, v in design.coords.items() if d in used}}
        attrs = {
            "creation_library": "hmlm",
            "creation_library_version": __version__,
            "inference_library": str(self.method),
            "formula": design.spec.formula,
            "random_seed": str(self.random_seed),
            "sampling_time": self.seconds,
            "sample_dims": ["chain", "draw"],
        }
        posterior = xr.Dataset(
            {name: (("chain", "draw", *dims[name]), self.variable(name)) for name in dims},
            coords=coords,
            attrs=attrs,
        )
        stats = xr.Dataset(
            {name: (("chain", "draw"), values) for name, values in self._stats.items()},
            coords=base,
            attrs=attrs,
        )
        found = {"posterior": posterior, "sample_stats": stats}
        if design.cells is None:  # else there are no rows to show
            rows = {"row": np.asarray(design.coords["row"])}
            found["observed_data"] = xr.Dataset(
                {"y": (("row",), design.y)}, coords=rows, attrs=attrs
            )
        return xr.DataTree.from_dict(found)

    def _quantity(self, name: str) -> np.ndarray:
        """Draws of a variable, or of the totals or lines of a grouping factor."""
        kind, _, group = name.partition("_")
        if name in self.design.dims or kind not in ("total", "line", "mean"):
            return self.variable(name)
        block = find_block(self.design, group)
        if kind == "mean":
            return self._group_means(block)
        if self.design.spec.pooling == "complete":
            chains, n = self._shape
            effects = np.zeros((chains, n, len(block.levels), len(block.columns)))
        else:
            effects = self.variable(f"b_{group}")
        if self.design.spec.pooling == "none" or not self.design.terms:
            return effects
        lead = line_lead(self.design, block) if kind == "line" else None
        beta = self.variable("beta")
        if lead is None:
            return effects + (beta @ total_lead(self.design, block).T)[:, :, None, :]
        return effects + np.einsum("cdp,jqp->cdjq", beta, lead, optimize=True)

    def _group_means(self, block: Block) -> np.ndarray:
        """Draws of the average expected outcome of each level's rows, shape (chains, draws, J)."""
        weight, total = row_shares(self.design, block)
        rows = new_rows(self.design, None, "include", cells=True)
        posterior = self._flat_draws("include")
        n_draws, J = len(next(iter(posterior.values()))), len(block.levels)
        sums = np.zeros((n_draws, J))
        for part, mu in expected_rows(self.design, posterior, rows):
            own = block.index[part]
            by = np.ones(len(own)) if weight is None else weight[part]
            member = sparse.csr_array((by, (np.arange(len(own)), own)), (len(own), J))
            sums += mu @ member
        return (sums / total).reshape(*self._shape, J)

    def _flat_draws(self, groups: Groups) -> dict[str, np.ndarray]:
        """Return draws by variable, the chains put together."""
        found = {}
        for variable in self.design.variables:
            if groups == "include" or variable.kind != "group":
                values = self.variable(variable.name)
                found[variable.name] = values.reshape(-1, *values.shape[2:])
        return found

    def describe(self, name: str, prob: float, ratio: bool = False) -> Numbers:
        """Return mean, sd, interval and convergence of one variable, totals or lines.

        Convergence is left blank for more than 5,000 numbers at once. With `ratio`, the draws are
        exponentiated.
        """
        key = f"{name} at {prob}{' as ratio' if ratio else ''}"
        if key not in self._kept:
            draws = self._quantity(name)
            if ratio:
                draws = np.exp(draws)
            tails = np.quantile(draws, [0.5 - prob / 2, 0.5 + prob / 2], axis=(0, 1))
            found = {} if draws[0, 0].size > MOST_CHECKED else convergence(draws)
            self._kept[key] = Numbers(
                estimate=draws.mean(axis=(0, 1)),
                std_error=draws.std(axis=(0, 1), ddof=1),
                lower=tails[0],
                upper=tails[1],
                interval="eti",
                ess_bulk=found.get("ess_bulk"),
                r_hat=found.get("r_hat"),
            )
        numbers: Numbers = self._kept[key]
        return numbers

    def tidy(self, prob: float = 0.95, groups: bool = True, scale: Scale = "link") -> pd.DataFrame:
        """Return every estimate in one tidy table; see `hmlm.tidy`."""
        return tidy_table(self, prob, groups, scale)

    def summary(self, prob: float = 0.95) -> Summary:
        """Return posterior means, sds, intervals and convergence, for terminal and notebook."""
        return bayes_summary(self, prob)

    def predict(
        self,
        new_data: Any = None,
        kind: Kind = "mean",
        groups: Groups = "include",
        random_seed: int | None = None,
        prob: float = 0.95,
    ) -> pd.DataFrame:
        """Predict the outcome of the rows of the fit, or of new rows.

        Parameters
        ----------
        new_data : data frame, optional
            New rows; those of the fit when None.
        kind : {"mean", "linear", "response"}
            The expected outcome (a probability where there are trials; for categories, one
            each), the linear predictor (of a categorical outcome one for each category but the
            first), or a new observation (of categories, whether it is this one).
        groups : {"include", "population", "new", "average"} or mapping of str to one of these
            Known groups by their effects (unknown ones are refused); every group at the
            population, with effects of zero; every group as a new one: drawn from N(0, D), its
            effects correlated, the same in all rows of the group; or the expected outcome averaged
            over such groups. A mapping says so by grouping factor, and includes those that it
            does not name: ``{"school:class": "new"}`` are new classes of known schools. The
            average is exact under identity, log and probit links, else by Gauss-Hermite
            quadrature in every draw.
        random_seed : int, optional
            Seed of the draws of new groups and observations.
        prob : float
            Probability of the equal-tailed interval.

        Returns
        -------
        pandas.DataFrame
            Columns ``estimate`` (mean of the draws), ``std_error`` (their sd), ``lower`` and
            ``upper``, a row for each row; with ``category`` as another column, and a row for each
            category, where there are such.

        Raises
        ------
        HmlmError
            If a level is unknown, a column is missing, or the model has no population of groups.

        Examples
        --------
        >>> import hmlm
        >>> eight = hmlm.load_dataset("eight_schools")
        >>> model = hmlm.Model("y ~ 1 + (1 | school)", eight, se="sigma")
        >>> fit = model.fit(hmlm.NUTS(draws=200, tune=200), random_seed=1, progressbar=False)
        >>> new = fit.predict({"school": ["I"]}, groups="new", random_seed=2)
        >>> list(new.columns)
        ['estimate', 'std_error', 'lower', 'upper']
        """
        return predict_bayes(self, new_data, kind, groups, prob, random_seed)

    def extend(
        self, draws: int = 1000, random_seed: int | None = None, progressbar: bool = True
    ) -> BayesFit:
        """Return the fit with more draws in each chain; see `hmlm.extend_fit`.

        Parameters
        ----------
        draws : int
            How many more.
        random_seed : int, optional
            Seed; another than that of the fit.
        progressbar : bool
            Whether to show a progress bar.
        """
        from hmlm.refitting import extend_fit

        return extend_fit(self, draws, random_seed, progressbar=progressbar)

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    def __str__(self) -> str:
        """Return the summary as text."""
        return str(self.summary())

    def __repr__(self) -> str:
        """Return one line: the model, the method, the number of draws."""
        chains, n = self._shape
        return f"<BayesFit {self.design.spec.formula!r} by {self.method}: {chains} x {n} draws>"


def _plain(values: Any) -> np.ndarray:
    """Coordinates as plain numbers or text, so that results can be saved."""
    array = np.asarray(values)
    return array.astype(str) if array.dtype == object else array
