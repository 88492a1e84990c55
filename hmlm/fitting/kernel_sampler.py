"""NUTS on the compiled density: nutpie runs it with no Python in the loop and nothing compiled.

nutpie hands raw function pointers to its sampler when it has compiled a PyMC model. The same
entry, which is private, takes hmlm's own pointers; `tests/test_kernel_sampler.py` holds its
contract. Where it has changed, the public entry for Python callbacks is used instead.
"""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from hmlm.errors import HmlmError
from hmlm.fitting.interruption import Interruption, find_interruption
from hmlm.likelihoods.glmm_posterior import RowPosterior
from hmlm.likelihoods.posterior import Posterior

AnyPosterior = Posterior | RowPosterior


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class RawDraws:
    """Draws in the sampler's coordinates.

    Attributes
    ----------
    x : ndarray, shape (chains, draws, dim)
        Coordinates.
    stats : xarray.Dataset
        Statistics of the sampler, by chain and draw.
    route : str
        "compiled", or "callback" where nutpie's private entry was not to be had.
    stopped : Interruption or None
        How far the chains were where sampling was interrupted; x and stats are cut accordingly.
    """

    x: np.ndarray
    stats: Any
    route: str
    stopped: Interruption | None = None


def load_kernel(tell: bool, rows: bool = False) -> None:
    """Load a compiled density; say so where Numba has to compile it first.

    Machine code is kept on disk, so this happens once on a machine, and again after an upgrade.

    Parameters
    ----------
    tell : bool
        Whether to say what is happening when it takes more than a moment.
    rows : bool
        The density of rows rather than that of sums.
    """
    message = "hmlm compiles its sampler: once on this machine, half a minute or so."
    timer = threading.Timer(2.0, print, args=(message,), kwargs={"flush": True})
    if tell:
        timer.start()
    try:
        if rows:
            import hmlm.likelihoods.glmm_density
        else:
            import hmlm.likelihoods.density  # noqa: F401
    finally:
        timer.cancel()


def compiled_model(posterior: AnyPosterior, spread: float = 0.5) -> Any:
    """Return a nutpie model that calls the compiled density by its address."""
    import pandas as pd
    from nutpie import _lib
    from nutpie.sample import CompiledModel

    logp, expand = posterior.addresses
    n = posterior.dim
    start = posterior.start

    def initial_point(seed: int) -> np.ndarray:
        return start + np.random.default_rng(seed).uniform(-spread, spread, n)

    class KernelModel(CompiledModel):
        @property
        def n_dim(self) -> int:
            return n

        @property
        def shapes(self) -> dict[str, tuple[int, ...]]:
            return {"x": (n,)}

        @property
        def coords(self) -> dict[str, Any]:
            return {}

        def _make_model(self, init_mean: Any) -> Any:
            data = posterior.buffer.ctypes.data
            return _lib.PyMcModel(
                _lib.LogpFunc(logp, data, posterior),
                _lib.ExpandFunc(n, n, expand, data, posterior),
                _lib.PyVariable.new_variables(
                    ["x"], ["float64"], [(n,)], {"coordinate": n}, {"x": ("coordinate",)}
                ),
                n,
                {"coordinate": n},
                {"coordinate": pd.RangeIndex(n)},
                initial_point,
                lambda *args, **kwargs: None,
            )

        def _make_sampler(self, settings: Any, init_mean: Any, cores: Any, *rest: Any) -> Any:
            return _lib.PySampler.from_pymc(settings, cores, self._make_model(init_mean), *rest)

    return dataclasses.dataclass(frozen=True)(KernelModel)(dims={})


def callback_model(posterior: AnyPosterior, spread: float = 0.5) -> Any:
    """Return a nutpie model that calls the density through Python: slower, but public."""
    from nutpie.compiled_pyfunc import from_pyfunc

    n = posterior.dim

    def make_logp() -> Any:
        return lambda x: posterior.log_density(np.asarray(x, dtype=float))

    def make_expand(seed1: Any, seed2: Any, chain: Any) -> Any:
        return lambda x: {"x": np.array(x, dtype=float)}

    def initial_point(seed: int) -> np.ndarray:
        return posterior.start + np.random.default_rng(seed).uniform(-spread, spread, n)

    return from_pyfunc(
        n,
        make_logp,
        make_expand,
        [np.dtype("float64")],
        [(n,)],
        ["x"],
        make_initial_point_fn=initial_point,
    )


def has_private_entry() -> bool:
    """Whether nutpie still has the entry that takes function pointers."""
    from nutpie import _lib

    names = ("PyMcModel", "LogpFunc", "ExpandFunc", "PyVariable", "PySampler")
    return all(hasattr(_lib, name) for name in names) and hasattr(_lib.PySampler, "from_pymc")


def sample_kernel(
    posterior: AnyPosterior,
    *,
    draws: int,
    tune: int,
    chains: int,
    cores: int | None,
    target_accept: float,
    max_treedepth: int,
    random_seed: int | None,
    progressbar: bool,
    route: str | None = None,
) -> RawDraws:
    """Draw from a posterior with NUTS.

    Parameters
    ----------
    posterior : Posterior
        What to sample.
    draws, tune, chains, cores, target_accept, max_treedepth
        As in `NUTS`.
    random_seed : int or None
        Seed.
    progressbar : bool
        Whether nutpie shows its progress bar.
    route : {"compiled", "callback"}, optional
        Which of nutpie's entries to use; the compiled one when None, if it is there.

    Returns
    -------
    RawDraws
        Coordinates and statistics; after an interrupt, of what had been drawn.

    Raises
    ------
    KeyboardInterrupt
        If sampling is interrupted before there are draws of use.
    """
    import nutpie

    if route is None:
        route = "compiled" if has_private_entry() else "callback"
    model = (compiled_model if route == "compiled" else callback_model)(posterior)
    try:
        tree = nutpie.sample(
            model,
            draws=draws,
            tune=tune,
            chains=chains,
            cores=cores,
            seed=random_seed,
            progress_bar=progressbar,
            save_warmup=False,
            target_accept=target_accept,
            maxdepth=max_treedepth,
        )
    except RuntimeError as error:
        raise HmlmError(
            f"the sampler could not go on: {error}. Often the mean has values that the family "
            "cannot have at most coefficients (an inverse or identity link): use a log link, "
            "centre and scale the predictors, or give tighter priors."
        ) from error
    x, stats = tree["posterior"]["x"], tree["sample_stats"].dataset
    stopped = chains_of_interrupt(stats, draws)
    if stopped is not None:
        x, stats = cut_chains(x, stopped), cut_chains(stats, stopped)
    return RawDraws(x=x.to_numpy(), stats=stats, route=route, stopped=stopped)


def chains_of_interrupt(stats: Any, draws: int) -> Interruption | None:
    """Say how far the chains were, None where they are complete.

    nutpie takes an interrupt for itself, and returns chains that end in blanks.
    """
    return find_interruption((~np.isnan(stats["logp"].to_numpy())).sum(axis=1), draws)


def cut_chains(values: Any, stopped: Interruption) -> Any:
    """Return the draws of an xarray object that an interruption leaves."""
    return values.isel(chain=list(stopped.kept), draw=slice(stopped.n))
