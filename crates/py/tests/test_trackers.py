"""What a real MLflow server shows of a run, by every way that leads there."""

import datetime
import http.client
import ipaddress
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
import zlib
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import empg
from tracked import PATIENCE, command, empg_track, flatten, folder, lines, scalars, train, wait

pytestmark = pytest.mark.skipif("EMPG_BIN" not in os.environ, reason="set EMPG_BIN to the program empg")


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
