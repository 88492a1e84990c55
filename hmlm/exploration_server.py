"""The page of an explored model, served to browsers on this computer."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from hmlm.errors import HmlmError
from hmlm.exploration import begin_exploration, follow
from hmlm.exploration_page import Page, import_panel

ADDRESS = "127.0.0.1"


def serve_exploration(
    model: Any,
    group: str | None = None,
    labels: Mapping[str, str] | None = None,
    port: int = 0,
    browser: bool = True,
    tell: Callable[[str], None] = print,
) -> None:
    """Serve the page of `explore` to browsers on this computer until it is interrupted.

    Parameters
    ----------
    model, group, labels
        As in `explore`.
    port : int
        Port on 127.0.0.1; any free one when 0.
    browser : bool
        Whether to open a browser.
    tell : callable
        Is given the address when the page can be opened.

    Raises
    ------
    HmlmError
        If the port is taken, the model is of another kind, or Panel is not installed.
    """
    pn = import_panel()
    found = follow(begin_exploration(model, group))
    port = _free_port(port)
    server = pn.io.server.get_server(
        lambda: Page(found, labels or {}).view,
        port=port,
        address=ADDRESS,
        websocket_origin=[f"{ADDRESS}:{port}", f"localhost:{port}"],
        title=f"hmlm: {found.state.design.spec.outcome}",
        show=browser,
        start=False,
        verbose=False,
        check_unused_sessions_milliseconds=10_000,
    )
    server.start()
    tell(f"http://{ADDRESS}:{port}/")
    try:
        server.io_loop.start()
    finally:
        server.stop()


def _free_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except (OSError, OverflowError):
            raise HmlmError(
                f"port {port} of {ADDRESS} cannot be used: choose another one, or leave --port out."
            ) from None
        return int(probe.getsockname()[1])
