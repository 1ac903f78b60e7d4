"""What trackers and tables show of a run: TensorBoard, MLflow, W&B, pandas, DuckDB and Polars, all of
them the real packages. Runs are made by the program itself (EMPG_BIN)."""

import datetime
import http.client
import ipaddress
import json
import math
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
import zlib
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import empg

pytestmark = pytest.mark.skipif("EMPG_BIN" not in os.environ, reason="set EMPG_BIN to the program empg")

SMALL = (
    "rollout.groups=2 rollout.group_size=2 rollout.max_turns=3 algo.dynamic_sampling=false "
    "algo.minibatches=1 eval.episodes=2 record.trajectories_every=1 reward.invalid_penalty=0.1"
)
# Everything that waits, waits for an event; this only ends a test that hangs.
PATIENCE = 600


def command(*arguments):
    return [os.environ["EMPG_BIN"], *map(str, arguments)]


def train(out, *more):
    settings = [part for setting in SMALL.split() for part in ("--set", setting)]
    return command("train", "--seed", 3, "--threads", 2, "--out", out, *settings, *more)


def empg_track(*arguments, env=None):
    done = subprocess.run(
        command("track", *arguments, "--json"), capture_output=True, text=True, timeout=PATIENCE, env=env
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["runs"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of three steps, ended."""
    path = tmp_path_factory.mktemp("trackers") / "small run ü"
    system = 'rollout.system="Über <b>alles</b> 🎲"'
    done = subprocess.run(
        train(path, "--steps", 3, "--set", system), capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return path


def lines(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def flatten(prefix, value):
    """The names that charts give to numbers, written down a second time."""
    if isinstance(value, bool):
        return
    if isinstance(value, (int, float)):
        yield prefix, float(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from flatten(f"{prefix}/{key}" if prefix else key, inner)
    elif isinstance(value, list):
        for element in value:
            if isinstance(element, dict):
                yield from flatten(f"{prefix}/{element['split']}", element)


def scalars(folder):
    """{(name, step): value} of everything that a run's lines hold."""
    found = {}
    for name in ("metrics.jsonl", "timings.jsonl"):
        for line in lines(folder, name):
            step = line.pop("step")
            for key, value in flatten("", line):
                assert (key, step) not in found
                found[key, step] = value
    assert len(found) > 100 and ("eval/unseen/success", 0) in found
    return found


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


# MLflow


def free_port():
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a real MLflow server with a database of its own."""
    pytest.importorskip("mlflow")
    home = tmp_path_factory.mktemp("mlflow")
    url = f"http://127.0.0.1:{free_port()}"
    arguments = ["--host", "127.0.0.1", "--port", url.rsplit(":")[-1], "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--default-artifact-root", str(home)]
    with open(home / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *arguments, *stores],
            cwd=home,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait(lambda: answers(url) or process.poll() is not None)
        assert process.poll() is None, (home / "log").read_text()
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def answers(url):
    try:
        with urllib.request.urlopen(url + "/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def wait(condition):
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)
    return value


@pytest.fixture
def client(server):
    import mlflow

    return mlflow.MlflowClient(server)


def points(client, run_id):
    """Everything that MLflow has of a run; a point that is there twice is an error."""
    found = {}
    for key in client.get_run(run_id).data.metrics:
        for point in client.get_metric_history(run_id, key):
            assert (key, point.step) not in found, f"{key} of step {point.step} is there twice"
            found[key, point.step] = point
    return found


def values(client, run_id):
    return {key: point.value for key, point in points(client, run_id).items()}


def only_run(client, experiment):
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id]) if found else []
    assert len(runs) <= 1
    return runs[0] if runs else None


def long_run(folder, target, steps):
    """A run of many steps, made of a short one's files."""
    shutil.copytree(folder, target)
    (target / "created.json").write_text(json.dumps({"unix_seconds": 1.7e9 + steps}))
    line = lines(folder, "metrics.jsonl")[1]
    text = "".join(
        json.dumps({**line, "step": step, "loss": step / 7}, separators=(",", ":")) + "\n"
        for step in range(steps)
    ).encode()
    (target / "metrics.jsonl").write_bytes(text)
    (target / "timings.jsonl").write_bytes(b"")
    manifest = json.loads((target / "manifest.json").read_text())
    manifest["metrics"] = {"bytes": len(text), "lines": steps, "crc32": zlib.crc32(text)}
    manifest["step"] = steps - 1
    (target / "manifest.json").write_text(json.dumps(manifest))


def test_mlflow_has_the_run_to_the_bit(folder, server, client):
    env = {**os.environ, "MLFLOW_TRACKING_URI": server, "MLFLOW_EXPERIMENT_NAME": "whole ü"}
    [told] = empg_track(folder, env=env)
    expected = scalars(folder)
    assert told["points"] == len(expected) and told["known"] == 0 and told["status"] == "FINISHED"
    shown = points(client, told["run_id"])
    assert {key: point.value for key, point in shown.items()} == expected
    run = client.get_run(told["run_id"])
    assert run.info.status == "FINISHED" and run.info.run_name == folder.name
    created = json.loads((folder / "created.json").read_text())["unix_seconds"]
    assert run.info.start_time == round(created * 1000)
    assert run.info.end_time == max(point.timestamp for point in shown.values()) >= run.info.start_time
    config = tomllib.loads((folder / "config.toml").read_text())
    params = run.data.params
    assert params["rollout.system"] == config["rollout"]["system"] == "Über <b>alles</b> 🎲"
    assert params["seed"] == "3" and float(params["optim.lr"]) == config["optim"]["lr"]
    flat = {
        f"{section}.{key}" if key else section
        for section, inner in config.items()
        for key in (inner if isinstance(inner, dict) else [""])
    }
    assert set(params) == flat
    tags = run.data.tags
    assert tags["empg.version"] == empg.__version__ and tags["empg.algo"] == "DAPO + EMPG"
    assert tags["empg.directory"] == str(folder)

    # Again, and from a copy of the directory: nothing is told twice, and no second run is made.
    copy = folder.parent / "copy"
    shutil.copytree(folder, copy)
    for path in (folder, copy):
        [again] = empg_track(path, env=env)
        assert (again["points"], again["known"]) == (0, len(expected))
        assert again["run_id"] == told["run_id"]
    assert only_run(client, "whole ü") is not None
    assert values(client, told["run_id"]) == expected


@contextmanager
def proxy_of(server, forwarded=1_000_000, tls=None):
    """A proxy that passes on so many batches; one more reaches the server too, but its answer is kept
    back. Gives the proxy's address and the event of that moment."""
    kept_back = threading.Event()
    released = threading.Event()
    count = 0

    class Proxy(BaseHTTPRequestHandler):
        def forward(self):
            nonlocal count
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            host = http.client.HTTPConnection(server.removeprefix("http://"))
            host.request(self.command, self.path, body, {"content-type": "application/json"})
            answer = host.getresponse()
            text = answer.read()
            if b'"metrics"' in body:
                count += 1
                if count > forwarded:
                    kept_back.set()
                    released.wait(PATIENCE)
                    return
            self.send_response(answer.status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = forward

        def log_message(self, *_):
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    scheme = "http"
    if tls is not None:
        proxy.socket = tls.wrap_socket(proxy.socket, server_side=True)
        scheme = "https"
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield f"{scheme}://127.0.0.1:{proxy.server_port}", kept_back
    finally:
        released.set()
        proxy.shutdown()
        proxy.server_close()


def test_a_killed_upload_goes_on_without_a_point_told_twice(folder, server, client, tmp_path):
    target = tmp_path / "long"
    long_run(folder, target, 120)
    expected = {
        (key, step): value
        for line in lines(target, "metrics.jsonl")
        for step in [line.pop("step")]
        for key, value in flatten("", line)
    }
    assert len(expected) > 3500
    with proxy_of(server, 2) as (proxy, kept_back):
        tracker = subprocess.Popen(command("track", target, "--mlflow", proxy, "--experiment", "killed"))
        assert kept_back.wait(PATIENCE)
        tracker.kill()
        tracker.wait()
    run = only_run(client, "killed")
    assert len(points(client, run.info.run_id)) == 3000
    [told] = empg_track(target, "--mlflow", server, "--experiment", "killed")
    assert told["run_id"] == run.info.run_id
    assert told["known"] == 3000 and told["points"] == len(expected) - 3000
    assert values(client, run.info.run_id) == expected


def certificates(folder):
    """An authority, and a certificate of this machine that it has signed."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    keys = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("authority", "here")]
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    for which, file in ((0, "authority.pem"), (1, "here.pem")):
        made = (
            x509.CertificateBuilder()
            .subject_name(names[which])
            .issuer_name(names[0])
            .public_key(keys[which].public_key())
            .serial_number(which + 1)
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(x509.BasicConstraints(ca=which == 0, path_length=None), critical=True)
        )
        if which == 1:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            made = made.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        signed = made.sign(keys[0], hashes.SHA256())
        (folder / file).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "here.key").write_bytes(
        keys[1].private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def test_mlflow_over_tls_is_trusted_by_its_authority_only(folder, server, client, tmp_path):
    pytest.importorskip("cryptography")
    certificates(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "here.pem", tmp_path / "here.key")
    with proxy_of(server, tls=tls) as (proxy, _):
        arguments = [folder, "--mlflow", proxy, "--experiment", "encrypted"]
        stranger = subprocess.run(
            command("track", *arguments), capture_output=True, text=True, timeout=PATIENCE
        )
        assert stranger.returncode == 1
        assert "is not trusted" in stranger.stderr and "CERT_PATH" in stranger.stderr
        assert only_run(client, "encrypted") is None
        authority = str(tmp_path / "authority.pem")
        env = {**os.environ, "MLFLOW_TRACKING_SERVER_CERT_PATH": authority}
        [told] = empg_track(*arguments, env=env)
        [again] = empg_track(*arguments, env={**os.environ, "MLFLOW_TRACKING_INSECURE_TLS": "true"})
    expected = scalars(folder)
    assert (told["points"], again["known"]) == (len(expected), len(expected))
    assert values(client, told["run_id"]) == expected


def test_mlflow_shows_a_run_while_it_is_written(server, client, tmp_path):
    # An environment that waits for us at its twentieth episode.
    go = tmp_path / "go"
    game = tmp_path / "game.sh"
    game.write_text(
        'n=0; while read -r line; do case "$line" in *reset*) n=$((n+1)); '
        f'while [ $n -ge 20 ] && [ ! -e "{go}" ]; do sleep 0.1; done; t=0; d=false;; '
        '*) t=$((t+1)); d=true;; esac; '
        'echo "{\\"observation\\": \\"turn\\", \\"reward\\": $t, \\"done\\": $d}"; done\n'
    )
    out = tmp_path / "live"
    more = ["--env", "stdio", "--command", f"sh {game}", "--steps", 8, "--set", "env.sessions=1"]
    started = time.time()
    with open(tmp_path / "log", "w") as log:
        trainer = subprocess.Popen(
            train(out, *more, "--track", f"mlflow={server}"),
            env={**os.environ, "MLFLOW_EXPERIMENT_NAME": "inside"},
            stderr=log,
            stdout=log,
        )
        try:
            wait((out / "manifest.json").exists)
            follower = subprocess.Popen(
                command("track", out, "--mlflow", server, "--experiment", "beside", "--follow"),
                stdout=log,
                stderr=log,
            )
            for experiment in ("inside", "beside"):
                run = wait(lambda name=experiment: only_run(client, name))
                wait(lambda run=run: ("success", 2) in points(client, run.info.run_id))
                assert client.get_run(run.info.run_id).info.status == "RUNNING"
            assert trainer.poll() is None and follower.poll() is None
        finally:
            go.touch()
            codes = trainer.wait(PATIENCE), follower.wait(PATIENCE)
    assert codes == (0, 0), (tmp_path / "log").read_text()
    expected = scalars(out)
    for experiment in ("inside", "beside"):
        run = only_run(client, experiment)
        assert run.info.status == "FINISHED"
        shown = points(client, run.info.run_id)
        assert {key: point.value for key, point in shown.items()} == expected
        assert min(point.timestamp for point in shown.values()) >= started * 1000
    assert "tracked at" in (tmp_path / "log").read_text()


def test_training_further_goes_on_in_the_same_mlflow_run(server, client, tmp_path):
    out = tmp_path / "further"
    for steps, status in ((1, "FINISHED"), (2, "FINISHED")):
        start = train(out, "--steps", 1) if steps == 1 else command("train", "--resume", out, "--steps", 2)
        done = subprocess.run(start, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        [told] = empg_track(out, "--mlflow", server, "--experiment", "further")
        assert told["status"] == status
    assert told["known"] > 0 and told["points"] > 0
    assert values(client, told["run_id"]) == scalars(out)
    data = client.get_run(told["run_id"]).data
    # MLflow's parameters cannot be changed.
    assert data.params["steps"] == "1" and data.tags["empg.now.steps"] == "2"


def test_without_a_server_training_is_as_it_was(folder, tmp_path):
    url = f"http://127.0.0.1:{free_port()}"
    out = tmp_path / "alone"
    system = 'rollout.system="Über <b>alles</b> 🎲"'
    done = subprocess.run(
        train(out, "--steps", 3, "--set", system, "--track", f"mlflow={url}"),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert (out / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()
    assert "training goes on" in done.stderr and url in done.stderr
    assert done.stderr.count("training goes on") == 1
    assert f"empg track {out} --mlflow {url}" in done.stderr
    late = subprocess.run(
        command("track", out, "--mlflow", url, "--retries", 0),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert late.returncode == 1 and "no answer from" in late.stderr


# Weights & Biases


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
