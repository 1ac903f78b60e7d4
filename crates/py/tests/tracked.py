"""What the tests of trackers share: runs made by the program itself (EMPG_BIN), and what their files say."""

import json
import os
import subprocess
import time

import pytest

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


def wait(condition):
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)
    return value
