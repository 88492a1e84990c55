"""The No-U-Turn sampler, on the compiled density or on the PyMC model."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from hmlm.default_priors import ResolvedPriors, resolve_priors
from hmlm.design import Design
from hmlm.errors import HmlmError
from hmlm.fitting.bayes_fit import BayesFit
from hmlm.fitting.conditional_effects import LARGEST_INTEGRATED_REST, draw_conditional_effects
from hmlm.fitting.diagnostics import diagnose
from hmlm.fitting.interruption import Interruption, SamplingInterrupted
from hmlm.fitting.settings import check_seed, check_whole
from hmlm.likelihoods.gaussian import gaussian_sums, known_sigma2
from hmlm.likelihoods.optimum import best_point
from hmlm.likelihoods.threads import one_blas_thread

SETTINGS_AT_LEAST = {"draws": 1, "tune": 0, "chains": 1, "cores": 1, "max_treedepth": 1}


@dataclass(frozen=True, kw_only=True, slots=True)
class NUTS:
    """The No-U-Turn sampler (Hoffman & Gelman 2014), run by nutpie.

    Gaussian models are sampled on a compiled density with the group effects integrated out, and
    the effects are then drawn exactly from their conditional distribution: nothing is compiled for
    a model, there is no funnel, and draws are nearly independent. Other families, and parameters
    with formulas of their own, are sampled on a compiled density of their rows, in which each
    group's effects are centred as far as its own rows determine them. What neither covers is
    sampled from the PyMC model itself; `status` says which road was taken.

    Parameters
    ----------
    draws, tune : int
        Draws kept, and spent on adaptation, for each chain.
    chains : int
        Number of chains.
    cores : int, optional
        Chains that run at the same time; as many as there are processors when None.
    target_accept : float
        Mean acceptance probability that the step size aims at.
    max_treedepth : int
        A trajectory has at most 2^max_treedepth steps.
    engine : {"auto", "kernel", "pymc"}
        The compiled density where it covers the model and PyMC elsewhere, or one of them.
    centered : bool or mapping of str to bool, optional
        How sampled group effects are written, for all factors or by name; when None by how much
        the data say about each group.

    Raises
    ------
    HmlmError
        If a setting is out of range, or the kernel is asked for a model that it does not cover.

    Examples
    --------
    >>> import hmlm
    >>> sleep = hmlm.load_dataset("sleepstudy")
    >>> model = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep)
    >>> fit = model.fit(hmlm.NUTS(draws=500), random_seed=1, progressbar=False)
    >>> fit.draws["posterior"]["beta"].shape
    (4, 500, 2)
    """

    draws: int = 1000
    tune: int = 1000
    chains: int = 4
    cores: int | None = None
    target_accept: float = 0.9
    max_treedepth: int = 10
    engine: Literal["auto", "kernel", "pymc"] = "auto"
    centered: bool | Mapping[str, bool] | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        check_whole(self, SETTINGS_AT_LEAST)
        if not 0 < self.target_accept < 1:
            raise HmlmError(
                f"target_accept must lie between 0 and 1, such as 0.9, not {self.target_accept!r}."
            )
        if self.engine not in ("auto", "kernel", "pymc"):
            raise HmlmError(f"engine is 'auto', 'kernel' or 'pymc', not {self.engine!r}.")

    def __str__(self) -> str:
        """Return the name of the method."""
        return "NUTS"

    def run(
        self, design: Design, *, random_seed: int | None = None, progressbar: bool = True
    ) -> BayesFit:
        """Sample the posterior of a design.

        Parameters
        ----------
        design : Design
            The model.
        random_seed : int, optional
            Seed; the same seed gives the same draws.
        progressbar : bool
            Whether to show a progress bar.

        Raises
        ------
        SamplingInterrupted
            If it is interrupted after tuning: a KeyboardInterrupt that has the fit of what was
            drawn, which `Model.fit` returns.
        """
        priors = resolve_priors(design)
        seed = check_seed(random_seed)
        why_not = "engine='pymc'"
        if self.engine != "pymc":
            from hmlm.likelihoods.glmm_pack import rows_cover
            from hmlm.likelihoods.posterior import kernel_covers

            if not kernel_covers(design, priors):
                return self._run_kernel(design, priors, seed, progressbar)
            why_not = rows_cover(design, priors)
            if not why_not:
                return self._run_rows(design, priors, seed, progressbar)
            if self.engine == "kernel":
                raise HmlmError(
                    f"the compiled density does not cover this model: {why_not}. Use "
                    "hmlm.NUTS(engine='auto')."
                )
        return self._run_pymc(design, priors, seed, progressbar, why_not)

    def _run_kernel(
        self, design: Design, priors: ResolvedPriors, seed: int, progressbar: bool
    ) -> BayesFit:
        """Sample the compiled density, then complete the draws with exact group effects."""
        began = time.perf_counter()
        with one_blas_thread():
            sums = gaussian_sums(design, LARGEST_INTEGRATED_REST)
            point, theta, _ = best_point(sums, reml=True, sigma2=known_sigma2(design))
        from hmlm.fitting.kernel_sampler import load_kernel
        from hmlm.likelihoods.posterior import pack

        posterior = pack(design, sums, priors, theta, point, self._by_name(design))
        load_kernel(progressbar)
        raw = self._sample(posterior, seed, progressbar)
        parameters = {k: np.ascontiguousarray(v) for k, v in posterior.parameters(raw.x).items()}

        def effects() -> dict[str, np.ndarray]:
            runs = [(seed, raw.x.shape[1])]
            return draw_conditional_effects(design, parameters, runs, sums)

        route = "" if raw.route == "compiled" else ", through Python callbacks"
        what = " with group effects integrated out" if design.blocks else ""
        if posterior.sampled:
            forms = {True: "centred", False: "not centred"}
            words = ", ".join(f"{b.block.group} ({forms[b.centred]})" for b in posterior.sampled)
            fine = posterior.blocks[0].group
            what = f" with the effects of {fine} integrated out and those of {words} sampled"
        note = f"Sampled on the compiled density{what}{route}."
        return self._finish(
            design,
            priors,
            seed,
            parameters,
            raw.stats,
            began,
            [note],
            effects,
            None,
            raw.stopped,
            conditional=True,
        )

    def _run_rows(
        self, design: Design, priors: ResolvedPriors, seed: int, progressbar: bool
    ) -> BayesFit:
        """Sample the compiled density of rows, in which group effects are coordinates."""
        began = time.perf_counter()
        from hmlm.fitting.kernel_sampler import load_kernel
        from hmlm.likelihoods.glmm_pack import pack_rows
        from hmlm.likelihoods.preliminary import preliminary
        from hmlm.likelihoods.rows import make_rows

        rows = make_rows(design)
        load_kernel(progressbar, rows=True)
        with one_blas_thread():
            found = preliminary(design, rows, priors)
            posterior = pack_rows(design, rows, priors, found, self._by_name(design))
        raw = self._sample(posterior, seed, progressbar)
        shape = raw.x.shape[:2]

        def effects() -> dict[str, np.ndarray]:
            drawn = posterior.effects(raw.x.reshape(-1, posterior.dim))
            shaped = {k: v.reshape(*shape, *v.shape[1:]) for k, v in drawn.items()}
            return {k: np.ascontiguousarray(v) for k, v in shaped.items()}

        route = "" if raw.route == "compiled" else ", through Python callbacks"
        merged = ""
        if len(rows.y) < rows.merged:
            merged = f", {rows.merged:,} rows merged into {len(rows.y):,}"
        notes = [f"Sampled on the compiled density{merged}{route}."]
        notes += [block.description for block in posterior.blocks]
        # Without pooling there may be nothing but the groups' own coefficients.
        parameters = posterior.parameters(raw.x) or effects()
        return self._finish(
            design, priors, seed, parameters, raw.stats, began, notes, effects, None, raw.stopped
        )

    def _sample(self, posterior: Any, seed: int, progressbar: bool) -> Any:
        from hmlm.fitting.kernel_sampler import sample_kernel

        return sample_kernel(
            posterior,
            draws=self.draws,
            tune=self.tune,
            chains=self.chains,
            cores=self.cores,
            target_accept=self.target_accept,
            max_treedepth=self.max_treedepth,
            random_seed=seed,
            progressbar=progressbar,
        )

    def _by_name(self, design: Design) -> dict[str, bool]:
        """Return `centered` by factor, empty where it is chosen."""
        if self.centered is None:
            return {}
        if isinstance(self.centered, bool):
            return {b.group: self.centered for b in design.blocks}
        return dict(self.centered)

    def _run_pymc(
        self,
        design: Design,
        priors: ResolvedPriors,
        seed: int,
        progressbar: bool,
        why: str,
    ) -> BayesFit:
        from hmlm.fitting.kernel_sampler import chains_of_interrupt, cut_chains
        from hmlm.models.build import build_model, resolve_centered

        began = time.perf_counter()
        centered = resolve_centered(design, self.centered)
        model = build_model(design, priors, centered)
        import nutpie

        compiled = nutpie.compile_pymc_model(model)
        with warnings.catch_warnings():
            # A grouping factor may be called "sample", which ArviZ keeps for itself.
            warnings.filterwarnings("ignore", message="Found dimension named 'sample'")
            tree = nutpie.sample(
                compiled,
                draws=self.draws,
                tune=self.tune,
                chains=self.chains,
                cores=self.cores,
                seed=seed,
                progress_bar=progressbar,
                save_warmup=False,
                target_accept=self.target_accept,
                maxdepth=self.max_treedepth,
            )
        posterior, stats = tree["posterior"].dataset, tree["sample_stats"].dataset
        stopped = chains_of_interrupt(stats, self.draws)
        if stopped is not None:
            posterior, stats = cut_chains(posterior, stopped), cut_chains(stats, stopped)
        parameters = {name: posterior[name].to_numpy() for name in design.dims}
        notes = [f"Sampled from the PyMC model ({why})."]
        if centered:
            words = ", ".join(f"{g} {'' if c else 'not '}centred" for g, c in centered.items())
            chosen = "" if self.centered is not None else ", by how much the data say about each"
            notes.append(f"Group effects: {words}{chosen}.")
        return self._finish(
            design, priors, seed, parameters, stats, began, notes, None, centered, stopped
        )

    def _finish(
        self,
        design: Design,
        priors: ResolvedPriors,
        seed: int,
        parameters: Mapping[str, np.ndarray],
        sample_stats: Any,
        began: float,
        notes: list[str],
        effects: Any,
        centered: Any,
        stopped: Interruption | None,
        conditional: bool = False,
    ) -> BayesFit:
        import xarray as xr

        seconds = time.perf_counter() - began
        kept = ("diverging", "energy", "depth", "n_steps", "step_size", "logp", "tree_depth")
        stats = {k: sample_stats[k].to_numpy() for k in kept if k in sample_stats}
        coords = {k: np.asarray(v, dtype=object) for k, v in design.coords.items()}
        dataset = xr.Dataset(
            {
                name: (("chain", "draw", *design.dims[name]), values)
                for name, values in parameters.items()
            },
            coords={d: coords[d] for name in parameters for d in design.dims[name]},
        )
        fit = BayesFit(
            design=design,
            method=self,
            priors=priors,
            status=diagnose(dataset, stats, self.max_treedepth, [*notes, *design.notes]),
            random_seed=seed,
            seconds=seconds,
            _parameters=parameters,
            _stats=stats,
            _draw_effects=effects,
            _centered=centered,
            _runs=((seed, stats["logp"].shape[1]),),
            _conditional=conditional,
        )
        if stopped is None:
            return fit
        raise SamplingInterrupted(stopped.note, replace(fit, status=stopped.mark(fit.status)))
