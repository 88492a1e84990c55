"""One progress bar for all that takes its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(
    label: str, total: int, show: bool = True, stay: bool = False
) -> Iterator[Callable[[float], None]]:
    """Show a progress bar while the context is open.

    Parameters
    ----------
    label : str
        What it says.
    total : int
        Steps in all.
    show : bool
        Whether to show it.
    stay : bool
        Whether it stays when all is done.

    Yields
    ------
    callable
        Moves the bar on by a number of steps.

    Examples
    --------
    >>> with progress_bar("Slices", 3, show=False) as advance:
    ...     advance(1)
    """
    if not show:
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, transient=not stay) as progress:
        bar = progress.add_task(label, total=total)
        yield lambda steps: progress.advance(bar, steps)
