"""What the real W&B package writes of a run."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
import tomllib
import zlib

import pytest

from tracked import PATIENCE, folder, scalars, wait

pytestmark = pytest.mark.skipif("EMPG_BIN" not in os.environ, reason="set EMPG_BIN to the program empg")


def records(path):
    """The records of a .wandb file: LevelDB's log format behind a header of seven bytes."""
    proto = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    at, whole = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        # 1 is a record, 2 to 4 are the first, middle and last part of one.
        if kind in (1, 4):
            record = proto.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def wandb_history(root, identity):
    [written] = root.glob(f"wandb/offline-run-*-{identity}/run-{identity}.wandb")
    history, config, summary, runs, codes = {}, {}, {}, [], []
    for record in records(written):
        if record.HasField("history"):
            row = {}
            for item in record.history.item:
                row[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
            step = int(row.pop("_step", record.history.step.num))
            row.pop("_runtime", None)
            assert step not in history
            history[step] = row
        if record.HasField("run"):
            runs.append(record.run)
            for item in record.run.config.update:
                config[item.key or item.nested_key[0]] = json.loads(item.value_json)
        if record.HasField("summary"):
            for item in record.summary.update:
                summary[item.key or item.nested_key[0]] = json.loads(item.value_json)
        if record.HasField("exit"):
            codes.append(record.exit.exit_code)
    return history, config, summary, runs, codes


def wandb(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "empg.track", "wandb", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "WANDB_SILENT": "true"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_runs_that_differ_in_their_seed_only_are_one_group():
    from empg.track import _group

    info = {"env": "households", "algo": "DAPO + EMPG"}

    def group(**changes):
        config = {
            "seed": 0, "steps": 40, "env": {"name": "households", "data": "/a"},
            "optim": {"lr": 1e-3}, "empg": {"enabled": True, "k": 1.0},
            "checkpoint": {"every": 10}, "record": {"track": []},
        }  # fmt: skip
        for key, value in changes.items():
            section, _, name = key.partition("__")
            if name:
                config[section] = {**config[section], name: value}
            else:
                config[section] = value
        return _group(info, config)

    one = group()
    assert one.startswith("households DAPO + EMPG ")
    same = [{"seed": 7}, {"env__data": "/b"}, {"checkpoint__every": 5}, {"record__track": ["mlflow=x"]}]
    assert {group(**change) for change in same} == {one}
    others = [{"optim__lr": 2e-3}, {"empg__k": 2.0}, {"steps": 50}, {"empg__enabled": False}]
    assert len({one, *(group(**change) for change in others)}) == 5
    # What EMPG would do says nothing of a run without it.
    assert group(empg__enabled=False) == group(empg={"enabled": False, "k": 3.0})
    assert _group(info, {}) == "households DAPO + EMPG" and _group({}, {"steps": 1}) is None


def test_wandb_has_the_run_offline(folder, tmp_path):
    pytest.importorskip("wandb")
    from empg.track import wandb_id

    told = wandb(folder, "--mode", "offline", "--dir", tmp_path, "--project", "household tasks")
    identity = wandb_id(folder)
    assert told.strip() == f"{folder}: household tasks/{identity}"
    history, config, summary, runs, codes = wandb_history(tmp_path, identity)
    expected = scalars(folder)
    shown = {(key, step): v for step, row in history.items() for key, v in row.items()}
    times = [shown.pop(("_timestamp", step)) for step in sorted(history)]
    assert shown == expected and times == sorted(times)
    created = json.loads((folder / "created.json").read_text())["unix_seconds"]
    assert created <= times[0] < created + PATIENCE
    mine = tomllib.loads((folder / "config.toml").read_text())
    assert config["rollout"] == mine["rollout"] and config["seed"] == 3
    assert config["empg_run"]["algo"] == "DAPO + EMPG"
    assert summary["status"] == "finished" and summary["success"] == expected["success", 3]
    run = runs[0]
    assert (run.run_id, run.project, run.display_name) == (identity, "household tasks", folder.name)
    assert re.fullmatch(r"households DAPO \+ EMPG [0-9a-f]{8}", run.run_group) and codes == [0]

    # Once more: the new files take the place of the old.
    [old] = tmp_path.glob(f"wandb/offline-run-*-{identity}")
    wandb(folder, "--mode", "offline", "--dir", tmp_path, "--project", "household tasks")
    assert not old.exists()
    again = wandb_history(tmp_path, identity)[0]
    assert {step: set(row) for step, row in again.items()} == {step: set(row) for step, row in history.items()}


def test_an_offline_run_for_another_project_keeps_the_first(folder, tmp_path):
    pytest.importorskip("wandb")
    from empg.track import wandb_id

    def written():
        return set(tmp_path.glob(f"wandb/offline-run-*-{wandb_id(folder)}"))

    # W&B names its folders by the second.
    def send(*more):
        time.sleep(1.1)
        wandb(folder, "--mode", "offline", "--dir", tmp_path, *more)

    send("--project", "a")
    first = written()
    send("--project", "b")
    assert len(written()) == 2 and first < written()
    send("--project", "b", "--entity", "team")
    assert len(written()) == 3
    send("--project", "a")
    assert len(written()) == 3 and not first & written()
    # One of unknown goal stays.
    for path in written():
        (path / "empg.json").unlink()
    send("--project", "a")
    assert len(written()) == 4


def test_a_run_that_is_written_is_no_failure(folder, tmp_path):
    pytest.importorskip("wandb")
    import fcntl

    from empg.track import wandb_id

    live = tmp_path / "live"
    shutil.copytree(folder, live)
    config = (live / "config.toml").read_text()
    (live / "config.toml").write_text(re.sub(r"(?m)^steps = 3$", "steps = 9", config))
    with open(live / "run.lock", "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wandb(live, "--mode", "offline", "--dir", tmp_path)
    _, _, summary, _, codes = wandb_history(tmp_path, wandb_id(live))
    assert (summary["status"], codes) == ("running", [0])
    wandb(live, "--mode", "offline", "--dir", tmp_path)
    _, _, summary, _, codes = wandb_history(tmp_path, wandb_id(live))
    assert (summary["status"], codes) == ("stopped", [1])


def test_wandb_follows_a_run_that_is_written(folder, tmp_path):
    pytest.importorskip("wandb")
    import fcntl

    from empg.track import wandb_id

    live = tmp_path / "live"
    shutil.copytree(folder, live)
    manifest = json.loads((live / "manifest.json").read_text())
    text = (live / "metrics.jsonl").read_bytes().splitlines(keepends=True)

    def commit(count):
        part = b"".join(text[:count])
        manifest["metrics"] = {"bytes": len(part), "lines": count, "crc32": zlib.crc32(part)}
        manifest["step"] = count - 1
        (live / "manifest.new").write_text(json.dumps(manifest))
        (live / "manifest.new").rename(live / "manifest.json")

    commit(2)
    identity = wandb_id(live)
    with open(live / "run.lock", "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        follower = subprocess.Popen(
            [sys.executable, "-m", "empg.track", "wandb", str(live), "--mode", "offline"]
            + ["--dir", str(tmp_path), "--follow"],
            env={**os.environ, "WANDB_SILENT": "true"},
        )
        wait(lambda: any(tmp_path.glob(f"wandb/offline-run-*-{identity}/*.wandb")))
        assert follower.poll() is None
        commit(len(text))
    assert follower.wait(PATIENCE) == 0
    history = wandb_history(tmp_path, identity)[0]
    shown = {(key, step) for step, row in history.items() for key in row if key != "_timestamp"}
    assert shown == set(scalars(folder))


def test_what_cannot_be_tracked_by_wandb_is_said(folder, tmp_path, monkeypatch, capsys):
    from empg import track

    def run(*arguments):
        code = track.main(["wandb", *map(str, arguments)])
        return code, capsys.readouterr().err

    code, said = run(tmp_path / "nothing", "--mode", "offline")
    assert code == 1 and "nothing" in said
    (tmp_path / "manifest.json").write_text("{")
    code, said = run(tmp_path, "--mode", "offline")
    assert code == 1 and "manifest.json" in said
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "wandb", None)
        code, said = run(folder, "--mode", "offline")
    assert code == 1 and "pip install 'empg[track]'" in said
    with pytest.raises(SystemExit):
        track.main(["wandb", "a", "b", "--follow"])

    # What W&B refuses is said in its words, and keeps no other run.
    wandb = pytest.importorskip("wandb")
    init, asked = wandb.init, []

    def refusing(**options):
        asked.append(options["name"])
        if len(asked) == 1:
            raise wandb.errors.CommError("the project is not yours")
        return init(**options)

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    with monkeypatch.context() as patch:
        patch.setattr(wandb, "init", refusing)
        code, said = run(copy, tmp_path / "nothing", folder, "--mode", "offline", "--dir", tmp_path)
    assert code == 1 and asked == ["copy", folder.name]
    assert f"error: {copy}: the project is not yours" in said and "nothing" in said
    with pytest.raises(ValueError, match="online"):
        track.to_wandb(folder, mode="sometimes")
    with pytest.raises(ValueError, match="every"):
        track.to_wandb(folder, every=0)


def test_a_run_keeps_its_id_wherever_it_lies(folder, tmp_path):
    from empg.track import wandb_id

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert wandb_id(copy) == wandb_id(str(folder)) and len(wandb_id(copy)) == 16
    (copy / "created.json").write_text('{"unix_seconds": 1.0}')
    assert wandb_id(copy) != wandb_id(folder)
    (copy / "created.json").unlink()
    assert wandb_id(copy) != wandb_id(folder)
