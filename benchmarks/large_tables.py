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
