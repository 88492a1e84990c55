"""Time hmlm on one task in this process, and print the figures as JSON."""

from __future__ import annotations

import time

BEGAN = time.perf_counter()

import json  # noqa: E402
import resource  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402


def posterior(name: str, repeats: int) -> dict[str, float]:
    """Time the first fit of the process, imports included, and later ones."""
    from tasks import FAMILIES, MODELS, table

    frame = table(name)
    formula, family = FAMILIES[name][:2] if name in FAMILIES else (MODELS[name][1], "gaussian")
    ready = time.perf_counter() - BEGAN
    import hmlm

    seconds, first = [], 0.0
    for k in range(1 + repeats):
        start = time.perf_counter()
        model = hmlm.Model(formula, frame, family=family)
        fit = model.fit(random_seed=1 + k, progressbar=False)
        fit.draws  # noqa: B018
        seconds.append(time.perf_counter() - start)
        if k == 0:
            first = time.perf_counter() - BEGAN - ready
    numbers = fit.status.numbers
    return {
        "seconds": statistics.median(seconds[1:]),
        "first": first,
        "ess": numbers["min_ess_bulk"],
        "divergences": numbers["divergences"],
    }


def reml(name: str, repeats: int) -> dict[str, float]:
    """Time REML, formula and frame included."""
    from tasks import MODELS, table

    import hmlm

    frame = table(name)
    seconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        fit = hmlm.Model(MODELS[name][1], frame).fit(hmlm.REML())
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds[1:]), "log_likelihood": fit.log_likelihood}


def laplace(name: str, repeats: int) -> dict[str, float]:
    """Time Laplace's approximation, formula and frame included."""
    from tasks import FAMILIES, table

    import hmlm

    frame = table(name)
    formula, family = FAMILIES[name][:2]
    seconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        fit = hmlm.Model(formula, frame, family=family).fit(hmlm.Laplace())
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds[1:]), "log_likelihood": fit.log_likelihood}


def poisson(groups: int, rows: int) -> dict[str, float]:
    """Time the posterior of Poisson counts whose predictors are categorical."""
    from tasks import counts

    import hmlm

    frame = counts(groups, rows)
    start = time.perf_counter()
    model = hmlm.Model("count ~ a + b + (1 | g)", frame, family="poisson")
    fit = model.fit(random_seed=1, progressbar=False)
    return {
        "seconds": time.perf_counter() - start,
        "ess": fit.status.numbers["min_ess_bulk"],
        "divergences": fit.status.numbers["divergences"],
    }


def large(groups: int, rows: int) -> dict[str, float]:
    """Time REML and the posterior of many groups; with `rows`, of a continuous slope."""
    from tasks import continuous, waves

    import hmlm

    frame = continuous(groups, rows) if rows else waves(groups)
    formula = "y ~ x + (x | g)" if rows else "y ~ wave + (wave | g)"
    start = time.perf_counter()
    model = hmlm.Model(formula, frame)
    model.fit(hmlm.REML())
    middle = time.perf_counter()
    fit = model.fit(random_seed=1, progressbar=False)
    return {
        "rows": len(frame),
        "reml": middle - start,
        "posterior": time.perf_counter() - middle,
        "ess": fit.status.numbers["min_ess_bulk"],
        "divergences": fit.status.numbers["divergences"],
    }


def aggregate(table: str, path: str) -> dict[str, float]:
    """Time a model of a Parquet file, or of a polars frame, that is fitted from sums."""
    from large_tables import FORMULAS

    import hmlm

    data: object = path
    read = 0.0
    if table == "predictors":
        import polars as pl

        start = time.perf_counter()
        data = pl.read_parquet(path)
        read = time.perf_counter() - start
    limit = "1GiB" if table == "waves" else None
    marks, used = [time.perf_counter()], [time.process_time()]

    def mark() -> None:
        marks.append(time.perf_counter())
        used.append(time.process_time())

    model = hmlm.Model(FORMULAS[table], data, aggregate=True, memory_limit=limit)
    mark()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    point = model.fit(hmlm.REML())
    mark()
    fit = model.fit(random_seed=1, progressbar=False)
    fit.draws  # noqa: B018
    mark()
    found = {"read": read, "model_gigabytes": peak, "log_likelihood": point.log_likelihood}
    for k, stage in enumerate(("model", "reml", "posterior")):
        found[stage] = marks[k + 1] - marks[k]
        found[f"{stage}_cpu"] = used[k + 1] - used[k]
    return {
        **found,
        "ess": fit.status.numbers["min_ess_bulk"],
        "divergences": fit.status.numbers["divergences"],
    }


def density(formula: str, groups: int, rows: int) -> dict[str, float]:
    """Time one evaluation of log density and gradient: the least of seven, free of neighbours."""
    import numpy as np
    import pandas as pd

    import hmlm
    from hmlm.default_priors import resolve_priors
    from hmlm.likelihoods.density import log_density
    from hmlm.likelihoods.gaussian import gaussian_sums
    from hmlm.likelihoods.optimum import best_point
    from hmlm.likelihoods.posterior import pack

    rng = np.random.default_rng(0)
    g = np.arange(rows) % groups
    frame = pd.DataFrame({"g": g, "x": (np.arange(rows) // groups) % 10})
    frame["y"] = rng.normal(size=groups)[g] + 0.1 * frame["x"] + rng.normal(size=rows)
    design = hmlm.Model(formula, frame).design
    sums = gaussian_sums(design)
    point, theta, _ = best_point(sums, reml=True)
    packed = pack(design, sums, resolve_priors(design), theta, point)
    gradient = np.empty(packed.dim)
    timings = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(200):
            log_density(packed.start, packed.buffer, gradient)
        timings.append((time.perf_counter() - start) / 200)
    return {"microseconds": 1e6 * min(timings)}


def imports(module: str) -> dict[str, float]:
    """Time an import."""
    start = time.perf_counter()
    __import__(module)
    return {"seconds": time.perf_counter() - start}


def main() -> None:
    """Run the task that the arguments name."""
    task, *arguments = sys.argv[1:]
    numbers = [int(a) if a.isdigit() else a for a in arguments]
    found = {
        "posterior": posterior,
        "reml": reml,
        "laplace": laplace,
        "poisson": poisson,
        "large": large,
        "aggregate": aggregate,
        "density": density,
        "imports": imports,
    }[task](*numbers)  # type: ignore[operator]
    found["gigabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps(found))


if __name__ == "__main__":
    main()
