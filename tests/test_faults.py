"""Full disks, killed processes, damaged files, refits, threads: nothing is lost or mixed up."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

import hmlm
from hmlm.errors import HmlmError
from hmlm.likelihoods import threads
from hmlm.likelihoods.threads import _controller, one_blas_thread

FILES = ("fit.zarr", "fit.zip", "fit.nc", "report.html", "groups.parquet", "groups.zarr")

# Writes, over files that are there, those of another fit. It is told which one by a line on stdin.
WRITER = """
import os, resource, signal, sys, time
import matplotlib
matplotlib.use("Agg")
import hmlm
from hmlm.report_parts import put_text
from pathlib import Path
from hmlm.errors import HmlmError
folder = Path(sys.argv[1])
sleep = hmlm.load_dataset("sleepstudy")
fits = [
    hmlm.Model(f"Reaction ~ {right} + (Days | Subject)", sleep).fit(
        hmlm.NUTS(draws=300, tune=100, chains=2), random_seed=1, progressbar=False)
    for right in ("1", "Days")
]
page = "<p>" + 20_000 * "long " + "</p>"

def write(name, k):
    path = folder / name
    if name.startswith("fit"):
        fits[k].save(path)
    elif name.startswith("groups"):
        hmlm.write_groups(fits[k], path)
    else:
        put_text(path, f"<!-- {k} -->{page}<!-- {k} -->")
"""

FULL = """
for name in sys.argv[2:]:
    write(name, 0)
files = sorted(p for p in folder.rglob("*") if p.is_file())
before = {p: p.read_bytes() for p in files}
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
for name in sys.argv[2:]:
    try:
        write(name, 1)
        print(name, "was written")
    except HmlmError as error:
        print(name, "is named" if name in str(error) else f"is not named: {error}")
now = sorted(p for p in folder.rglob("*") if p.is_file())
print("as before" if {p: p.read_bytes() for p in now} == before else f"changed: {now}")
"""

KILLED = """
for name in sys.argv[2:]:
    pid = os.fork()  # zarr starts threads, so the first files are not written here
    if pid == 0:
        write(name, 0)
        os._exit(0)
    os.waitpid(pid, 0)
print("ready", flush=True)
for line in sys.stdin:
    name, seconds = line.split()
    pid = os.fork()
    if pid == 0:
        for k in range(1000):
            write(name, k % 2)
        os._exit(1)
    time.sleep(float(seconds))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    print("killed", flush=True)
"""


def child(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", WRITER + code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )


def test_a_disk_that_is_full_leaves_every_kind_of_file(tmp_path, record_property):
    """Writes fail for real: the process may not make files of more than 600 bytes."""
    with child(FULL, tmp_path, *FILES) as process:
        said = process.communicate(timeout=120)[0].splitlines()
    assert said == [*(f"{name} is named" for name in FILES), "as before"]
    assert sorted(os.listdir(tmp_path)) == sorted(FILES)
    refused = {"writes": len(FILES), "refused, the old file as before": len(said) - 1}
    record_property("trust", {"what": "files of all kinds on a full disk", **refused})


def read_whole(path):
    """Read a file of either fit, and fail where it is a part or a mixture."""
    if path.name.startswith("fit"):
        fit = hmlm.load_fit(path)
        terms = fit.design.terms
        assert fit.variable("beta").shape == (2, 300, len(terms))
        assert fit.variable("b_Subject").shape == (2, 300, 18, 2)
    elif path.suffix == ".html":
        text = path.read_text()
        assert text.startswith(text[-10:])
        assert len(text) > 100_000
    elif path.suffix == ".parquet":
        assert len(pd.read_parquet(path)) == 36
    else:
        import xarray as xr

        with xr.open_dataset(path, engine="zarr", consolidated=False, chunks=None) as found:
            assert np.isfinite(found["estimate"].to_numpy()).all()


@pytest.mark.slow
def test_a_process_killed_at_any_moment_leaves_a_whole_file(tmp_path, record_property):
    rng = np.random.default_rng(7)
    aside = whole = 0
    with child(KILLED, tmp_path, *FILES) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            for name in [n for n in FILES for _ in range(6)]:
                process.stdin.write(f"{name} {rng.uniform(0.05, 0.6):.3f}\n")
                process.stdin.flush()
                assert process.stdout.readline() == "killed\n"
                path = tmp_path / name
                if not path.exists():
                    # Between the two renamings of a folder: the old one stands beside.
                    (old,) = tmp_path.glob(f".{name}.*.old")
                    assert path.suffix == ".zarr"
                    old.rename(path)
                    aside += 1
                read_whole(path)
                whole += 1
                for left in tmp_path.glob(".*"):
                    (shutil.rmtree if left.is_dir() else os.unlink)(left)
        finally:
            process.kill()
    assert aside <= 6
    figures = {"killed": whole, "files whole and in place": whole - aside, "set aside": aside}
    record_property("trust", {"what": "processes killed while they write", **figures})


@pytest.fixture(scope="module")
def small_fit():
    model = hmlm.Model("Yield ~ 1 + (1 | Batch)", hmlm.load_dataset("dyestuff"))
    method = hmlm.NUTS(draws=20, tune=50, chains=2)
    return model.fit(method, random_seed=1, progressbar=False)


@pytest.mark.parametrize("suffix", [".zip", ".nc"])
def test_a_file_cut_off_at_any_byte_is_refused(small_fit, suffix, tmp_path, record_property):
    path = tmp_path / f"fit{suffix}"
    small_fit.save(path)
    whole = path.read_bytes()
    n = len(whole)
    rng = np.random.default_rng(3)
    cuts = {0, 1, 2, *range(n - 10, n), *rng.integers(0, n, 40).tolist()}
    for cut in cuts:
        path.write_bytes(whole[:cut])
        with pytest.raises(HmlmError, match=rf"fit{suffix}' is (damaged|no file of hmlm)"):
            hmlm.load_fit(path)
    record_property("trust", {"what": "files cut off at a byte", "tried and refused": len(cuts)})


@pytest.mark.filterwarnings("ignore:Object at:UserWarning")  # zarr, of a name with a changed letter
@pytest.mark.parametrize(("suffix", "flips"), [(".zip", 40), (".nc", 12)])
def test_a_changed_byte_is_noticed_or_changes_nothing(
    small_fit, suffix, flips, tmp_path, record_property
):
    """Where it is not noticed it lies in what no draw is read from, and all draws are the same."""
    path = tmp_path / f"fit{suffix}"
    small_fit.save(path)
    whole = path.read_bytes()
    reasons = []
    for at in np.random.default_rng(5).integers(0, len(whole), flips):
        changed = bytearray(whole)
        changed[at] ^= 0xFF
        path.write_bytes(bytes(changed))
        try:
            again = hmlm.load_fit(path)
            draws = {name: again.variable(name) for name in small_fit.design.dims}
        except HmlmError as error:
            reasons.append(str(error))
            continue
        assert again.status.problems == small_fit.status.problems
        for name, values in draws.items():
            assert np.array_equal(values, small_fit.variable(name))
    assert reasons
    assert all(f"fit{suffix}'" in reason for reason in reasons)
    n = len(reasons)
    figures = {"bytes": flips, "noticed": n, "not noticed, all draws the same": flips - n}
    record_property("trust", {"what": "single bytes changed", **figures})


REFITS = """
import gc, sys, hmlm
sleep, cbpp = hmlm.load_dataset("sleepstudy"), hmlm.load_dataset("cbpp")
gaussian = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep)
counts = ("p(incidence, size) ~ period + (1 | herd)", cbpp)
short = hmlm.NUTS(draws=20, tune=30, chains=2)

def memory():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

def rounds(n):
    for k in range(n):
        frame = sleep.assign(Reaction=sleep["Reaction"] + k)
        model = hmlm.Model("Reaction ~ Days + (Days | Subject)", frame)
        model.fit(hmlm.REML()).tidy()
        fit = model.fit(short, random_seed=k, progressbar=False)
        fit.tidy()
        hmlm.Model(*counts, family="binomial").fit(hmlm.Laplace()).tidy()
        hmlm.Model(*counts, family="binomial").fit(short, random_seed=k, progressbar=False).tidy()

rounds(15)
before = memory()
rounds(int(sys.argv[1]))
print(before, memory())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_does_not_grow_from_refit_to_refit(record_property):
    """200 fits by REML, Laplace and both compiled samplers, each of a new model."""
    rounds = 50
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", REFITS, str(rounds)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    before, after = map(float, run.stdout.split())
    assert after - before < 10
    figures = {"refits": 4 * rounds, "memory grew by (MB)": max(after - before, 0.0)}
    record_property("trust", {"what": "refits in one process", **figures})


def test_fits_in_threads_are_what_they_are_alone(sleepstudy, record_property):
    """Three kinds of fit at the same time, each several times, give the same to the last bit."""
    cbpp = hmlm.load_dataset("cbpp")
    sleep_model = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleepstudy)
    counts = hmlm.Model("p(incidence, size) ~ period + (1 | herd)", cbpp, family="binomial")
    short = hmlm.NUTS(draws=100, tune=150, chains=2)

    def fit(kind):
        if kind == "REML":
            found = sleep_model.fit(hmlm.REML()).estimates
            return {k: np.asarray(v) for k, v in found.items()}
        model = sleep_model if kind == "kernel" else counts
        found = model.fit(short, random_seed=3, progressbar=False)
        return {name: found.variable(name) for name in found.design.dims}

    kinds = ("REML", "kernel", "rows")
    alone = {kind: fit(kind) for kind in kinds}
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(fit, 4 * kinds))
    for kind, found in zip(4 * kinds, together, strict=True):
        assert found.keys() == alone[kind].keys()
        for name, values in found.items():
            assert np.array_equal(values, alone[kind][name]), (kind, name)
    n = sum(values.size for found in together for values in found.values())
    figures = {"fits compared": len(together), "numbers, the same to the last bit": n}
    record_property("trust", {"what": "fits in three threads at once", **figures})


def blas_threads():
    return {lib["num_threads"] for lib in _controller().info() if lib["user_api"] == "blas"}


def test_fits_that_overlap_give_back_the_threads_of_blas(monkeypatch):
    monkeypatch.setattr(threads, "_HELD", [])  # the limit under which all tests run
    with _controller().limit(limits=2, user_api="blas"):
        was = blas_threads()
        first, second = one_blas_thread(), one_blas_thread()
        first.__enter__()
        second.__enter__()
        assert blas_threads() == {1}
        first.__exit__(None, None, None)
        assert blas_threads() == {1}
        second.__exit__(None, None, None)
        assert blas_threads() == was
