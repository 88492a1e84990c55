"""Time another package on one task in this process, and print the figures as JSON."""

from __future__ import annotations

import time

BEGAN = time.perf_counter()

import json  # noqa: E402
import resource  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402


def bambi(name: str, repeats: int) -> dict[str, float]:
    """Time Bambi with nutpie; its (x | g) has no correlation."""
    from tasks import FAMILIES, MODELS, table

    frame = table(name)
    formula, family = FAMILIES[name][:2] if name in FAMILIES else (MODELS[name][1], "gaussian")
    ready = time.perf_counter() - BEGAN
    import arviz
    import bambi as bmb

    seconds, first = [], 0.0
    for k in range(1 + repeats):
        start = time.perf_counter()
        model = bmb.Model(formula, frame, family=family)
        draws = model.fit(
            draws=1000,
            tune=1000,
            chains=4,
            random_seed=1 + k,
            progressbar=False,
            inference_method="nutpie",
        )
        seconds.append(time.perf_counter() - start)
        if k == 0:
            first = time.perf_counter() - BEGAN - ready
    posterior = draws["posterior"]
    posterior = getattr(posterior, "dataset", posterior)
    kept = [v for v in posterior.data_vars if "|" not in v or v.endswith("_sigma")]
    ess = arviz.ess(posterior[kept])
    worst = min(float(ess[v].min()) for v in kept)
    return {
        "seconds": statistics.median(seconds[1:]),
        "first": first,
        "ess": worst,
        "divergences": float(draws["sample_stats"]["diverging"].sum()),
    }


def mixedlm(name: str, repeats: int) -> dict[str, float]:
    """Time mixedlm's lmer."""
    import mixedlm as package
    from tasks import MODELS, table

    frame = table(name)
    seconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        fit = package.lmer(MODELS[name][1], frame, REML=True)
        seconds.append(time.perf_counter() - start)
    value = str(fit.logLik()).split("(")[0].replace("'log Lik.'", "")
    return {"seconds": statistics.median(seconds[1:]), "log_likelihood": float(value)}


def statsmodels(name: str, repeats: int) -> dict[str, float]:
    """Time statsmodels' MixedLM, where it has the model: one factor."""
    import statsmodels.formula.api as smf
    from tasks import MODELS, table

    if name != "sleepstudy":
        raise SystemExit("statsmodels has no nested or crossed factors in practice")
    frame = table(name)
    del MODELS
    seconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        fit = smf.mixedlm(
            "Reaction ~ Days", frame, groups=frame["Subject"], re_formula="~Days"
        ).fit(reml=True)
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds[1:]), "log_likelihood": float(fit.llf)}


def large(package: str, table: str, path: str) -> dict[str, float]:
    """Time a package on a table of many rows, which it takes as a pandas data frame."""
    import pandas as pd
    from large_tables import FORMULAS

    start = time.perf_counter()
    frame = pd.read_parquet(path)
    read = time.perf_counter() - start
    print(f"read in {read:.1f} s", file=sys.stderr, flush=True)
    formula = FORMULAS[table]
    found = {"read": read}
    start = time.perf_counter()
    if package == "bambi":
        import bambi as bmb

        bmb.Model(formula, frame).fit(
            draws=1000,
            tune=1000,
            chains=4,
            random_seed=1,
            progressbar=False,
            inference_method="nutpie",
        )
    elif package == "mixedlm":
        import mixedlm as lme

        value = str(lme.lmer(formula, frame, REML=True).logLik())
        found["log_likelihood"] = float(value.split("(")[0].replace("'log Lik.'", ""))
    else:
        import statsmodels.formula.api as smf

        fixed, random = formula.rsplit(" + (", 1)
        slopes = "~" + random.split(" | ")[0]
        model = smf.mixedlm(fixed, frame, groups=frame["g"], re_formula=slopes)
        found["log_likelihood"] = float(model.fit(reml=True).llf)
    return {**found, "seconds": time.perf_counter() - start}


def imports(module: str) -> dict[str, float]:
    """Time an import."""
    start = time.perf_counter()
    __import__(module)
    return {"seconds": time.perf_counter() - start}


def main() -> None:
    """Run the task that the arguments name."""
    package, *arguments = sys.argv[1:]
    numbers = [int(a) if a.isdigit() else a for a in arguments]
    found = {
        "bambi": bambi,
        "mixedlm": mixedlm,
        "statsmodels": statsmodels,
        "large": large,
        "imports": imports,
    }[package](*numbers)  # type: ignore[operator]
    found["gigabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps(found))


if __name__ == "__main__":
    main()
