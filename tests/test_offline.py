"""Nothing that hmlm does at run time reaches for the network."""

import subprocess
import sys

GUARD = """
import os, socket, sys, warnings
tried = []

def forbid(name):
    def refuse(*args, **kwargs):
        tried.append((name, args[-1:]))
        raise OSError(f"{name}: no network here")
    return refuse

for name in ("create_connection", "getaddrinfo", "gethostbyname", "gethostbyname_ex"):
    setattr(socket, name, forbid(name))

class Closed(socket.socket):
    connect = forbid("connect")
    connect_ex = forbid("connect_ex")
    sendto = forbid("sendto")

plain, pair = socket.socket, socket.socketpair
socket.socket = Closed
events = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto",
          "socket.bind", "urllib.Request", "http.client.connect", "ftplib.connect")

def audit(event, args):
    if event in events and not (event == "socket.bind" and args[0].family == socket.AF_UNIX):
        tried.append((event, str(args[-1])))

sys.addaudithook(audit)
warnings.simplefilter("ignore")
"""
WORK = """
import tempfile
from pathlib import Path
import matplotlib
matplotlib.use("agg")
import hmlm

for name in hmlm.__all__:
    getattr(hmlm, name)
sleep = hmlm.load_dataset("sleepstudy")
model = hmlm.Model("Reaction ~ Days + (Days | Subject)", sleep)
str(model), model.priors, model._repr_html_(), model.to_latex()
reml = model.fit(hmlm.REML())
bayes = model.fit(hmlm.NUTS(draws=100, tune=200, chains=2, cores=2), 1, progressbar=False)
cbpp = hmlm.load_dataset("cbpp")
counts = hmlm.Model("p(incidence, size) ~ period + (1 | herd)", cbpp, "binomial")
counts.fit(hmlm.Laplace())
counts.fit(hmlm.NUTS(draws=50, tune=100, chains=1), 1, progressbar=False)
str(hmlm.compare(reml, bayes))
hmlm.tidy(bayes), bayes.summary(), bayes.check(100, 1), bayes.predict(sleep.head())
for plot in (hmlm.plot_groups, hmlm.plot_shrinkage, hmlm.plot_caterpillar, hmlm.plot_priors):
    plot(model if plot is hmlm.plot_priors else bayes)
with tempfile.TemporaryDirectory() as folder:
    page = bayes.report(Path(folder) / "page.html", random_seed=1, draws=100).read_text()
    for suffix in ("zip", "zarr", "nc"):
        bayes.save(f"{folder}/fit.{suffix}")
        hmlm.load(f"{folder}/fit.{suffix}")
    hmlm.write_groups(bayes, f"{folder}/groups.parquet")
for word in ('src="http', "src='http", "@import", 'link rel="stylesheet"', "url(http"):
    assert word not in page, word
"""


def run(code, *arguments):
    """Run code in a new Python."""
    return subprocess.run(
        [sys.executable, *arguments, "-c", code], capture_output=True, text=True, timeout=300
    )


def test_the_guard_sees_who_calls_out(record_property):
    seen = 0
    for call in (
        "urllib.request.urlopen('http://localhost:9')",
        "socket.create_connection(('a', 1))",
    ):
        tries = f"try:\n    {call}\nexcept OSError:\n    print(len(tried))"
        code = f"{GUARD}\nimport urllib.request\n{tries}"
        done = run(code)
        assert int(done.stdout) >= 1, done.stderr
        seen += int(done.stdout)
    what = "two planted calls"
    record_property("trust", {"what": what, "attempts to connect": seen})


def test_fits_figures_reports_and_files_need_no_network(record_property):
    done = run(f"{GUARD}\n{WORK}\nprint(len(tried), tried)")
    assert done.returncode == 0, done.stderr[-2000:]
    tried = done.stdout.splitlines()[-1]
    assert tried == "0 []"
    what = "import, fits, sampling, figures, a report and saved fits"
    record_property("trust", {"what": what, "attempts to connect": int(tried.split()[0])})


def test_hmlm_itself_names_no_library_of_the_network():
    code = (
        "import sys, hmlm\nfor name in hmlm.__all__: getattr(hmlm, name)\n"
        "bad = {'requests', 'httpx', 'aiohttp', 'urllib3', 'sentry_sdk', 'posthog', 'segment'}\n"
        "print(sorted(bad & set(sys.modules)))"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "[]"
