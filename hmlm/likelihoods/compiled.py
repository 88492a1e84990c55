"""What compiled densities share: raw pointers, C signatures, and a mark of their sources."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numba as nb
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


@nb.cfunc(EXPAND, cache=True, error_model="numpy")
def expand_address(dim, size, x_, out_, data):  # type: ignore[no-untyped-def]
    """Keep coordinates as they are, to be transformed after sampling."""
    x, out = nb.carray(x_, (dim,)), nb.carray(out_, (size,))
    for i in range(int(dim)):
        out[i] = x[i]
    return 0


def fingerprint(modules: Iterable[Any]) -> int:
    """Return a number that changes with the source of any of these modules.

    Numba's cache on disk knows a function by its own file only. A closure variable is part of the
    key as well, so this keeps machine code of another version from being used.
    """
    digest = hashlib.sha256()
    for module in modules:
        digest.update(Path(str(module.__file__)).read_bytes())
    return int.from_bytes(digest.digest()[:7], "big") | 1
