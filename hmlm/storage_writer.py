"""Files of named arrays with a JSON description, written beside their place and then put there."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import uuid
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hmlm.errors import HmlmError
from hmlm.placing import find_place, not_written, put_made
from hmlm.storage_format import (
    DESCRIPTION,
    FORMAT,
    ROOT,
    SUFFIXES,
    checksum,
    kind_of,
    netcdf_engine,
    read_head,
)
from hmlm.version import __version__

if TYPE_CHECKING:
    import xarray as xr

LONGEST_NAME = 100


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class ArrayGroup:
    """Arrays that go into one group of a file.

    Attributes
    ----------
    arrays : mapping of str to ndarray
        The arrays.
    dims : mapping of str to tuple of str
        Their dimensions, where these have names.
    coords : mapping of str to ndarray
        Values along dimensions.
    """

    arrays: Mapping[str, np.ndarray]
    dims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    coords: Mapping[str, np.ndarray] = field(default_factory=dict)


def write_store(
    path: Path, groups: Mapping[str, ArrayGroup], description: dict[str, Any], heads: dict[str, str]
) -> None:
    """Write a file beside its place, then put it there in one step.

    Parameters
    ----------
    path : Path
        Where to; its suffix says how: .zarr, .zip or .nc.
    groups : mapping of str to ArrayGroup
        The arrays.
    description : dict
        What stands beside them, fit for JSON; the records of the arrays are added to it.
    heads : dict of str to str
        A few words for those who open the file with other tools.

    Raises
    ------
    HmlmError
        If the place is taken by something else, or the file cannot be written; what was there
        before is then as it was.
    """
    target, kind = _check_target(path)
    token = uuid.uuid4().hex[:12]
    folder = target.with_name(f".{target.name}.{token}.tmp")
    file = target.with_name(f".{target.name}.{token}.tmp{target.suffix}")
    records: dict[str, Any] = {}
    datasets = {
        name: _dataset(group, records.setdefault(name, {})) for name, group in groups.items()
    }
    text = json.dumps({**description, "arrays": records}, allow_nan=False).encode()
    try:
        whole = {ROOT: _text_dataset(text), **datasets}
        head = {
            "hmlm_format": FORMAT,
            "hmlm_version": __version__,
            "description_sha256": hashlib.sha256(text).hexdigest(),
            **heads,
        }
        if kind == "netcdf":
            _write_netcdf(file, head, whole)
        else:
            _write_zarr(folder, head, whole)
        if kind == "zip":
            _pack(folder, file)
        put_made(folder if kind == "folder" else file, target)
    except Exception as error:
        raise not_written(path, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        file.unlink(missing_ok=True)


def _check_target(path: Path) -> tuple[Path, str]:
    """Return where to write and how, and refuse to replace what is not hmlm's own."""
    kind = SUFFIXES.get(path.suffix.lower(), "")
    if not kind:
        raise HmlmError(
            f"'{path}' does not say how to store the fit: end it in .zarr (a folder), .zip (the "
            "same as one file) or .nc (netCDF)."
        )
    target = find_place(path)
    if kind == "netcdf":
        netcdf_engine(path)
    if target.exists() and not _is_ours(target, kind):
        raise HmlmError(
            f"'{path}' is there already and is no file of hmlm that can be read: it is left alone. "
            "Choose another name, or remove it yourself."
        )
    return target, kind


def _is_ours(target: Path, kind: str) -> bool:
    try:
        return kind_of(target) == kind and "hmlm_format" in read_head(target, kind)
    except Exception:  # whatever cannot be read is not ours to replace
        return False


def file_names(names: Iterable[str]) -> dict[str, str]:
    """Return a name for each that every file system takes, also one that ignores case.

    Examples
    --------
    >>> file_names(["x", "X", "../y"])
    {'x': 'x', 'X': 'X~2', '../y': '%..%2Fy'}
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        plain = re.sub(r"[^\w .=()-]", lambda m: f"%{ord(m[0]):02X}", name)[:LONGEST_NAME]
        plain = f"%{plain}" if plain[:1] in (".", "") else plain.rstrip(" .")
        base, k = plain, 1
        while plain.lower() in taken:
            k += 1
            plain = f"{base}~{k}"
        taken.add(plain.lower())
        found[name] = plain
    return found


def _dataset(group: ArrayGroup, records: dict[str, Any]) -> xr.Dataset:
    """Make a dataset of a group, and note how each array is to be read again."""
    import xarray as xr

    dims = {
        name: group.dims.get(name, tuple(f"{name} axis {k}" for k in range(np.ndim(values))))
        for name, values in group.arrays.items()
    }
    used = dict.fromkeys(d for ds in dims.values() for d in ds)
    files = file_names([*group.arrays, *used])
    variables = {}
    for name, given in group.arrays.items():
        values = np.asarray(given)
        is_f = values.flags.f_contiguous and not values.flags.c_contiguous
        records[name] = {
            "file": files[name],
            "dtype": values.dtype.str,
            "shape": list(values.shape),
            "order": "F" if is_f else "C",
            "sha256": checksum(values),
        }
        if values.dtype == bool:
            values = values.astype(np.uint8)
        elif values.dtype == np.float16:  # netCDF has none
            values = values.astype(np.float32)
        variables[files[name]] = (tuple(files[d] for d in dims[name]), values)
    coords = {files[d]: (files[d], v) for d, v in group.coords.items() if d in used}
    return xr.Dataset(variables, coords=coords)


def _text_dataset(text: bytes) -> xr.Dataset:
    import xarray as xr

    return xr.Dataset({DESCRIPTION: (("byte",), np.frombuffer(text, dtype=np.uint8))})


def _write_zarr(folder: Path, head: dict[str, Any], groups: Mapping[str, xr.Dataset]) -> None:
    import xarray as xr

    xr.Dataset(attrs=head).to_zarr(folder, mode="w", zarr_format=3, consolidated=False)
    for name, dataset in groups.items():
        dataset.to_zarr(folder, group=name, mode="w", zarr_format=3, consolidated=False)


def _write_netcdf(file: Path, head: dict[str, Any], groups: Mapping[str, xr.Dataset]) -> None:
    import xarray as xr

    engine = netcdf_engine(file)
    # h5py takes the whole process down, later, when a disk fills up under it: it writes to memory.
    place: Any = BytesIO() if engine == "h5netcdf" else file
    xr.Dataset(attrs=head).to_netcdf(place, mode="w", engine=engine)
    for name, dataset in groups.items():
        dataset.to_netcdf(place, mode="a", group=name, engine=engine)
    if place is not file:
        with file.open("xb") as disk:
            disk.write(place.getbuffer())


def _pack(folder: Path, file: Path) -> None:
    """Pack a folder into a .zip; its chunks are compressed already."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for piece in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(piece, piece.relative_to(folder).as_posix())
