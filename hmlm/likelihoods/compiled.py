"""What compiled densities share: raw pointers, C signatures, and a mark of their sources."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from numba import types
from numba.extending import intrinsic

_doubles = types.CPointer(types.double)
LOGP = types.int64(types.uint64, _doubles, _doubles, _doubles, types.voidptr)
EXPAND = types.int64(types.uint64, types.uint64, _doubles, _doubles, types.voidptr)


@intrinsic
def as_doubles(typingctx, pointer):  # type: ignore[no-untyped-def]
    """Read a void pointer as a pointer to doubles."""
    signature = types.CPointer(types.double)(types.voidptr)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.bitcast(args[0], context.get_value_type(types.CPointer(types.double)))

    return signature, codegen


def fingerprint(modules: Iterable[Any]) -> int:
    """Return a number that changes with the source of any of these modules.

    Numba's cache on disk knows a function by its own file only. A closure variable is part of the
    key as well, so this keeps machine code of another version from being used.
    """
    digest = hashlib.sha256()
    for module in modules:
        digest.update(Path(str(module.__file__)).read_bytes())
    return int.from_bytes(digest.digest()[:7], "big") | 1
