"""Files of named arrays with a JSON description: what they are, and how they are read.

A file is a zarr store of format 3 (a folder, or packed into a .zip) or netCDF-4, through xarray:
groups of arrays, and a description of the whole that holds the checksum of every array. Nothing is
ever pickled, so that reading a file runs no code.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hmlm.errors import HmlmError
from hmlm.version import __version__

if TYPE_CHECKING:
    import xarray as xr

FORMAT = 1
SUFFIXES = {".zarr": "folder", ".zip": "zip", ".nc": "netcdf"}
DESCRIPTION = "description"
ROOT = "hmlm"


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Store:
    """A file that was opened and whose description was checked; arrays are read when asked for.

    Attributes
    ----------
    path : Path
        Where it is.
    kind : {"folder", "zip", "netcdf"}
        How it is stored.
    description : dict
        What stands beside the arrays.
    """

    path: Path
    kind: str
    description: Mapping[str, Any]

    def names(self, group: str) -> list[str]:
        """Return the names of the arrays of a group, in the order in which they were written."""
        return list(self.description["arrays"].get(group, {}))

    def arrays(self, group: str, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Read arrays of a group and hold them against their checksums.

        Raises
        ------
        HmlmError
            If an array is not what was written.
        """
        wanted = self.names(group) if names is None else list(names)
        if not wanted:
            return {}
        records = self.description["arrays"][group]
        found = {}
        with _reading(self.path), _opened(self.path, self.kind, group) as dataset:
            for name in wanted:
                record = records[name]
                values = np.asarray(dataset[record["file"]].to_numpy(), dtype=record["dtype"])
                values = np.asarray(values.reshape(record["shape"]), order=record["order"])
                if checksum(values) != record["sha256"]:
                    raise damaged(self.path, f"'{name}' is not what was saved")
                found[name] = values
        return found


class StoredArrays(Mapping[str, np.ndarray]):
    """Arrays of a file by name, each read when it is first asked for.

    Parameters
    ----------
    store : Store
        The file.
    group : str
        The group.
    names : sequence of str
        Names of the arrays.
    """

    def __init__(self, store: Store, group: str, names: Sequence[str]) -> None:
        self._store, self._group, self._names = store, group, tuple(names)
        self._read: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        """Return an array."""
        if name not in self._names:
            raise KeyError(name)
        if name not in self._read:
            self._read |= self._store.arrays(self._group, [name])
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        return iter(self._names)

    def __len__(self) -> int:
        """Return the number of arrays."""
        return len(self._names)


def damaged(path: Path, why: object) -> HmlmError:
    """Return the error about a file that cannot be read to its end."""
    return HmlmError(
        f"'{path}' is damaged, cut off, or was changed since it was opened ({why!s:.200}): take a "
        "copy of it, or fit the model again."
    )


def open_store(path: Path) -> Store:
    """Open a file and check that it is one of hmlm's, whole, and of a format known here.

    Raises
    ------
    HmlmError
        If it is not; the message names the file and says what to do.
    """
    if not path.exists():
        aside = sorted(path.parent.glob(f".{path.name}.*.old"))
        left = f" An earlier one was set aside as '{aside[-1]}': rename it." if aside else ""
        raise HmlmError(f"there is no file '{path}'.{left}")
    kind = kind_of(path)
    if not kind:
        raise HmlmError(f"'{path}' is no file of hmlm: load what fit.save(...) has written.")
    with _reading(path):
        head = read_head(path, kind)
    if "hmlm_format" not in head:
        raise HmlmError(f"'{path}' is no file of hmlm: load what fit.save(...) has written.")
    version = int(head["hmlm_format"])
    if version > FORMAT:
        raise HmlmError(
            f"'{path}' has format {version}, written by hmlm {head.get('hmlm_version')}; hmlm "
            f"{__version__} reads formats up to {FORMAT}: update hmlm."
        )
    with _reading(path):
        with _opened(path, kind, ROOT) as dataset:
            text = np.asarray(dataset[DESCRIPTION].to_numpy(), dtype=np.uint8).tobytes()
        if hashlib.sha256(text).hexdigest() != head["description_sha256"]:
            raise damaged(path, "its description is not what was saved")
        return Store(path=path, kind=kind, description=json.loads(text))


def kind_of(path: Path) -> str:
    """Return how a file is stored by its first bytes; '' where it is none of ours."""
    if path.is_dir():
        return "folder" if (path / "zarr.json").is_file() else ""
    with path.open("rb") as file:
        first = file.read(8)
    return {b"PK": "zip", b"\x89H": "netcdf"}.get(first[:2], "")


def read_head(path: Path, kind: str) -> dict[str, Any]:
    """Return the few words that stand before everything else in a file."""
    if kind == "netcdf":
        with _opened(path, kind, None) as dataset:
            return dict(dataset.attrs)
    if kind == "folder":
        text = (path / "zarr.json").read_text(encoding="utf-8")
    else:
        with zipfile.ZipFile(path) as archive:
            if "zarr.json" not in archive.namelist():
                return {}
            text = archive.read("zarr.json").decode()
    return dict(json.loads(text).get("attributes", {}))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what the readers raise into one error in words."""
    try:
        yield
    except HmlmError:
        raise
    except Exception as error:  # zarr, HDF5, zipfile and json raise errors of many kinds
        raise damaged(path, f"{type(error).__name__}: {error}") from error


@contextmanager
def _opened(path: Path, kind: str, group: str | None) -> Iterator[xr.Dataset]:
    import xarray as xr

    if kind == "netcdf":
        engine = netcdf_engine(path)
        with xr.open_dataset(path, engine=engine, group=group, decode_cf=False) as dataset:
            yield dataset
        return
    from zarr.storage import LocalStore, ZipStore

    # Format 3 only: the older one lets a file name pickle as the codec of an array.
    options: dict[str, Any] = {"consolidated": False, "zarr_format": 3, "decode_cf": False}
    store: Any = ZipStore(path, mode="r") if kind == "zip" else LocalStore(path, read_only=True)
    try:
        # chunks=None: numpy arrays that are read when asked for, whether dask is there or not.
        with xr.open_dataset(store, engine="zarr", group=group, chunks=None, **options) as dataset:
            yield dataset
    finally:
        store.close()


def netcdf_engine(path: Path) -> Any:
    """Return xarray's name for the library that reads and writes netCDF here.

    Raises
    ------
    HmlmError
        If there is none.
    """
    if find_spec("h5netcdf") and find_spec("h5py"):
        return "h5netcdf"
    if find_spec("netCDF4"):
        return "netcdf4"
    raise HmlmError(
        f"'{path}' is netCDF, which needs h5netcdf and h5py: install them with pip install "
        "'hmlm[netcdf]', or save to a name that ends in .zarr or .zip."
    )


def checksum(values: np.ndarray) -> str:
    """Return the SHA-256 of type, shape and values, those in C order."""
    digest = hashlib.sha256(f"{values.dtype.str}{values.shape}".encode())
    digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
