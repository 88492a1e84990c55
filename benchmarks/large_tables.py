"""Tables larger than memory for the benchmarks: written in pieces, the same for the same seed."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PIECE = 2_000_000  # rows made and written at a time

# True values of the table: y = 10 + u[g] + (0.5 + s[g]) wave + e.
SD_INTERCEPT, SD_SLOPE, SD_NOISE = 1.5, 0.3, 1.0
INTERCEPT, SLOPE = 10.0, 0.5
WAVES = 10

# name -> formula in lme4's notation
FORMULAS = {"waves": "y ~ wave + (wave | g)", "predictors": "y ~ x + z + (1 | g)"}


def write_waves(path: str | Path, rows: int, groups: int, seed: int = 1) -> Path:
    """Write a Parquet table of a panel: group `g`, `wave` from 0 to 9, outcome `y`, shuffled.

    Rows come in no order: every piece of the file holds nearly every group, which is the harder
    case for a group-by. Memory stays at about 100 MB, whatever the number of rows.
    """
    path = Path(path)
    rng = np.random.default_rng(seed)
    intercept = rng.normal(INTERCEPT, SD_INTERCEPT, groups).astype(np.float32)
    slope = rng.normal(SLOPE, SD_SLOPE, groups).astype(np.float32)
    schema = pa.schema([("g", pa.int32()), ("wave", pa.int8()), ("y", pa.float64())])
    options = {
        "compression": "snappy",
        "use_dictionary": ["wave"],
        "write_statistics": False,
    }
    with pq.ParquetWriter(path, schema, **options) as writer:
        for start in range(0, rows, PIECE):
            n = min(PIECE, rows - start)
            g = rng.integers(0, groups, n, dtype=np.int32)
            wave = rng.integers(0, WAVES, n, dtype=np.int8)
            y = rng.standard_normal(n)
            y *= SD_NOISE
            y += intercept[g]
            y += slope[g] * wave
            writer.write_table(pa.table([g, wave, y], schema=schema), row_group_size=n // 4 or 1)
    return path


def write_predictors(path: str | Path, rows: int, groups: int, seed: int = 1) -> Path:
    """Write a Parquet table of groups `g` with two continuous predictors, `x` and `z`."""
    path = Path(path)
    rng = np.random.default_rng(seed)
    g = rng.integers(0, groups, rows, dtype=np.int32)
    x, z, noise = rng.normal(size=(3, rows))
    y = 1 + 0.5 * x - 0.3 * z + rng.normal(0, 1, groups)[g] + 1.5 * noise
    pq.write_table(pa.table({"g": g, "x": x, "z": z, "y": y}), path)
    return path


def write_columns(table: Path, folder: Path) -> Path:
    """Write the columns of a Parquet table as plain binary files, which R reads at once."""
    folder.mkdir()
    source = pq.ParquetFile(table)
    for name in source.schema_arrow.names:
        integer = pa.types.is_integer(source.schema_arrow.field(name).type)
        with (folder / f"{name}.{'integer' if integer else 'double'}").open("wb") as file:
            for batch in source.iter_batches(PIECE, columns=[name]):
                kind = np.int32 if integer else np.float64
                file.write(batch.column(0).to_numpy().astype(kind).tobytes())
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--groups", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    start = time.perf_counter()
    path = write_waves(given.path, given.rows, given.groups, given.seed)
    seconds = time.perf_counter() - start
    print(f"{path}: {given.rows:,} rows, {path.stat().st_size / 1e9:.2f} GB, {seconds:.0f} s")


if __name__ == "__main__":
    main()
