"""Record PyMC's log densities of random models for tests/test_recorded_densities.py.

    python tools/record_densities.py

Every family with each of its links, and as many Gaussian models again, of small tables. A model is
kept when PyMC has a density at all of its points.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import random_models  # noqa: E402

from hmlm.errors import HmlmError  # noqa: E402
from hmlm.families import FAMILIES  # noqa: E402

PLACE = ROOT / "tests" / "reference" / "densities.json"
POINTS = 4
GAUSSIAN, OTHER = 85, 2  # models of a link


def record(case: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Return the record of a model for each kernel that takes it."""
    model = random_models.make_model(case)
    theirs = random_models.PymcDensity(model)
    whole = random_models.make_table(**case["table"])
    words = set(re.findall(r"\w+", " ".join([case["formula"], case.get("weights", "")])))
    table = {str(c): whole[c].tolist() for c in whole if c in words}
    kept: list[dict[str, Any]] = []
    for ours in random_models.kernels_of(model.design):
        rng = np.random.default_rng(number)
        offsets = (0.3 * rng.normal(size=(POINTS, ours.posterior.dim))).round(2)
        offsets[0] = 0.0
        points = ours.posterior.start + offsets
        values = [sum(random_models.beside(ours, theirs, x)[2:]) for x in points]
        if not np.isfinite(values).all():
            continue
        if max(kink(ours, x) for x in points) > 1e-8:
            continue
        priors = {k: [p.name, dict(p.parameters)] for k, p in case["priors"].items()}
        kept.append(
            {
                "name": f"{number} {case['family']} {'rows' if not ours.integrated else 'groups'}",
                "model": {**{k: v for k, v in case.items() if k != "table"}, "priors": priors},
                "rows": not ours.integrated,
                "table": table,
                "offsets": offsets.tolist(),
                "log_density": values,
            }
        )
    return kept


def kink(ours: Any, x: np.ndarray) -> float:
    """Return how much the Jacobian by differences depends on the step: an sd may be at zero."""
    whole, half = (random_models.jacobian(ours.natural, x, step) for step in (1e-3, 5e-4))
    return abs(random_models.log_det(whole) - random_models.log_det(half))


def main() -> None:
    """Write the record."""
    found: list[dict[str, Any]] = []
    for family in FAMILIES.values():
        wanted = {str(replace(family, link=link)): OTHER for link in family.links}
        if family.name == "gaussian":
            wanted["gaussian"] = GAUSSIAN
        for number in count():
            case = random_models.draw_case(f"{family.name} {number}", (family.name,))
            case["table"] = {**case["table"], "groups": 4, "size": 6}
            if not wanted[case["family"]]:
                continue
            try:
                new = record(case, len(found))
            except np.linalg.LinAlgError:  # a table too small for its model
                continue
            except HmlmError as error:
                if "cannot be told from the residual" not in str(error):
                    raise
                continue
            wanted[case["family"]] -= bool(new)
            found += new
            if not any(wanted.values()):
                break
        print(family.name, len(found), wanted, flush=True)
    PLACE.write_text(
        "[\n" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in found) + "\n]\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
