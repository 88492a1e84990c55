"""REML of hmlm, mixedlm and statsmodels on random designs: where they differ, who is right?

``PEERS_PYTHON=.venv-bench/bin/python python benchmarks/agreement.py`` writes
docs/trust/agreement.md. Every package's estimates are put into one restricted likelihood, made of
N x N matrices (tests/random_designs.py, which has nothing of any package): the higher is right.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from random_designs import DenseREML, RandomDesign, make_random_design  # noqa: E402

PAGE = ROOT / "docs" / "trust" / "agreement.md"
PEERS = {"mixedlm": "mixedlm 1.3.0", "statsmodels": "statsmodels 0.15.0"}
# Two log-likelihoods closer than this are the same maximum.
SAME = 1e-4


def ours(design: RandomDesign) -> dict[str, Any]:
    """Fit by hmlm."""
    import hmlm

    fit = hmlm.Model(design.formula, design.table).fit(hmlm.REML())
    covariances = []
    for group, _, correlated in design.blocks:
        sd = fit.estimates[f"sd_{group}"]
        cor = fit.estimates[f"cor_{group}"] if correlated and len(sd) > 1 else np.eye(len(sd))
        covariances.append(np.outer(sd, sd) * np.nan_to_num(cor))
    return {
        "covariances": covariances,
        "sigma": float(fit.estimates["sigma"]),
        "beta": fit.estimates["beta"],
        "converged": fit.status.converged,
        "stated": fit.log_likelihood,
    }


def theirs(package: str, designs: list[RandomDesign]) -> list[dict[str, Any]]:
    """Fit by another package, in its own environment."""
    cases = [
        {
            "formula": d.formula,
            "blocks": d.blocks,
            "fixed": d.fixed,
            "table": d.table.to_dict(orient="list"),
        }
        for d in designs
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cases.json"
        path.write_text(json.dumps(cases), encoding="utf-8")
        worker = Path(__file__).with_name("agreement_worker.py")
        command = [os.environ["PEERS_PYTHON"], str(worker), package, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=3000)
    return json.loads(done.stdout.splitlines()[-1])


def heights(designs: list[RandomDesign], fits: list[dict[str, Any]]) -> np.ndarray:
    """Return the dense restricted log-likelihood at each fit's estimates; NaN without a fit."""
    found = []
    for design, fit in zip(designs, fits, strict=True):
        usable = "sigma" in fit and np.isfinite(fit["sigma"]) and fit["sigma"] > 0
        covariances = [np.atleast_2d(D) for D in fit["covariances"]] if usable else []
        if not usable or not all(np.isfinite(D).all() for D in covariances):
            found.append(np.nan)
            continue
        found.append(DenseREML(design).log_likelihood(covariances, fit["sigma"]))
    return np.array(found)


def compare(
    designs: list[RandomDesign], mine: list[dict[str, Any]], other: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the figures of the table for one other package."""
    a, b = heights(designs, mine), heights(designs, other)
    both = np.isfinite(b)
    same = both & (np.abs(a - b) < SAME)
    beta, sigma, spread = [0.0], [0.0], [0.0]
    for k in np.flatnonzero(same):
        gap = np.abs(np.array(mine[k]["beta"]) - np.array(other[k]["beta"]))
        scale = designs[k].table["y"].std()
        beta.append(float(gap.max() / scale))
        sigma.append(abs(mine[k]["sigma"] - other[k]["sigma"]) / scale)
        for D, E in zip(mine[k]["covariances"], other[k]["covariances"], strict=True):
            first, second = (np.sqrt(np.diagonal(np.atleast_2d(M))) for M in (D, E))
            spread.append(float(np.abs(first - second).max() / scale))
    return {
        "designs": len(designs),
        "none": sum("none" in f for f in other),
        "errors": sum("error" in f for f in other)
        + sum("sigma" in f and not np.isfinite(h) for f, h in zip(other, b, strict=True)),
        "compared": int(both.sum()),
        "same": int(same.sum()),
        "ours higher": int((both & (a - b >= SAME)).sum()),
        "theirs higher": int((both & (b - a >= SAME)).sum()),
        "largest gain": float(np.max(np.where(both, a - b, -np.inf))),
        "largest loss": float(np.max(np.where(both, b - a, -np.inf))),
        "silent": sum(
            bool(f.get("converged")) and d >= SAME
            for f, d in zip(other, np.where(both, a - b, 0), strict=True)
        ),
        "beta": max(beta),
        "sigma": max(sigma),
        "sd": max(spread),
    }


ROWS = {
    "designs": "designs",
    "none": "has no such model",
    "errors": "ended in an error",
    "compared": "compared",
    "same": f"same restricted log-likelihood (within {SAME:g})",
    "ours higher": "hmlm's is higher: hmlm right",
    "silent": "of these, reported as converged",
    "theirs higher": "the other's is higher: hmlm wrong",
    "largest gain": "hmlm's higher by at most",
    "largest loss": "the other's higher by at most",
    "beta": "largest difference of a coefficient, in sd(y), where the same",
    "sd": "largest difference of a group sd, in sd(y), where the same",
    "sigma": "largest difference of sigma, in sd(y), where the same",
}


def write(table: dict[str, dict[str, Any]], own: float, path: Path) -> None:
    """Write the page."""

    def cell(value: float) -> str:
        return str(value) if isinstance(value, int) else f"{value:.2g}"

    n = next(iter(table.values()))["designs"]
    lines = [
        "# Agreement with other packages",
        "",
        f"{n} random linear mixed models were fitted by REML: one factor with an intercept, a",
        "slope, or both with and without their correlation; nested and crossed factors; 6 to 24",
        "unbalanced groups; some with variances of nothing. Where packages disagree, the estimates",
        "of each are put into one restricted likelihood, made of dense N x N matrices and of no",
        "package's code: the higher is right.",
        "",
        "| | " + " | ".join(PEERS[name] for name in table) + " |",
        "|---|" + "---:|" * len(table),
    ]
    for key, words in ROWS.items():
        lines.append(f"| {words} | " + " | ".join(cell(t[key]) for t in table.values()) + " |")
    lines += [
        "",
        "The restricted log-likelihood that hmlm states differs from the dense one at its own",
        f"estimates by at most {own:.1g}.",
        "",
        "Made by `python benchmarks/agreement.py`, with the other packages in an environment of",
        "their own (`PEERS_PYTHON`).",
        "",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")


def main() -> None:
    """Fit all designs by all packages and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--designs", type=int, default=200)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--details", type=Path, help="a JSON file for every disagreement")
    arguments = parser.parse_args()
    if not os.environ.get("PEERS_PYTHON"):
        parser.error("set PEERS_PYTHON to the Python of an environment with the other packages")
    designs = [make_random_design(seed) for seed in range(arguments.designs)]
    mine = [ours(design) for design in designs]
    a = heights(designs, mine)
    own = float(np.max(np.abs(a - [fit["stated"] for fit in mine])))
    table, details = {}, []
    for name in PEERS:
        other = theirs(name, designs)
        table[name] = compare(designs, mine, other)
        b = heights(designs, other)
        for seed, (design, gap, fit) in enumerate(zip(designs, a - b, other, strict=True)):
            if "error" in fit or abs(gap) >= SAME:
                kept = {k: v for k, v in fit.items() if k in ("error", "converged")}
                details.append([name, seed, design.formula, gap, kept])
    write(table, own, arguments.page)
    if arguments.details:
        arguments.details.write_text("\n".join(map(str, details)), encoding="utf-8")
    print(arguments.page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
