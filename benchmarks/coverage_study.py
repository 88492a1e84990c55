"""Coverage of 90% intervals: how often they hold a true value that is the same in every data set.

    python benchmarks/coverage_study.py [--simulations N] [--seed SEED]

Writes docs/trust/coverage.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import hmlm
from hmlm.design import Design
from hmlm.given_parameters import complete_parameters
from hmlm.simulation import draw_simulations, plan_design, with_outcome
from hmlm.simulation_runs import Seeds, Task, failure, run_simulations

PAGE = Path(__file__).resolve().parent.parent / "docs" / "trust" / "coverage.md"
PROB = 0.90
SIMULATIONS = 1000
LEAST, MOST = 0.87, 0.93  # between which the coverage of coefficients is to lie
SIZES = (2, 2, 3, 3, 4, 4, 5, 6, 8, 9)
COEFFICIENTS = "population"


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Plan:
    """Rows and true values of a study."""

    name: str
    formula: str
    frame: pd.DataFrame
    truth: Mapping[str, float]

    def design(self) -> Design:
        """Return the design, with an outcome to be replaced."""
        return plan_design(self.formula, self.frame)


def plans() -> list[Plan]:
    """Return a balanced study like sleepstudy, and a small unbalanced one."""
    sleep = hmlm.load_dataset("sleepstudy")
    g = np.repeat(np.arange(len(SIZES)), SIZES)
    small = pd.DataFrame(
        {
            "g": [f"g{k}" for k in g],
            "x": np.random.default_rng(1).standard_normal(len(g)).round(2),
            "z": (g % 2).astype(float),
        }
    )
    return [
        Plan(
            name="18 groups of 10",
            formula="Reaction ~ Days + (Days | Subject)",
            frame=sleep,
            truth={
                "Intercept": 250.0,
                "Days": 10.0,
                "sd_Subject[Intercept]": 25.0,
                "sd_Subject[Days]": 6.0,
                "cor_Subject[Intercept, Days]": 0.1,
                "sigma": 25.0,
            },
        ),
        Plan(
            name="10 groups of 2 to 9",
            formula="y ~ x + z + (1 | g)",
            frame=small,
            truth={"Intercept": 1.0, "x": 0.5, "z": 0.5, "sd_g[Intercept]": 0.8, "sigma": 1.0},
        ),
    ]


def _wald(df: Any) -> Callable[[Design, int], pd.DataFrame]:
    def table(design: Design, seed: int) -> pd.DataFrame:
        return hmlm.REML(df=df).run(design).confint("wald", prob=PROB)

    return table


def _profile(design: Design, seed: int) -> pd.DataFrame:
    return hmlm.ML().run(design).confint("profile", prob=PROB)


def _profile_t(design: Design, seed: int) -> pd.DataFrame:
    fit = hmlm.REML(df="satterthwaite").run(design)
    return fit.confint("profile-t", prob=PROB, parameters=fit.design.terms)


def _sampled(design: Design, seed: int) -> pd.DataFrame:
    method = hmlm.NUTS(draws=500, tune=500, chains=1, cores=1, engine="kernel")
    return method.run(design, random_seed=seed, progressbar=False).tidy(PROB, groups=False)


METHODS: Mapping[str, Callable[[Design, int], pd.DataFrame]] = {
    "NUTS": _sampled,
    "REML": _wald("auto"),
    "REML, Satterthwaite": _wald("satterthwaite"),
    "REML, Kenward-Roger": _wald("kenward-roger"),
    "profile": _profile,
    "profile-t": _profile_t,
}
# Where groups are few the others promise more than they keep, and the page says how much.
HELD = ("NUTS", "REML, Satterthwaite", "REML, Kenward-Roger", "profile-t")


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Work:
    """Simulates outcomes of a plan and makes the intervals of every method."""

    plan: Plan

    def __call__(self, seeds: Seeds) -> list[list[dict[str, Any]]]:
        """Return the intervals of each seed."""
        design = self.plan.design()
        return [self.one(design, np.random.default_rng(seed)) for seed in seeds]

    def one(self, design: Design, rng: np.random.Generator) -> list[dict[str, Any]]:
        """Return one row for each method and parameter, or what failed."""
        y, _ = draw_simulations(design, complete_parameters(design, self.plan.truth), rng)
        simulated, seed = with_outcome(design, y[0]), int(rng.integers(2**31))
        rows: list[dict[str, Any]] = []
        for method, intervals in METHODS.items():
            try:
                table = intervals(simulated, seed)
            except (ValueError, ArithmeticError, np.linalg.LinAlgError, RuntimeError) as error:
                rows.append({"method": method, "reason": failure(error)})
                continue
            for at in table.itertuples():
                name = _name(at.component, at.group, at.term)
                rows.append(
                    {
                        "method": method,
                        "component": at.component,
                        "parameter": name,
                        "lower": at.lower,
                        "upper": at.upper,
                        "truth": self.plan.truth[name],
                        "reason": "",
                    }
                )
        return rows


def _name(component: str, group: str, term: str) -> str:
    return f"{component}_{group}[{term}]" if component in ("sd", "cor") else term


def summarize(plan: Plan, records: Sequence[Sequence[Mapping[str, Any]]]) -> pd.DataFrame:
    """Return coverage, its Monte Carlo error and the mean width, by parameter and method."""
    table = pd.DataFrame([row for record in records for row in record])
    table = table[(table["reason"] == "") & table["lower"].notna() & table["upper"].notna()]
    table["held"] = (table["lower"] <= table["truth"]) & (table["truth"] <= table["upper"])
    table["width"] = table["upper"] - table["lower"]
    keys = ["component", "parameter", "method"]
    found = table.groupby(keys, sort=False).agg(
        n=("held", "size"), coverage=("held", "mean"), width=("width", "mean")
    )
    found["error"] = np.sqrt(found["coverage"] * (1 - found["coverage"]) / found["n"])
    found = found.reset_index()
    found.insert(0, "plan", plan.name)
    return found


def failures(records: Sequence[Sequence[Mapping[str, Any]]]) -> pd.Series:
    """Return how many fits of each method failed."""
    table = pd.DataFrame([row for record in records for row in record])
    return table.loc[table["reason"] != "", "method"].value_counts()


def grid(found: pd.DataFrame, plan: Plan, cell: Callable[[Any], str]) -> str:
    """Return a Markdown table of one plan: parameters down, methods across."""
    lines = [
        "| parameter | truth | " + " | ".join(METHODS) + " |",
        "| --- | --: | " + " | ".join("--:" for _ in METHODS) + " |",
    ]
    by = {(at.parameter, at.method): at for at in found.itertuples() if at.plan == plan.name}
    for name, value in plan.truth.items():
        cells = [cell(by[name, m]) if (name, m) in by else "" for m in METHODS]
        lines.append(f"| `{name}` | {value:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def coverage_cell(at: Any) -> str:
    """Return the coverage in percent and its Monte Carlo error."""
    return f"{100 * at.coverage:.1f} ± {100 * at.error:.1f}"


def width_cell(at: Any) -> str:
    """Return the mean width of the intervals."""
    return f"{at.width:.3g}"


PREFACE = """\
# Coverage of intervals

How often do {prob:.0%} intervals hold the true value? The true values below are the same in all
{n:,} data sets of a study; group effects and residuals are drawn anew for each. That is what
intervals of REML and of the profile likelihood promise. It is not what a posterior promises, whose
intervals hold {prob:.0%} of true values drawn from the prior (see
[simulation-based calibration](#simulation-based-calibration)); where the prior is wide beside the
likelihood they come near it all the same.

    make sbc        # {command}

{verdict}
"""

READING = """\
## How to read this

Coverage in percent, plus or minus its Monte Carlo error, the square root of p (1 - p) / n: of an
interval that holds the truth in exactly {prob:.0%} of data sets, {n:,} of them say {prob:.0%} plus
or minus {error:.1f}.

- `NUTS`: {prob:.0%} equal-tailed intervals of 500 draws of one chain, with the default priors,
  which are scaled by the outcome of each data set (`hmlm.Model(...).priors`); correlations have an
  LKJ prior with eta 2, whose mode is no correlation.
- `REML`: coefficients plus or minus a quantile of the t distribution, with the default degrees of
  freedom (the rule of nlme: those of the level within which a predictor varies).
- `REML, Satterthwaite` and `REML, Kenward-Roger`: `hmlm.REML(df="satterthwaite")` and
  `hmlm.REML(df="kenward-roger")`; sds have no Wald intervals, and their cells are blank.
- `profile`: `fit.confint("profile")`, the likelihood of ML; `profile-t`:
  `fit.confint("profile-t")` of a fit with Satterthwaite's degrees of freedom. A correlation has no
  interval where an sd is estimated as zero; its coverage is that of the others.

{failed} Seed {seed}.
"""


def page_of(
    found: pd.DataFrame, all_plans: Sequence[Plan], n: int, seed: int, failed: str, command: str
) -> str:
    """Return the page."""
    parts = [PREFACE.format(prob=PROB, n=n, command=command, verdict=verdict(found)[0])]
    for plan in all_plans:
        parts.append(f"## {plan.name}\n\n`{plan.formula}`, {len(plan.frame)} rows.\n")
        parts.append(grid(found, plan, coverage_cell) + "\n\nMean width of the intervals:\n")
        parts.append(grid(found, plan, width_cell) + "\n")
    error = 100 * np.sqrt(PROB * (1 - PROB) / n)
    parts.append(READING.format(prob=PROB, n=n, error=error, failed=failed, seed=seed))
    return "\n".join(parts)


def verdict(found: pd.DataFrame) -> tuple[str, bool]:
    """Say between which values coefficients are covered, and whether those of `HELD` are near."""
    fixed = found[found["component"] == COEFFICIENTS]
    parts = []
    for method in METHODS:
        own = fixed.loc[fixed["method"] == method, "coverage"]
        parts.append(f"{method} {100 * own.min():.1f} to {100 * own.max():.1f}%")
    far = fixed[~fixed["coverage"].between(LEAST, MOST)]
    broken = far["method"].isin(HELD)
    text = f"Coefficients are covered in: {'; '.join(parts)}."
    for rows, words in ((far[broken], "Not as it should be"), (far[~broken], EXPECTED)):
        if len(rows):
            text += f" {words}: {'; '.join(_outside(at) for at in rows.itertuples())}."
    return text, not broken.any()


EXPECTED = (
    f"Outside of {LEAST:.0%} to {MOST:.0%}, as is to be expected with ten groups (the rule of nlme "
    "gives an intercept the degrees of freedom of rows, not of groups; the normal quantile of a "
    "profile knows none)"
)


def _outside(at: Any) -> str:
    return f"`{at.parameter}` by {at.method} in {at.plan} ({100 * at.coverage:.1f}%)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study; return 1 where the coverage of a coefficient is not near its promise."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--simulations", type=int, default=SIMULATIONS)
    parser.add_argument("--seed", type=int, default=2015)
    chosen = parser.parse_args(arguments)
    began = time.perf_counter()
    studied = plans()
    streams = np.random.SeedSequence(chosen.seed).spawn(len(studied))
    tasks = [
        Task(work=Work(plan=plan), seeds=stream.spawn(chosen.simulations))
        for plan, stream in zip(studied, streams, strict=True)
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as executor:
        records = run_simulations(
            tasks, executor, at_once=20, label="Coverage", progressbar=sys.stderr.isatty()
        )
    found = pd.concat([summarize(p, r) for p, r in zip(studied, records, strict=True)])
    counts = failures([record for r in records for record in r])
    failed = "No fit failed."
    if len(counts):
        failed = "Fits that failed: " + ", ".join(f"{m} {k}" for m, k in counts.items()) + "."
    print(found.round(3).to_string(index=False))
    said, right = verdict(found)
    print(f"{said} {failed} {time.perf_counter() - began:.0f} s.")
    command = "python benchmarks/coverage_study.py"
    command += f" --simulations {chosen.simulations}" if chosen.simulations != SIMULATIONS else ""
    command += f" --seed {chosen.seed}" if chosen.seed != 2015 else ""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    page = page_of(found, studied, chosen.simulations, chosen.seed, failed, command)
    PAGE.write_text(page, encoding="utf-8")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
