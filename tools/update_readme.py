"""Run the Python of the README and write the table that it prints into the README."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
TABLE = re.compile(r"(```text\n)(.*?)(\n```)", re.DOTALL)


def run_code(text: str) -> str:
    """Return what the first Python block of a text prints."""
    found = CODE.search(text)
    if found is None:
        raise ValueError("there is no block of Python in the text")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(found[1], {})
    return printed.getvalue().strip("\n")


def main() -> int:
    """Write the README anew."""
    text = README.read_text(encoding="utf-8")
    printed = run_code(text)
    README.write_text(TABLE.sub(lambda m: m[1] + printed + m[3], text, count=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
