"""Reading run directories. A versioned run of the crate that writes them is always there; with
EMPG_BIN a run is made by the program itself."""

import json
import os
import shutil
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest

import empg

FIXTURE = Path(__file__).parents[2] / "run" / "tests" / "compat" / "run_v1"


@pytest.fixture
def run(tmp_path):
    """A copy that may be changed."""
    folder = tmp_path / "run"
    shutil.copytree(FIXTURE, folder)
    return folder


def commit(folder, lines):
    """Writes metrics and the manifest that commits them."""
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()
    (folder / "metrics.jsonl").write_bytes(text)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["metrics"] = {"bytes": len(text), "lines": len(lines), "crc32": zlib.crc32(text)}
    manifest["step"] = lines[-1]["step"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_run_of_format_1():
    run = empg.read_run(FIXTURE)
    assert run.step == 4 and run.path == str(FIXTURE)
    assert run.config == {"trainer": {"steps": 4}}
    assert run.manifest["best"] == 2 and run.manifest["info"] == {"program": "empg", "seed": 1}
    metrics = run.metrics
    assert metrics.column_names == ["step", "entropy.mean", "success"]
    assert metrics.num_rows == 4 and len(metrics) == 4 and len(list(metrics)) == 3
    assert metrics["step"].dtype == np.int64 and list(metrics["step"]) == [1, 2, 3, 4]
    assert list(metrics["success"]) == [0.25, 0.5, 0.75, 1.0]
    assert list(run.timings["seconds"]) == [0.5] * 4
    assert run.evaluations.num_rows == 0
    assert run.panels == ["unseen"] and run.panel("unseen")["task"] == ["unseen/1"]
    assert run.trajectory_steps == [1, 2, 3, 4]


def test_trajectories():
    run = empg.read_run(FIXTURE)
    rows = run.trajectories()
    assert rows.num_rows == 8 and list(rows["step"]) == [1, 1, 2, 2, 3, 3, 4, 4]
    two = run.trajectories(2)
    assert list(two["turn"]) == [0, 1] and two["turn"].dtype == np.uint32
    assert two["tokens"][0].dtype == np.uint32 and list(two["tokens"][0]) == [7, 2147483648, 2]
    assert two["entropy"][0].dtype == np.float32 and list(two["entropy"][0]) == [0.5, 1.25, 0.0]
    assert two["f_next"][0] == 0.8 and np.isnan(two["f_next"][1])
    assert two["won"].dtype == np.bool_ and two["action"][0] == "go to fridge 1"
    assert list(run.trajectories([4, 1])["step"]) == [4, 4, 1, 1]
    assert list(run.trajectories(range(3, 5))["step"]) == [3, 3, 4, 4]
    assert run.trajectories(np.int64(3)).num_rows == 2
    assert run.trajectories([]).num_rows == 0 and run.trajectories([])["H"].shape == (0,)


def test_other_packages_agree():
    run = empg.read_run(FIXTURE)
    frames = [run.metrics, run.timings, run.trajectories(), run.panel("unseen"), run.evaluations]
    frames.append(run.trajectories([]))
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    arrow = pytest.importorskip("pyarrow")
    for frame in frames:
        table, polar, panda = frame.to_arrow(), frame.to_polars(), frame.to_pandas()
        assert isinstance(panda, pandas.DataFrame) and isinstance(table, arrow.Table)
        assert table.column_names == polar.columns == list(panda.columns) == frame.column_names
        assert table.num_rows == polar.height == len(panda) == frame.num_rows
        assert polars.DataFrame(frame).equals(polar)
        assert polars.from_arrow(table).equals(polar) or frame.num_rows == 0
        for name in frame:
            values = [None if v != v else v for v in map(plain, frame[name])]
            assert [plain(v) for v in table[name].to_pylist()] == values
            assert [None if v is None else plain(v) for v in polar[name].to_list()] == values
    table = run.trajectories().to_arrow()
    file = FIXTURE / "trajectories" / "step-000002.parquet"
    original = pytest.importorskip("pyarrow.parquet").read_table(file)
    mine = run.trajectories(2).to_arrow()
    assert mine.column_names == original.column_names
    assert mine.to_pylist() == original.to_pylist()
    assert table.schema.field("f_next").nullable


def plain(value):
    if isinstance(value, (list, np.ndarray)):
        return [float(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def test_uneven_nested_and_mixed_metrics(run):
    commit(
        run,
        [
            {"step": 0, "eval": [{"split": "unseen", "success": 0.5, "by_task": {"heat": {"won": 1}}}]},
            {"step": 1, "loss": 1, "flag": True, "name": "a", "deep": {"a": {"b": 2}, "c": {}}},
            {
                "step": 2,
                "loss": 0.5,
                "flag": None,
                "name": "b",
                "list": [1, 2],
                "mixed": "x",
                "eval": [{"split": "seen", "success": 1.0}, {"split": "unseen", "success": 0.0}],
            },
            {"step": 3, "loss": None, "flag": False, "mixed": 3, "big": 2**63},
        ],
    )
    opened = empg.read_run(run)
    metrics = opened.metrics
    assert metrics.column_names[0] == "step" and "eval" not in metrics
    np.testing.assert_array_equal(metrics["loss"], [np.nan, 1.0, 0.5, np.nan])
    assert metrics["flag"] == [None, True, None, False]
    assert metrics["name"] == [None, "a", "b", None]
    np.testing.assert_array_equal(metrics["deep.a.b"], [np.nan, 2, np.nan, np.nan])
    assert metrics["deep.c"] == [None, "{}", None, None]
    assert metrics["list"] == [None, None, "[1,2]", None]
    assert metrics["mixed"] == [None, None, '"x"', "3"]
    assert metrics["big"][3] == 2.0**63
    evaluations = opened.evaluations
    assert list(evaluations["step"]) == [0, 2, 2]
    assert evaluations["split"] == ["unseen", "seen", "unseen"]
    np.testing.assert_array_equal(evaluations["by_task.heat.won"], [1, np.nan, np.nan])
    pytest.importorskip("pyarrow")
    assert metrics.to_arrow()["deep.a.b"].to_pylist() == [None, 2, None, None]


def test_a_run_that_is_being_written(run):
    opened = empg.read_run(run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step":5,"success":0.5}\n{"st')
    with (run / "timings.jsonl").open("a") as file:
        file.write('{"step":5,"seconds":1.0}\n')
    # What the manifest does not name is not there yet.
    assert opened.metrics.num_rows == opened.timings.num_rows == 4
    lines = [json.loads(l) for l in (run / "metrics.jsonl").read_text().splitlines()[:5]]
    commit(run, lines)
    assert opened.step == 4 and opened.metrics.num_rows == 4
    assert opened.refresh() is opened
    assert opened.step == 5 and opened.metrics.num_rows == opened.timings.num_rows == 5


def test_what_is_no_run(tmp_path, run):
    for path in (tmp_path, tmp_path / "nothing", run / "config.toml"):
        with pytest.raises(FileNotFoundError, match="is not a run: it has no manifest.json"):
            empg.read_run(path)
    for path in (3, None, b"run"):
        with pytest.raises(TypeError, match="path is"):
            empg.read_run(path)
    manifest = run / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(ValueError, match="run format 2, this program reads and writes format 1"):
        empg.read_run(run)
    manifest.write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match="manifest.json is damaged .line"):
        empg.read_run(run)


def test_damaged_files(run):
    opened = empg.read_run(run)
    (run / "metrics.jsonl").write_text('{"step":1}\n')
    with pytest.raises(ValueError, match="metrics.jsonl is damaged: committed lines"):
        opened.metrics  # noqa: B018
    with pytest.raises(ValueError, match="damaged"):
        opened.evaluations  # noqa: B018
    (run / "timings.jsonl").write_text("[]\n")
    with pytest.raises(ValueError, match="timings.jsonl, line 1"):
        opened.timings  # noqa: B018
    file = run / "trajectories" / "step-000002.parquet"
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="step-000002.parquet is damaged"):
        opened.trajectories()
    assert opened.trajectories(1).num_rows == 2
    file.unlink()
    with pytest.raises((ValueError, OSError), match="step-000002.parquet"):
        opened.trajectories(2)
    (run / "config.toml").write_text("a = [")
    with pytest.raises(ValueError, match="config.toml is no TOML"):
        opened.config  # noqa: B018
    (run / "config.toml").unlink()
    with pytest.raises(OSError, match="config.toml"):
        opened.config  # noqa: B018


def test_wrong_arguments():
    run = empg.read_run(FIXTURE)
    for steps, kind, text in (
        (9, ValueError, "no trajectories of step 9"),
        (-1, ValueError, "steps holds -1"),
        ("2", TypeError, "steps is '2'"),
        ([1, "2"], TypeError, "steps holds '2'"),
        (1.5, TypeError, "steps holds 1.5"),
        ([True], TypeError, "steps holds True"),
    ):
        with pytest.raises(kind, match=text):
            run.trajectories(steps)
    for name in ("../manifest", "", "a/b"):
        with pytest.raises(ValueError, match="cannot be used as a file name"):
            run.panel(name)
    with pytest.raises(OSError, match="nothing.jsonl"):
        run.panel("nothing")
    with pytest.raises(KeyError, match="no column is called .*: there are step, entropy.mean, success"):
        run.metrics["los"]
    assert "los" not in run.metrics and "success" in run.metrics


@pytest.mark.skipif("EMPG_BIN" not in os.environ, reason="set EMPG_BIN to the program empg")
def test_a_run_of_the_program(tmp_path):
    settings = (
        "rollout.groups=2 rollout.group_size=2 rollout.max_turns=3 algo.dynamic_sampling=false "
        "algo.minibatches=1 eval.episodes=2 record.trajectories_every=1 reward.invalid_penalty=0.1"
    )
    command = [os.environ["EMPG_BIN"], "train", "--steps", "2", "--seed", "3", "--threads", "2"]
    for setting in settings.split():
        command += ["--set", setting]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "households-dapo-empg-s3"
    run = empg.read_run(folder)
    assert run.step == 2 and run.config["steps"] == 2 and run.config["seed"] == 3
    assert list(run.metrics["step"])[-2:] == [1, 2]
    assert {"episodes", "success", "return"} <= set(run.metrics)
    assert list(run.evaluations["split"]) == ["unseen"] * 2
    assert run.evaluations["step"][0] == 0 and run.panel("unseen").num_rows == 2
    rows = run.trajectories()
    assert rows.num_rows > 0 and set(rows["step"]) <= {1, 2}
    for tokens, entropy in zip(rows["tokens"], rows["entropy"], strict=True):
        assert len(tokens) == len(entropy)
