"""What was built, in a few lines."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bie_jax.files.parquet import read_parquet
from bie_jax.input.statistics import PERCENTILES
from data.records.shards import Shard
from data.records.share import Share


def print_summary(directory: Path, seconds: float, bytes_in: int | None) -> None:
    """What was built, for the person who asked for it.

    Args:
        directory: of the set.
        seconds: it took.
        bytes_in: size of what was read; None where that is not known.
    """
    statistics = json.loads((directory / "statistics.json").read_text())
    notes = json.loads((directory / "build.json").read_text())
    metadata = read_parquet(directory / "metadata.parquet")
    size = sum(path.stat().st_size for path in directory.iterdir())
    wells, sites = (len(metadata[keys].drop_duplicates()) for keys in (["plate", "well"], ["plate", "well", "site"]))
    out = sys.stdout
    print(f"{directory}{' (SIMULATED)' if statistics['simulated'] else ''}", file=out)
    print(f"  {statistics['description']}", file=out)
    bits = ""
    if statistics["kind"] == "images":
        stored = 8 * np.dtype(statistics["dtype"]).itemsize
        bits = f" {statistics['dtype']} ({statistics['bit_depth']} of {stored} bits in use)"
    print(
        f"  {len(metadata)} {examples_in(statistics)}{bits}, {metadata['plate'].nunique()} plates, {wells} wells, "
        f"{sites} sites",
        file=out,
    )
    read = "read from a server, how many bytes is not known" if bytes_in is None else f"{bytes_in:,} bytes read"
    print(
        f"  {read}; {size:,} bytes written, {seconds:.0f} s, {size / 1e6 / seconds:.0f} MB/s",
        file=out,
    )
    for name, percentiles in _spreads(statistics, metadata):
        print(f"  {name}: {', '.join(f'{q} %: {value:.5g}' for q, value in percentiles.items())}", file=out)
    for key, value in notes.items():
        if isinstance(value, list):
            print(f"  {key}: {len(value)}" + (f", e.g. {_shown(value[0])}" if value else ""), file=out)
        else:
            print(f"  {key}: {value}", file=out)


def print_share(name: str, share: Share, shards: Sequence[Shard], number_of_shards: int) -> None:
    """What one process made of a set, and what comes next.

    Args:
        name: of the set.
        share: of the process.
        shards: that it made.
        number_of_shards: of the set.
    """
    if not shards:
        print(
            f"part {share} of {name} has nothing to do: the set has {number_of_shards} "
            f"shard{'s' if number_of_shards > 1 else ''}, fewer than parts"
        )
        return
    left_out = sum(len(json.loads((shard.folder / "skipped.json").read_text())) for shard in shards)
    ends = shards[0].parts[0], shards[-1].parts[-1]
    print(
        f"part {share} of {name} is made: {len(shards)} of {number_of_shards} shards, from {ends[0]} to {ends[1]}"
        + (f"; {left_out} left out, which --join lists" if left_out else "")
        + "; when all parts are, the same command with --join instead makes the set"
    )


def examples_in(statistics: dict[str, Any]) -> str:
    """The examples of `statistics.json`: "images 24 x 32 x 2" or "outlines of 256 points"."""
    shape = statistics["image_shape"]
    if statistics["kind"] == "shapes":
        return f"outlines of {shape[0]} points"
    return f"images {' x '.join(map(str, shape))}"


def _spreads(statistics: dict[str, Any], metadata: pd.DataFrame) -> Iterator[tuple[str, dict[str, float]]]:
    """Percentiles of each channel's pixels, or of the outlines' sizes."""
    if statistics["kind"] == "shapes":
        for column in ("area_px", "scale_px"):
            yield column, {str(q): float(metadata[column].quantile(q / 100)) for q in PERCENTILES}
        return
    for c, name in enumerate(statistics["channel_names"]):
        yield name, {q: values[c] for q, values in statistics["overall"]["percentiles"].items()}


def _shown(entry: Any) -> str:
    return ": ".join(str(part) for part in entry if part) if isinstance(entry, list) else str(entry)
