"""Simulation-based calibration of twelve models: are posteriors right where the truth is known?

    python benchmarks/calibration_suite.py [--only MODEL ...] [--share SHARE] [--seed SEED]

Writes docs/trust/calibration.md and docs/trust/calibration.png when every model has run; with
`--only` it prints the table and leaves the files alone.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from hmlm import NUTS, Prior
from hmlm.calibration import LOG_LIKELIHOOD, Calibration, calibrate
from hmlm.palette import BLUE, GREY, VERMILION
from hmlm.rank_uniformity import rank_band
from hmlm.study import make_study

PAGE = Path(__file__).resolve().parent.parent / "docs" / "trust" / "calibration.md"
PROB = 0.99
FEWEST = 20
METHOD = NUTS(draws=500, tune=500, chains=1, cores=1)

UNIT = Prior("normal", sigma=1)
SMALL = Prior("normal", sigma=0.5)
HALF = Prior("half-normal", sigma=1)
HALF_SMALL = Prior("half-normal", sigma=0.5)
SHAPE = Prior("gamma", alpha=4, beta=2)
LKJ = Prior("lkj", eta=2)

GAUSSIAN = {"Intercept": UNIT, "x": UNIT, "sd": HALF, "sigma": HALF}
LOGIT = {"Intercept": UNIT, "x": UNIT, "sd": HALF}
LOG = {"Intercept": UNIT, "x": SMALL, "sd": HALF_SMALL}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A model of the suite, and the rows that its outcomes are simulated in."""

    name: str
    formula: str
    frame: pd.DataFrame
    priors: Mapping[str, Prior]
    n_simulations: int
    family: str = "gaussian"
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def written(self) -> str:
        """The model as it is asked for."""
        return ", ".join([self.formula, *(f"{k}={v}" for k, v in self.options.items())])


def one_factor(groups: int = 8, rows: int = 5) -> pd.DataFrame:
    """Groups of one size with a predictor that varies within them."""
    study = make_study(groups={"g": groups}, per_group=rows, predictors={"x": "normal"})
    return study.make_frame(1)


def nested() -> pd.DataFrame:
    """Five groups of three, four rows each."""
    study = make_study(groups={"a": 5, "b": 3}, per_group=4, predictors={"x": "normal"})
    return study.make_frame(1)


def crossed() -> pd.DataFrame:
    """Every pair of eight and six levels once."""
    frame = pd.MultiIndex.from_product([range(8), range(6)], names=["a", "b"]).to_frame(index=False)
    frame["x"] = np.random.default_rng(1).standard_normal(len(frame))
    return frame.astype({"a": str, "b": str})


def studies() -> pd.DataFrame:
    """Twelve studies, one estimate each, with standard errors from 0.3 to 1.4."""
    se = np.linspace(0.3, 1.4, 12)
    return pd.DataFrame({"study": [f"s{k}" for k in range(12)], "se": se})


def weighted() -> pd.DataFrame:
    """Ten groups of six rows whose weights differ sixteenfold."""
    frame = one_factor(10, 6)
    frame["w"] = np.random.default_rng(2).choice([0.25, 1.0, 4.0], len(frame))
    return frame


def trials() -> pd.DataFrame:
    """The crossed rows, with four to twelve trials."""
    frame = crossed()
    frame["n"] = np.random.default_rng(3).integers(4, 13, len(frame))
    return frame


def cases() -> list[Case]:
    """Return the models: seven Gaussian ones, and one of each of five other families."""
    spread = {"sigma_Intercept": SMALL, "sigma_x": SMALL}
    no_sigma = {k: v for k, v in GAUSSIAN.items() if k != "sigma"}
    only_mean = {"Intercept": UNIT, "sd": HALF}
    many, few = 500, 200
    return [
        Case(
            name="one factor",
            formula="y ~ x + (1 | g)",
            frame=one_factor(),
            priors=GAUSSIAN,
            n_simulations=many,
        ),
        Case(
            name="correlated slope",
            formula="y ~ x + (x | g)",
            frame=one_factor(12, 6),
            priors={**GAUSSIAN, "cor": LKJ},
            n_simulations=many,
        ),
        Case(
            name="uncorrelated slope, weights",
            formula="y ~ x + (x || g)",
            frame=weighted(),
            priors=GAUSSIAN,
            n_simulations=many,
            options={"weights": "w"},
        ),
        Case(
            name="nested factors",
            formula="y ~ x + (1 | a/b)",
            frame=nested(),
            priors=GAUSSIAN,
            n_simulations=many,
        ),
        Case(
            name="crossed factors",
            formula="y ~ x + (1 | a) + (1 | b)",
            frame=crossed(),
            priors=GAUSSIAN,
            n_simulations=many,
        ),
        Case(
            name="known errors",
            formula="y ~ 1 + (1 | study)",
            frame=studies(),
            priors=only_mean,
            n_simulations=many,
            options={"se": "se"},
        ),
        Case(
            name="sigma of its own",
            formula="y ~ x + (1 | g); sigma ~ x",
            frame=one_factor(10, 6),
            priors={**no_sigma, **spread},
            n_simulations=many,
        ),
        Case(
            name="yes or no",
            formula="y ~ x + (1 | g)",
            frame=one_factor(10, 10),
            priors=LOGIT,
            n_simulations=few,
            family="bernoulli",
        ),
        Case(
            name="counts of trials, crossed",
            formula="p(y, n) ~ x + (1 | a) + (1 | b)",
            frame=trials(),
            priors=LOGIT,
            n_simulations=few,
            family="binomial",
        ),
        Case(
            name="counts, correlated slope",
            formula="y ~ x + (x | g)",
            frame=one_factor(12, 6),
            priors={**LOG, "cor": LKJ},
            n_simulations=few,
            family="poisson",
        ),
        Case(
            name="overdispersed counts, nested",
            formula="y ~ x + (1 | a/b)",
            frame=nested(),
            priors={**LOG, "alpha": SHAPE},
            n_simulations=few,
            family="negative-binomial",
        ),
        Case(
            name="positive outcome, uncorrelated slope",
            formula="y ~ x + (x || g)",
            frame=one_factor(12, 6),
            priors={**LOG, "alpha": SHAPE},
            n_simulations=few,
            family="gamma",
        ),
    ]


def run_case(case: Case, share: float, seed: int) -> Calibration:
    """Calibrate one model, with a share of its simulations."""
    return calibrate(
        case.formula,
        case.frame,
        case.priors,
        max(round(case.n_simulations * share), FEWEST),
        METHOD,
        family=case.family,
        prob=PROB,
        random_seed=seed,
        progressbar=sys.stderr.isatty(),
        **case.options,  # type: ignore[arg-type]
    )


def row_of(case: Case, found: Calibration) -> dict[str, Any]:
    """Return the row of a model in the table."""
    table = found.table
    worst = table.loc[table["p_value"].idxmin()]
    outside = list(table.loc[~table["inside"], "quantity"])
    return {
        "model": case.name,
        "formula": case.written,
        "family": case.family,
        "simulations": len(found.ranks),
        "failed": int(found.failures.sum()),
        "ranks among": found.n_draws,
        "quantities": len(table),
        "outside": ", ".join(outside) if outside else "none",
        "smallest p": worst["p_value"],
        "of": worst["quantity"],
        "divergences": int(found.diagnostics["divergences"].sum()),
        "seconds": found.seconds,
    }


def verdict(found: Sequence[Calibration]) -> tuple[str, bool]:
    """Say how many quantities leave their bands beside what chance explains, and whether it does.

    More than all but one in a thousand calibrated suites would have is too many, and so is a
    p-value below 0.001 after Bonferroni's correction.
    """
    tables = pd.concat([c.table for c in found])
    K, outside = len(tables), int((~tables["inside"]).sum())
    most = int(stats.binom.ppf(0.999, K, 1 - PROB))
    smallest = float(tables["p_value"].min())
    corrected = min(1.0, K * smallest)
    right = outside <= most and corrected >= 0.001
    text = (
        f"{K} quantities, {outside} outside of their {PROB:.0%} bands; of as many calibrated ones "
        f"{K * (1 - PROB):.1f} would be outside on average, and more than {most} in one of a "
        f"thousand suites. The smallest p-value is {smallest:.2g}, {corrected:.2g} after "
        f"Bonferroni's correction for {K}."
    )
    return text, right


PREFACE = """\
# Simulation-based calibration

Parameters are drawn from the prior, an outcome from the parameters, and the posterior of that
outcome from `hmlm.NUTS`. Where simulator, model and sampler agree, the rank of the true value among
posterior draws is uniform: for each parameter, and for the log-likelihood, which notices what no
single parameter does. Each of the simulations below draws its parameters and its data anew.

    make sbc        # {command}

{verdict}

{table}

`simulations` are those that gave ranks; `failed` ones drew an outcome that no model is fitted to
(the same value in all rows, or one beyond floating point) and are left out by what the data are.
Ranks are among posterior draws thinned to near independence, {draws} kept of one chain. `outside`
names the quantities whose rank ECDF leaves its simultaneous {prob:.0%} band anywhere; `smallest p`
is the smallest p-value of a chi-square test of uniform ranks among the quantities of the model, and
the column after it says of which. Divergences are counted over all fits of the model. Seconds are
those of two threads on a machine with other work. Seed {seed}.

![Difference of the ECDF of ranks from the uniform one, a panel for each model.](calibration.png)

A panel for each model: the ECDF of the ranks of each quantity less the uniform one, in the grey
band that holds the whole curve of a calibrated quantity with probability {prob:.0%}. Parameters are
blue, the log-likelihood black, what leaves its band vermilion.

Sources: Talts, Betancourt, Simpson, Vehtari and Gelman (2018), arXiv:1804.06788; Modrak et al.
(2023), Bayesian Analysis; Sailynoja, Burkner and Vehtari (2022), Statistics and Computing 32, 32.
"""


def page_of(rows: list[dict[str, Any]], said: str, command: str, seed: int) -> str:
    """Return the page: what was done, the table, and how to read it."""
    shown = pd.DataFrame(rows)
    shown["formula"] = [f"`{f}`".replace("|", r"\|") for f in shown["formula"]]
    shown["outside"] = [o if o == "none" else f"`{o}`" for o in shown["outside"]]
    shown["of"] = [f"`{q}`" for q in shown["of"]]
    shown["smallest p"] = [f"{p:.2g}" for p in shown["smallest p"]]
    shown["seconds"] = [f"{s:.0f}" for s in shown["seconds"]]
    return PREFACE.format(
        command=command,
        verdict=said,
        table=markdown(shown),
        draws=METHOD.draws,
        prob=PROB,
        seed=seed,
    )


def markdown(table: pd.DataFrame) -> str:
    """Return a table as Markdown, numbers to the right."""
    text = {"model", "formula", "family", "outside", "of"}
    lines = [
        "| " + " | ".join(table) + " |",
        "| " + " | ".join("---" if c in text else "--:" for c in table) + " |",
    ]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines)


def draw_suite(named: Sequence[tuple[Case, Calibration]], path: Path) -> None:
    """Draw the ECDF differences of all models, a panel each."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    from hmlm.plots.canvas import look, new_axes

    across = 3
    down = -(-len(named) // across)
    axes = new_axes(down, across, (9.6, 2.1 * down + 0.6), sharex=True, sharey=True)
    with look():
        for ax, (case, found) in zip(axes.flat, named, strict=False):
            _panel(ax, case, found)
        for ax in axes.flat[len(named) :]:
            ax.set_visible(False)
        for ax in axes[-1]:
            ax.set_xlabel("rank, as a share")
        for ax in axes[:, 0]:
            ax.set_ylabel("ECDF - uniform")
        axes[0, 0].figure.savefig(path, dpi=130)
    plt.close(axes[0, 0].figure)


def _panel(ax: Any, case: Case, found: Calibration) -> None:
    inside = found.table.set_index("quantity")["inside"]
    for k, name in enumerate(found.ranks):
        x, difference, lower, upper = rank_band(found.ranks[name].to_numpy(), found.n_draws, PROB)
        if k == 0:
            ax.fill_between(x, lower, upper, color=GREY, alpha=0.25, linewidth=0, zorder=1)
            ax.axhline(0, color=GREY, linewidth=0.7, zorder=1)
        color = VERMILION if not inside[name] else "black" if name == LOG_LIKELIHOOD else BLUE
        ax.plot(x, difference, color=color, linewidth=0.9, alpha=0.8, zorder=3)
    ax.set_title(f"{case.name}\n{case.family}, {len(found.ranks)} simulations", fontsize=8.5)
    ax.set_xlim(0, 1)
    ax.set_xticks([0.0, 0.5, 1.0], ["0", "0.5", "1"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; return 1 where more is out of its band than chance explains."""
    known = {case.name: case for case in cases()}
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=known, metavar="MODEL", default=list(known))
    parser.add_argument("--share", type=float, default=1.0, help="share of the simulations to run")
    parser.add_argument("--seed", type=int, default=2018)
    chosen = parser.parse_args(arguments)
    began = time.perf_counter()
    done: list[tuple[Case, Calibration]] = []
    for name in chosen.only:
        # A seed of its own, whichever other models are run.
        seed = chosen.seed + list(known).index(name)
        found = run_case(known[name], chosen.share, seed)
        done.append((known[name], found))
        print(f"{name} ({known[name].family}, seed {seed})\n{found}\n", flush=True)
    said, right = verdict([found for _, found in done])
    print(f"{said} {time.perf_counter() - began:.0f} s.")
    if len(done) == len(known):
        command = "python benchmarks/calibration_suite.py"
        command += f" --share {chosen.share:g}" if chosen.share != 1 else ""
        command += f" --seed {chosen.seed}" if chosen.seed != 2018 else ""
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        rows = [row_of(case, found) for case, found in done]
        PAGE.write_text(page_of(rows, said, command, chosen.seed), encoding="utf-8")
        draw_suite(done, PAGE.with_suffix(".png"))
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
