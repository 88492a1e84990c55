"""Run the notebooks with other seeds, and count the fits whose diagnostics fail.

    python benchmarks/notebook_seeds.py --seeds 20
    python benchmarks/notebook_seeds.py --seeds 5 --workers 2 01_alcohol 04_eight_schools

Each notebook runs in a process of its own, with a number added to every seed that stands in it.
The fits that the reader makes are counted; those that a study makes inside (power, calibration,
cross-validation), short on purpose, are not. All notebooks have a seed before the next one begins.
The record is added to from run to run, and docs/trust/notebooks.md is made from it; `--seeds 0`
makes the page alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
PAGE = ROOT / "docs" / "trust" / "notebooks.md"
# Of these the first shows what failing looks like.
LEFT_OUT = {"09_when_sampling_fails": "shows sampling that fails, so its fits are meant to"}
# What fits inside these is short on purpose, or (treatment) one of several remedies tried.
STUDIES = (
    "calibration.py",
    "power_study.py",
    "held_out.py",
    "cross_validation.py",
    "slices.py",
    "treatment.py",
)
PARTS = ("extend_fit",)  # the draws that it adds; the longer fit counts
# Fits that a notebook makes to show what failing looks like, by a setting of their method.
MEANT_TO_FAIL = {"02_radon": "target_accept=0.6"}
TIMEOUT = 3600
SEED = re.compile(r"(random_seed=)(\d+)")


def run_notebook(name: str, shift: int) -> dict[str, Any]:
    """Run one notebook here, with `shift` added to its seeds; return what its fits say."""
    import warnings

    import matplotlib

    matplotlib.use("Agg")
    warnings.simplefilter("ignore")
    from matplotlib import pyplot as plt

    import hmlm
    from hmlm.fitting.bayes_fit import BayesFit

    fits: list[dict[str, Any]] = []

    def keep(fit: Any) -> None:
        frame = sys._getframe(2)
        while frame is not None:
            if Path(frame.f_code.co_filename).name in STUDIES or frame.f_code.co_name in PARTS:
                return
            frame = frame.f_back
        if MEANT_TO_FAIL.get(name, "nothing") in repr(fit.method):
            return
        fits.append(
            {
                "formula": fit.design.spec.formula,
                "pooling": fit.design.spec.pooling,
                "method": repr(fit.method),
                "problems": list(fit.status.problems),
            }
        )

    def watch(kind: Any, way: str) -> None:
        plain = getattr(kind, way)

        def watched(self: Any, *arguments: Any, **settings: Any) -> Any:
            fit = plain(self, *arguments, **settings)
            keep(fit)
            return fit

        setattr(kind, way, watched)

    watch(hmlm.NUTS, "run")
    watch(hmlm.Gibbs, "run")
    watch(BayesFit, "extend")
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    text = SEED.sub(lambda found: f"{found[1]}{int(found[2]) + shift}", text)
    os.chdir(FOLDER)
    began = time.perf_counter()
    error = ""
    try:
        exec(compile(text, f"{name}.py", "exec"), {"__name__": "__main__"})
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
    plt.close("all")
    seconds = round(time.perf_counter() - began, 1)
    return {"notebook": name, "shift": shift, "seconds": seconds, "error": error, "fits": fits}


def run_apart(name: str, shift: int) -> dict[str, Any]:
    """Run one notebook in a process of its own."""
    command = [sys.executable, __file__, "--one", name, str(shift)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return {
            "notebook": name,
            "shift": shift,
            "seconds": TIMEOUT,
            "error": "timeout",
            "fits": [],
        }
    last = done.stdout.rstrip().rpartition("\n")[2]
    if done.returncode or not last.startswith("{"):
        error = f"the process ended with {done.returncode}: {done.stderr[-300:]}"
        return {"notebook": name, "shift": shift, "seconds": 0.0, "error": error, "fits": []}
    return json.loads(last)


def first_words(problem: str) -> str:
    """Return what a sentence says is wrong, without its figures."""
    return re.sub(r"^\d[\d,]* ", "", problem).partition(":")[0].partition(" for ")[0]


def describe(record: dict[str, Any]) -> str:
    """Return one line about a run."""
    bad = sum(bool(f["problems"]) for f in record["fits"])
    said = f" {record['error'][:120]}" if record["error"] else ""
    return (
        f"{record['notebook']} + {record['shift']}: {len(record['fits'])} fits, {bad} failed, "
        f"{record['seconds']:.0f} s{said}"
    )


def write_page(records: list[dict[str, Any]], page: Path) -> str:
    """Write the page from the record, and return its text."""
    whole = [r for r in records if not r["error"]]
    broken = [r for r in records if r["error"]]
    fits = [f for r in whole for f in r["fits"]]
    bad = [f for f in fits if f["problems"]]
    with_fits = [r for r in whole if r["fits"]]
    clean = sum(not any(f["problems"] for f in r["fits"]) for r in with_fits)
    lines = [
        "# The notebooks with other seeds",
        "",
        "Every seed in a notebook is raised by the same number, and the notebook is run again with "
        "its own numbers of draws. A fit counts as failed when its status has a problem of any "
        "kind: a divergence, an R-hat above 1.01, an effective sample size below 400. Fits that "
        "studies make inside (power, calibration, cross-validation), short on purpose, and "
        "remedies that `hmlm.treat` tries are not counted; of a fit that is extended the longer "
        "one is. `benchmarks/notebook_seeds.py` runs this; it is no part of the tests.",
        "",
        f"**{len(fits) - len(bad):,} of {len(fits):,} fits have no failed diagnostic "
        f"({(len(fits) - len(bad)) / max(len(fits), 1):.1%})**, and {clean} of {len(with_fits)} "
        f"runs with fits ({clean / max(len(with_fits), 1):.1%}) have none in any of them. "
        f"{len(broken)} runs ended in an error.",
        "",
        "| Notebook | Seeds | Fits | Failed | Runs without any |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in sorted({r["notebook"] for r in records}):
        own = [r for r in whole if r["notebook"] == name]
        mine = [f for r in own for f in r["fits"]]
        failed = sum(bool(f["problems"]) for f in mine)
        good = sum(not any(f["problems"] for f in r["fits"]) for r in own)
        share = f"{good} of {len(own)}" if mine else "only studies"
        lines.append(f"| {name} | {len(own)} | {len(mine)} | {failed} | {share} |")
    lines += ["", "Left out:", ""]
    lines += [f"- {name}: {why}." for name, why in LEFT_OUT.items()]
    lines += [
        f"- {name}: its fit with {what}, which shows trouble."
        for name, what in MEANT_TO_FAIL.items()
    ]
    run = {r["notebook"] for r in records} | set(LEFT_OUT)
    if absent := sorted({p.stem for p in FOLDER.glob("*.py")} - run):
        lines += [f"- not run here: {', '.join(absent)}."]
    if bad:
        lines += ["", "## What failed", "", "| Notebook | Fit | What the status says | Times |"]
        lines += ["| --- | --- | --- | ---: |"]
        counts: dict[tuple[str, str, str], int] = {}
        for r in whole:
            for f in r["fits"]:
                what = f"`{f['formula']}`".replace("|", "\\|")
                what += "" if f["pooling"] == "partial" else f", {f['pooling']} pooling"
                for problem in f["problems"]:
                    key = (r["notebook"], what, first_words(problem))
                    counts[key] = counts.get(key, 0) + 1
        lines += [f"| {a} | {b} | {c} | {n} |" for (a, b, c), n in sorted(counts.items())]
    if broken:
        lines += ["", "## Runs that ended in an error", ""]
        lines += [
            f"- {r['notebook']}, seeds + {r['shift']}: {r['error'].splitlines()[0][:200]}"
            for r in broken
        ]
    text = "\n".join(lines) + "\n"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8")
    return text


def main() -> None:
    """Run what is not in the record yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", help="names without .py; all when none is given")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1, help="notebooks at a time")
    parser.add_argument("--record", type=Path, default=ROOT / "benchmarks" / "notebook_seeds.jsonl")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--one", nargs=2, metavar=("NAME", "SHIFT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print("\n" + json.dumps(run_notebook(arguments.one[0], int(arguments.one[1]))))
        return
    every = sorted(p.stem for p in FOLDER.glob("[0-9]*.py") if p.stem not in LEFT_OUT)
    chosen = arguments.notebooks or every
    records = []
    if arguments.record.exists():
        records = [json.loads(x) for x in arguments.record.read_text("utf-8").splitlines()]
    done = {(r["notebook"], r["shift"]) for r in records}
    shifts = range(100, 100 * arguments.seeds + 1, 100)
    left = [(name, shift) for shift in shifts for name in chosen if (name, shift) not in done]
    with ThreadPoolExecutor(arguments.workers) as pool:
        for job in as_completed([pool.submit(run_apart, *which) for which in left]):
            record = job.result()
            records.append(record)
            with arguments.record.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            print(describe(record), flush=True)
    print(write_page(records, arguments.page))


if __name__ == "__main__":
    main()
