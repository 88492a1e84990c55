"""A pytest plugin (``-p plain_kernels``) that leaves the compiled functions of hmlm plain Python.

Line coverage and mutation testing need to see and to change single lines of them. Functions that
PyTensor and others compile are compiled as ever. What samples needs machine code, and fails.
"""

import ctypes
import signal
import struct

import numba as nb
import numba.extending
import numpy as np
import pytest

DOUBLES = ctypes.POINTER(ctypes.c_double)
LOW = (1 << 64) - 1
SECONDS = 60  # for one test
njit, cfunc, intrinsic = nb.njit, nb.cfunc, numba.extending.intrinsic


def _as_doubles(address):
    return ctypes.cast(address, DOUBLES)


def _bits(x):
    return struct.unpack("<q", struct.pack("<d", x))[0]


def _double(k):
    return struct.unpack("<d", struct.pack("<Q", k & LOW))[0]


INTRINSICS = {"as_doubles": _as_doubles, "_bits": _bits, "_double": _double}


def _is_ours(function):
    return function.__module__.startswith("hmlm.")


def _plain_njit(*args, **settings):
    if len(args) == 1 and not settings and callable(args[0]):
        return _plain_njit()(args[0])

    def decorate(function):
        if not _is_ours(function):
            return njit(*args, **settings)(function)
        function.py_func = function
        return function

    return decorate


def _plain_cfunc(*args, **settings):
    def decorate(function):
        if not _is_ours(function):
            return cfunc(*args, **settings)(function)
        function.ctypes = function  # called with the pointers that machine code would get
        return function

    return decorate


def _plain_intrinsic(*args, **settings):
    if len(args) == 1 and callable(args[0]) and _is_ours(args[0]):
        return INTRINSICS[args[0].__name__]
    return intrinsic(*args, **settings)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests():
    """Take the place of Numba's decorators before anything of hmlm is imported."""
    nb.njit, nb.cfunc, numba.extending.intrinsic = _plain_njit, _plain_cfunc, _plain_intrinsic


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Divide by zero without a word, as compiled code does, and end a test that takes too long."""
    np.seterr(all="ignore")
    signal.signal(signal.SIGALRM, _stop)
    signal.alarm(SECONDS)


def pytest_runtest_teardown(item):
    """Take back the alarm."""
    signal.alarm(0)


def _stop(number, frame):
    raise TimeoutError(f"more than {SECONDS} seconds as plain Python")
