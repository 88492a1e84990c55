"""Exponentials and logarithms of arrays as arithmetic that the compiler turns into vector code.

Both are right to a unit or two in the last place.
"""

from __future__ import annotations

import numba as nb
from numba import types
from numba.extending import intrinsic

MAGIC = 6755399441055744.0  # 1.5 * 2^52: adding it leaves the nearest whole number in the last bits
LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10
SMALLEST, LARGEST = -708.0, 709.0


@intrinsic
def _bits(typingctx, x):  # type: ignore[no-untyped-def]
    """Read a double as an integer."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.bitcast(args[0], context.get_value_type(types.int64))

    return types.int64(types.float64), codegen


@intrinsic
def _double(typingctx, x):  # type: ignore[no-untyped-def]
    """Read an integer as a double."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.bitcast(args[0], context.get_value_type(types.float64))

    return types.float64(types.int64), codegen


@nb.njit(nogil=True, error_model="numpy", inline="always")
def exp_of(x):  # type: ignore[no-untyped-def]
    """Return exp(x) for x between -708 and 709: 2^k times a Taylor polynomial."""
    t = x * LOG2_E + MAGIC
    k = t - MAGIC
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    p = 1.0 / 6227020800
    p = p * r + 1.0 / 479001600
    p = p * r + 1.0 / 39916800
    p = p * r + 1.0 / 3628800
    p = p * r + 1.0 / 362880
    p = p * r + 1.0 / 40320
    p = p * r + 1.0 / 5040
    p = p * r + 1.0 / 720
    p = p * r + 1.0 / 120
    p = p * r + 1.0 / 24
    p = p * r + 1.0 / 6
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    return p * _double((_bits(t) + 1023) << 52)


@nb.njit(nogil=True, error_model="numpy", inline="always")
def log1p_of(t):  # type: ignore[no-untyped-def]
    """Return log(1 + t) for t between 0 and 1: the series of the inverse hyperbolic tangent."""
    s = t / (2.0 + t)
    z = s * s
    p = 1.0 / 35
    p = p * z + 1.0 / 33
    p = p * z + 1.0 / 31
    p = p * z + 1.0 / 29
    p = p * z + 1.0 / 27
    p = p * z + 1.0 / 25
    p = p * z + 1.0 / 23
    p = p * z + 1.0 / 21
    p = p * z + 1.0 / 19
    p = p * z + 1.0 / 17
    p = p * z + 1.0 / 15
    p = p * z + 1.0 / 13
    p = p * z + 1.0 / 11
    p = p * z + 1.0 / 9
    p = p * z + 1.0 / 7
    p = p * z + 1.0 / 5
    p = p * z + 1.0 / 3
    p = p * z + 1.0
    return 2.0 * s * p


@nb.njit(nogil=True, error_model="numpy", fastmath={"contract", "nsz"})
def fill_exp(x, out):  # type: ignore[no-untyped-def]
    """Fill exp(x), which stays finite."""
    for i in range(x.shape[0]):
        out[i] = exp_of(min(max(x[i], SMALLEST), LARGEST))


@nb.njit(nogil=True, error_model="numpy", fastmath={"contract", "nsz"})
def fill_odds(x, t, logs):  # type: ignore[no-untyped-def]
    """Fill t = exp(-|x|) and log(1 + t)."""
    for i in range(x.shape[0]):
        t[i] = exp_of(max(-abs(x[i]), SMALLEST))
    for i in range(x.shape[0]):
        logs[i] = log1p_of(t[i])
