"""`hmlm explore` in a browser: every control moves what it should, on this computer alone."""

import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from statistics import median

import numpy as np
import pandas as pd
import pytest
from browser import find_chromium, open_browser, open_tab

import hmlm

FORMULA = "alcuse ~ coa + peer + time + (time | id)"
# Panel's elements have shadow roots: the first element of a selector, wherever it is.
FIND = """(selector) => {
  const search = (root) => {
    const found = root.querySelector(selector);
    if (found) return found;
    for (const e of root.querySelectorAll('*')) {
      const inside = e.shadowRoot && search(e.shadowRoot);
      if (inside) return inside;
    }
    return null;
  };
  return search(document)?.innerText ?? null;
}"""
CHANGED = (
    f"([selector, old]) => {{ const t = ({FIND})(selector); return t !== null && t !== old; }}"
)

# A promise of the milliseconds from the next key to the frame in which the element reads otherwise.
WATCH = """(selector) => {
  const search = (root) => {
    if (root.querySelector(selector)) return root;
    for (const e of root.querySelectorAll('*')) {
      const inside = e.shadowRoot && search(e.shadowRoot);
      if (inside) return inside;
    }
    return null;
  };
  const root = search(document);
  const old = root.querySelector(selector).innerText;
  window.followed = new Promise((resolve) => {
    document.addEventListener('keydown', (event) => {
      const look = () => {
        const now = root.querySelector(selector)?.innerText;
        if (now !== undefined && now !== old) resolve(performance.now() - event.timeStamp);
        else requestAnimationFrame(look);
      };
      look();
    }, { capture: true, once: true });
  });
}"""


@contextmanager
def start(*arguments):
    """Run `hmlm explore`; give the process and the address that it prints."""
    command = [sys.executable, "-m", "hmlm", "explore", *arguments, "--port", "0", "--no-browser"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        try:
            line = process.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+/", line)
            assert address, f"{line!r} {process.stderr.read()}"
            yield process, address[0]
        finally:
            process.kill()


def stop(process):
    """Interrupt as Ctrl-C does; return the exit code and what was said since the address."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def served():
    find_chromium()
    with start("alcohol") as (_, address):
        yield address


@pytest.fixture(scope="module")
def browser():
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def opened(browser, served):
    with open_tab(browser, served) as tab:
        tab.page.wait_for_selector(".estimates", timeout=20_000)
        tab.first = text(tab.page, ".chosen")
        yield tab


@pytest.fixture
def tab(opened):
    """The page with its controls where they were at first."""
    opened.page.locator(".reset button").click()
    opened.page.locator(".level select").select_option(label="1")
    opened.page.wait_for_function(f"({FIND})('.name') === '1'")
    opened.page.wait_for_function(f"(first) => ({FIND})('.chosen') === first", arg=opened.first)
    wait_for(opened.page, "246 rows")
    return opened


def text(page, selector):
    return page.evaluate(FIND, selector)


def after(page, selector, act):
    """Do something, wait until the text of an element has changed, and return the new one."""
    old = text(page, selector)
    act()
    page.wait_for_function(CHANGED, arg=[selector, old], polling="raf", timeout=10_000)
    return text(page, selector)


def wait_for(page, words):
    page.locator(f"text={words}").first.wait_for(timeout=10_000)


def numbers(page, pooling):
    """Return the chosen group's intercept and slope under a pooling, as the page says them."""
    cells = page.locator(f".estimates td.{pooling}").all_inner_texts()
    return [float(c) if c else np.nan for c in cells]


def press(page, control, key):
    page.locator(f".{control} .noUi-handle").press(key)


def test_page_begins_at_the_estimate(tab):
    page = tab.page
    assert text(page, ".chosen") == text(page, ".median")
    complete, partial, none = (numbers(page, k)[0] for k in ("complete", "partial", "none"))
    assert complete < partial < none
    alcohol = hmlm.load_dataset("alcohol")
    alone = hmlm.Model(FORMULA, alcohol).with_pooling("none").fit(hmlm.OLS())
    own = alone.describe("b_id", 0.95).estimate[0]
    assert numbers(page, "none") == pytest.approx(own, abs=1e-3)


def test_slider_at_zero_pools_completely(tab):
    assert after(tab.page, ".chosen", lambda: press(tab.page, "sd", "Home")) == "0"
    assert numbers(tab.page, "partial") == numbers(tab.page, "complete")


def test_slider_at_infinity_does_not_pool(tab):
    assert after(tab.page, ".chosen", lambda: press(tab.page, "sd", "End")) == "∞"
    assert numbers(tab.page, "partial") == numbers(tab.page, "none")


def test_buttons_go_to_the_ends_and_back(tab):
    page = tab.page
    first = text(page, ".chosen")
    assert after(page, ".chosen", page.locator(".zero button").click) == "0"
    assert after(page, ".chosen", page.locator(".infinity button").click) == "∞"
    assert after(page, ".chosen", page.locator(".estimate button").click) == first


def test_narrow_prior_draws_the_estimate_down(tab):
    page = tab.page
    before = float(text(page, ".median"))
    now = float(after(page, ".median", lambda: press(page, "width", "Home")))
    assert now < before
    assert float(text(page, ".chosen")) == now
    wait_for(page, "0.0501 times as wide")


def test_group_loses_rows(tab):
    page = tab.page
    before = numbers(page, "none")
    press(page, "size", "Home")
    wait_for(page, "244 rows")
    assert np.isnan(numbers(page, "none")[1])  # one row has no slope
    assert np.isfinite(numbers(page, "partial")).all()
    press(page, "size", "End")
    wait_for(page, "246 rows")
    assert numbers(page, "none") == before


def test_dropped_point_moves_the_group(tab):
    page = tab.page
    before = numbers(page, "partial")
    page.locator(".dropped select").select_option(index=0)
    wait_for(page, "245 rows")
    frame = hmlm.load_dataset("alcohol")
    own = frame[frame["id"].astype(str) == "1"].iloc[1:]
    slope = float(np.diff(own["alcuse"])[0] / np.diff(own["time"])[0])
    assert numbers(page, "none")[1] == pytest.approx(slope, abs=1e-3)
    assert numbers(page, "partial") != before


def test_click_on_a_point_drops_it(tab):
    page = tab.page
    place = page.evaluate(
        """() => {
          const plot = [...Bokeh.index.query((v) => v.model.tags.includes('group'))][0];
          plot.el.scrollIntoView({block: 'center'});
          const source = plot.model.renderers.at(-1).data_source.data;
          const box = plot.el.getBoundingClientRect();
          return [
            box.x + plot.frame.x_scale.compute(source.x[0]),
            box.y + plot.frame.y_scale.compute(source.y[0])];
        }"""
    )
    page.mouse.click(*place)
    wait_for(page, "245 rows")
    page.mouse.click(*place)
    wait_for(page, "246 rows")


def test_last_row_of_a_group_stays(tab):
    tab.page.locator(".dropped select").select_option(index=[0, 1, 2])
    wait_for(tab.page, "each group keeps one")
    assert "246 rows" in tab.page.locator("text=246 rows").first.inner_text()


def test_page_follows_fast(tab, capsys):
    """Key to new text, in milliseconds; the bound is for a machine that is busy."""
    page = tab.page

    def measure(control, selector, keys):
        found = []
        for key in keys:
            page.evaluate(WATCH, selector)
            press(page, control, key)
            found.append(page.evaluate("window.followed"))
            page.wait_for_timeout(150)
        return median(found)

    found = {
        "sd": measure("sd", ".chosen", ["ArrowRight"] * 9),
        "prior": measure("width", ".median", ["PageDown", "PageUp"] * 4),
        "rows": measure("size", ".median", ["Home", "End"] * 4),
    }
    with capsys.disabled():
        print("\n" + ", ".join(f"{k}: {v:.0f} ms" for k, v in found.items()), "from key to text")
    assert max(found.values()) < 5_000


def test_nothing_goes_wrong_and_nothing_leaves_this_computer(opened):
    assert opened.errors == []
    assert opened.dialogs == []
    assert opened.outside == []
    assert any(a.endswith("bokeh.min.js") or "bokeh" in a for a in opened.addresses)
    assert any(a.startswith("ws://127.0.0.1:") for a in opened.addresses)


def test_page_fits_a_phone(browser, served):
    with open_tab(browser, served, width=375, height=740) as phone:
        phone.page.wait_for_selector(".estimates", timeout=20_000)
        phone.page.wait_for_timeout(300)
        assert phone.overflow <= 0
        assert phone.errors == []


def test_server_listens_on_loopback_to_its_own_page_only(served):
    port = int(served.rstrip("/").rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    others = {i[4][0] for i in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in others - {"127.0.0.1"}:
        with socket.socket() as probe:
            probe.settimeout(2)
            assert probe.connect_ex((address, port)) != 0
    assert shake_hands(port, f"http://127.0.0.1:{port}") == 101
    assert shake_hands(port, "http://elsewhere.example") == 403


def shake_hands(port, origin):
    """Ask for a websocket as a page of some origin does; return the status of the answer."""
    from urllib.request import urlopen

    page = urlopen(f"http://127.0.0.1:{port}/", timeout=20).read().decode()
    token = re.search(r'"token":\s*"([^"]+)"', page)[1]
    request = (
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: {origin}\r\n"
        f"Sec-WebSocket-Protocol: bokeh, {token}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request.encode())
        return int(connection.recv(64).split()[1])


def test_file_with_names_that_look_like_markup(browser, tmp_path):
    """Names of columns and groups are text, in a page of a file; then Ctrl-C ends the server."""
    hostile = ["<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "$$x$$", "d"]
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"<b>y": rng.normal(size=24), "g": np.repeat(hostile, 6)})
    path = tmp_path / "table.csv"
    frame.to_csv(path, index=False)
    with start(str(path), "`<b>y` ~ 1 + (1 | g)") as (process, address):
        with open_tab(browser, address) as tab:
            tab.page.wait_for_selector(".estimates", timeout=20_000)
            names = tab.page.locator(".level option").all_inner_texts()
            assert sorted(names) == sorted(hostile)
            tab.page.locator(".level select").select_option(label=hostile[0])
            tab.page.wait_for_function(f"({FIND})('.name').startsWith('<img')")
            tab.page.wait_for_timeout(500)  # until the last patch has come
            assert tab.dialogs == []
            assert tab.errors == []
            assert tab.outside == []
        assert stop(process) == (0, "Stopped.\n", "")


def test_notebook_shows_the_page(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    cells = [
        "import hmlm\n"
        "from hmlm.exploration_page import explore\n"
        "model = hmlm.Model('Yield ~ 1 + (1 | Batch)', hmlm.load_dataset('dyestuff'))\n"
        "explore(model)"
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    nbclient.NotebookClient(book, timeout=60, kernel_name="python3").execute(cwd=tmp_path)
    shown = [
        o for o in book.cells[0].outputs if o.output_type in ("display_data", "execute_result")
    ]
    assert not [o for o in book.cells[0].outputs if o.output_type == "error"]
    assert any("How much do the groups share?" in str(o["data"]) for o in shown)
    assert "text/html" in shown[-1]["data"]
    assert not re.search(r'<script[^>]*src=."https?://', str(shown))
