"""Files and folders made beside their place, then put there whole."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hmlm.errors import HmlmError


def find_place(path: Path) -> Path:
    """Return where a path leads to, links followed.

    Raises
    ------
    HmlmError
        If it lies in no folder.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise HmlmError(f"there is no folder '{target.parent}' to write '{path.name}' to: make it.")
    return target


@contextmanager
def put_whole(path: Path) -> Iterator[Path]:
    """Give a place beside a path in which to make a file or folder; then put it there in one step.

    Parameters
    ----------
    path : Path
        The place.

    Yields
    ------
    Path
        Where to make it.

    Raises
    ------
    HmlmError
        If it cannot be written; what was there before is then as it was.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with put_whole(Path(folder, "a.txt")) as made:
    ...         n = made.write_text("whole")
    ...     [p.name for p in Path(folder).iterdir()]
    ['a.txt']
    """
    target = find_place(path)
    made = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        yield made
        put_made(made, target)
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
        if made.is_file():
            made.unlink()


def not_written(path: Path, error: Exception) -> HmlmError:
    """Return the error that says why a place could not be written, and what to do."""
    return HmlmError(
        f"'{path}' could not be written ({error!s:.300}); what was there before is as it was. "
        "Check the space left and the rights of the folder, or write to another place."
    )


def put_made(made: Path, target: Path) -> None:
    """Put what was made in its place: a file in one step, a folder by two renamings.

    Parameters
    ----------
    made : Path
        A file or folder beside its place, ``.<name>.<token>.tmp``.
    target : Path
        The place. A folder that is there is set aside as ``.<name>.<token>.old`` in between.
    """
    if made.is_file():
        with made.open("rb+") as file:
            os.fsync(file.fileno())
    if not target.is_dir():
        made.replace(target)
        return
    aside = made.with_suffix(".old")
    target.rename(aside)
    try:
        made.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)
