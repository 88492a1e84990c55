"""Fit random designs by another package in this process, and print the estimates as JSON."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any


def mixedlm(case: dict[str, Any], table: Any) -> dict[str, Any]:
    """Fit by mixedlm's lmer."""
    import mixedlm as package

    fit = package.lmer(case["formula"], table, REML=True)
    spread = fit.VarCorr()
    return {
        "covariances": [spread.get_cov(group).tolist() for group, *_ in case["blocks"]],
        "sigma": float(fit.sigma),
        "beta": [float(v) for v in fit.fixef().values()],
        "converged": bool(fit.converged),
    }


def statsmodels(case: dict[str, Any], table: Any) -> dict[str, Any]:
    """Fit by statsmodels' MixedLM: one factor, or factors within it."""
    import statsmodels.formula.api as smf

    (group, columns, correlated), *inner = case["blocks"]
    if any(name == "h" for name, *_ in inner):
        return {"none": "crossed factors"}
    if len(columns) > 1 and not correlated:
        return {"none": "effects without correlation"}
    model = smf.mixedlm(
        f"y ~ {' + '.join(t for t in case['fixed'] if t != '1')}",
        table,
        groups=group,
        re_formula={("1",): "~1", ("x",): "~0 + x", ("1", "x"): "~x"}[tuple(columns)],
        vc_formula={name: f"0 + C({name})" for name, *_ in inner} or None,
    )
    fit = model.fit(reml=True)
    return {
        "covariances": [fit.cov_re.to_numpy().tolist(), *([[float(v)]] for v in fit.vcomp)],
        "sigma": float(fit.scale) ** 0.5,
        "beta": [float(v) for v in fit.fe_params],
        "converged": bool(fit.converged),
    }


def main() -> None:
    """Fit every design of the file that the arguments name."""
    import pandas as pd

    package, path = sys.argv[1:]
    fit = {"mixedlm": mixedlm, "statsmodels": statsmodels}[package]
    found = []
    warnings.simplefilter("ignore")
    with open(path, encoding="utf-8") as file:
        cases = json.load(file)
    for case in cases:
        try:
            found.append(fit(case, pd.DataFrame(case["table"])))
        except Exception as error:  # what a package cannot fit is one of the results
            found.append({"error": f"{type(error).__name__}: {error}"[:200]})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
