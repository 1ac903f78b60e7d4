#!/usr/bin/env python3
"""Reads a run directory with the tools its users have: pyarrow, pandas, DuckDB, TensorBoard.

    pip install pyarrow pandas duckdb tensorboard
    python tools/check_run.py crates/run/tests/compat/run_v1

Fails where any of them cannot read the run, or where they disagree with manifest.json.
"""

import json
import sys
import zlib
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.parquet as pq
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

COLUMNS = (
    "step group rollout task kind turn observation action reward end won tokens logprob entropy "
    "H h_norm g f_next base bonus centring advantage"
).split()


def flat(values, prefix=""):
    """Numbers of nested objects, keys joined by a slash."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and key != "step":
            yield f"{prefix}{key}", value


def main(root):
    manifest = json.loads((root / "manifest.json").read_text())
    assert manifest["format"] == 1, manifest["format"]

    prefix = manifest["metrics"]
    metrics = (root / "metrics.jsonl").read_bytes()[: prefix["bytes"]]
    assert zlib.crc32(metrics) == prefix["crc32"], "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.splitlines()]
    assert len(lines) == prefix["lines"]

    rows = 0
    for entry in manifest["trajectories"]:
        path = root / "trajectories" / f"step-{entry['step']:06}.parquet"
        assert zlib.crc32(path.read_bytes()) == entry["crc32"], path
        table = pq.read_table(path)
        assert table.column_names == COLUMNS, table.column_names
        assert str(table.schema.field("tokens").type.value_type) == "uint32"
        frame = pd.read_parquet(path)
        assert len(frame) == table.num_rows == entry["rows"]
        assert (frame["tokens"].map(len) == frame["entropy"].map(len)).all()
        count, tokens = duckdb.sql(
            f"select count(*), coalesce(sum(len(tokens)), 0) from '{path}'"
        ).fetchall()[0]
        assert count == entry["rows"] and tokens == frame["tokens"].map(len).sum()
        rows += count

    for entry in manifest["checkpoints"]:
        folder = root / "checkpoints" / f"step-{entry['step']:06}"
        state = (folder / "state.json").read_bytes()
        assert zlib.crc32(state) == entry["state_crc32"], folder
        for file in json.loads(state)["files"]:
            assert zlib.crc32((folder / file["name"]).read_bytes()) == file["crc32"], file

    events = EventAccumulator(str(root), size_guidance={"scalars": 0})
    events.Reload()
    for line in lines:
        for tag, value in flat(line):
            found = [e.value for e in events.Scalars(tag) if e.step == line["step"]]
            assert len(found) == 1 and abs(found[0] - value) <= 1e-6 * max(1, abs(value)), tag

    tags = len(events.Tags()["scalars"])
    print(f"{root}: {len(lines)} steps, {rows} rows, {tags} scalars, "
          f"{len(manifest['checkpoints'])} checkpoints: ok")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
