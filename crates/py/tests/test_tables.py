"""What TensorBoard, pandas, DuckDB and Polars show of a run, all of them the real packages."""

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import empg
from tracked import folder, lines, scalars

pytestmark = pytest.mark.skipif("EMPG_BIN" not in os.environ, reason="set EMPG_BIN to the program empg")


# TensorBoard


def test_tensorboard_opens_the_event_file(folder):
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = module.EventAccumulator(str(folder), size_guidance={module.SCALARS: 0})
    events.Reload()
    shown = {
        (tag, event.step): event
        for tag in events.Tags()["scalars"]
        for event in events.Scalars(tag)
    }
    expected = scalars(folder)
    assert set(shown) == set(expected)
    for key, value in expected.items():
        assert shown[key].value == float(np.float32(value)), key
    created = json.loads((folder / "created.json").read_text())["unix_seconds"]
    times = [event.wall_time for event in sorted(shown.values(), key=lambda event: event.step)]
    assert created <= times[0] and times == sorted(times)


def test_tensorboards_server_side_reads_a_folder_of_runs(folder):
    module = pytest.importorskip("tensorboard.backend.event_processing.plugin_event_multiplexer")
    from tensorboard.util import tensor_util

    multiplexer = module.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder.parent))
    multiplexer.Reload()
    assert folder.name in multiplexer.Runs()
    tags = multiplexer.PluginRunToTagToContent("scalars")[folder.name]
    expected = scalars(folder)
    assert set(tags) == {name for name, _ in expected}
    for event in multiplexer.Tensors(folder.name, "tokens_per_s"):
        value = tensor_util.make_ndarray(event.tensor_proto).item()
        assert value == np.float32(expected["tokens_per_s", event.step])


# Trajectories


def same(mine, theirs):
    if isinstance(mine, (list, np.ndarray)):
        return len(mine) == len(theirs) and all(same(a, b) for a, b in zip(mine, theirs, strict=True))
    if mine is None or (isinstance(mine, (float, np.floating)) and math.isnan(mine)):
        return theirs is None or theirs != theirs
    return mine == theirs


def test_pandas_duckdb_and_polars_read_trajectories(folder):
    pandas, duckdb = pytest.importorskip("pandas"), pytest.importorskip("duckdb")
    polars = pytest.importorskip("polars")
    run = empg.read_run(folder)
    pattern = str(folder / "trajectories" / "*.parquet")
    order = "step, \"group\", rollout, turn"
    table = duckdb.sql(f"from read_parquet('{pattern}') order by {order}")
    files = sorted((folder / "trajectories").glob("*.parquet"))
    assert len(files) == 3
    panda = pandas.concat([pandas.read_parquet(file) for file in files], ignore_index=True)
    panda = panda.sort_values(["step", "group", "rollout", "turn"], ignore_index=True)
    polar = polars.read_parquet(pattern).sort("step", "group", "rollout", "turn")
    mine = run.trajectories().to_pandas()
    mine = mine.sort_values(["step", "group", "rollout", "turn"], ignore_index=True)
    assert list(mine.columns) == list(panda.columns) == polar.columns == table.columns
    assert {"tokens", "entropy", "f_next", "won", "action", "advantage"} <= set(mine.columns)
    duck = table.fetchall()
    assert len(mine) == len(panda) == polar.height == len(duck) > 0
    assert mine["f_next"].isna().any() and mine["f_next"].notna().any()
    for index, name in enumerate(mine.columns):
        for row, value in enumerate(mine[name]):
            assert same(value, panda[name][row]), (name, row)
            assert same(value, polar[name][row]), (name, row)
            assert same(value, duck[row][index]), (name, row)


def test_duckdb_computes_over_lists_of_tokens(folder):
    duckdb = pytest.importorskip("duckdb")
    pattern = str(folder / "trajectories" / "*.parquet")
    rows = duckdb.sql(
        f"select H, list_avg(entropy), len(tokens), len(entropy), len(logprob), advantage, "
        f"base * g + bonus - centring from '{pattern}'"
    ).fetchall()
    for entropy, mean, *lengths, advantage, again in rows:
        assert mean == pytest.approx(entropy, abs=1e-6) and len(set(lengths)) == 1
        assert again == pytest.approx(advantage, abs=1e-9)
    tokens = duckdb.sql(f"select count(*) from (select unnest(tokens) from '{pattern}')").fetchall()
    assert tokens == [(sum(row[2] for row in rows),)]
    lengths = duckdb.sql(
        f"select step, count(distinct (\"group\", rollout)) from '{pattern}' group by step order by step"
    ).fetchall()
    assert lengths == [(1, 4), (2, 4), (3, 4)]
    curve = duckdb.sql(f"select step, success from '{folder / 'metrics.jsonl'}' order by step").fetchall()
    assert curve == [(line["step"], line.get("success")) for line in lines(folder, "metrics.jsonl")]


def test_the_examples_of_the_page_run(folder, tmp_path, monkeypatch, capsys):
    for package in ("pandas", "duckdb", "polars"):
        pytest.importorskip(package)
    page = (Path(__file__).parents[3] / "docs" / "trackers.md").read_text()
    examples = [part.split("```")[0] for part in page.split("```python\n")[1:]]
    assert len(examples) == 3
    (tmp_path / "runs").mkdir()
    shutil.copytree(folder, tmp_path / "runs" / "NAME")
    monkeypatch.chdir(tmp_path)
    shown = []
    for example in examples:
        exec(compile(example, "docs/trackers.md", "exec"), {})
        shown.append(capsys.readouterr().out)
    assert "peak" in shown[0] and "pick_" in shown[0] and "advantage" in shown[1]
    assert "runs/NAME/metrics.jsonl" in shown[2] and "tokens" in shown[2]
