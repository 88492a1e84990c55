"""What is loaded, and when: a REML fit needs no sampler, and importing hmlm hardly anything."""

import json
import subprocess
import sys

HEAVY = ("arviz", "matplotlib", "numba", "nutpie", "pymc", "pytensor", "xarray")
REML_FIT = """
import json, sys
import hmlm
model = hmlm.Model("Reaction ~ Days + (Days | Subject)", hmlm.load_dataset("sleepstudy"))
fit = model.fit(hmlm.REML())
print(fit.summary())
print(json.dumps(sorted(sys.modules)))
"""


def test_a_reml_fit_loads_no_sampler():
    done = subprocess.run(
        [sys.executable, "-c", REML_FIT], capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded.intersection(HEAVY)
    assert "-871.8141" in done.stdout
