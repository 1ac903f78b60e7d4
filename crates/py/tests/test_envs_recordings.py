"""Recordings of the original environments, replayed through the vector environment.

They lie in the folder that EMPG_TEST_DATA names; without it these tests are skipped.
"""

import gzip
import itertools
import json
import os
from pathlib import Path

import pytest

pytest.importorskip("gymnasium")

import empg.envs

DATA = Path(os.environ.get("EMPG_TEST_DATA", "missing"))
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="set EMPG_TEST_DATA to the folder of recordings"
)


def recordings(name):
    with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def grouped(items, key):
    items = sorted(items, key=key)
    return [(k, list(group)) for k, group in itertools.groupby(items, key)]


def replay(env, tasks, actions, check, begin):
    """Plays lists of actions side by side; `check(i, step, obs, reward, done, info)` for each."""
    obs, info = env.reset(options={"tasks": tasks})
    for i in range(len(tasks)):
        begin(i, obs[i], info["admissible_commands"][i])
    checked = 0
    over = [False] * len(tasks)
    for step in range(max(map(len, actions))):
        batch = [a[step] if step < len(a) else "look" for a in actions]
        obs, rewards, terminations, truncations, info = env.step(batch)
        for i, a in enumerate(actions):
            if step < len(a):
                assert not over[i], f"{tasks[i]} is recorded beyond its end"
                done = bool(terminations[i] or truncations[i])
                check(i, step, obs[i], rewards[i], done, {k: v[i] for k, v in info.items()})
                over[i] = done
                checked += 1
    return checked


def test_alfworld():
    checked = 0
    every = recordings("alfworld/transcripts.jsonl.gz")
    every += recordings("alfworld/transcripts_targeted.jsonl.gz")
    key = lambda r: (r["data_version"], r["max_episode_steps"])
    for (version, limit), group in grouped(every, key):
        env = empg.envs.make(
            "alfworld",
            data=DATA / "alfworld",
            num_envs=len(group),
            data_version=version,
            max_steps=limit,
            split="valid_seen",
        )
        steps = [r["steps"] for r in group]
        scores = [0.0] * len(group)

        def begin(i, obs, commands):
            assert obs == steps[i][0]["observation"]
            assert commands == steps[i][0]["admissible_commands"]

        def check(i, step, obs, reward, done, info):
            recorded = steps[i][step + 1]
            scores[i] += reward
            assert obs == recorded["observation"]
            assert list(info["admissible_commands"]) == recorded["admissible_commands"]
            assert (done, bool(info["won"])) == (recorded["done"], recorded["won"])
            assert scores[i] == recorded["score"]
            assert bool(info["effect"]) == (obs != "Nothing happens.")
            assert info["task"] == group[i]["game"]
            assert info["task_type"] == group[i]["task_type"]

        actions = [[s["command"] for s in r[1:]] for r in steps]
        checked += replay(env, [r["game"] for r in group], actions, check, begin)
        env.close()
    assert checked > 1000


def test_webshop():
    checked = 0
    every = recordings("webshop/transcripts.jsonl.gz")
    key = lambda r: (r["mode"], r["env_seed"], r["human_goals"])
    for (mode, seed, human), group in grouped(every, key):
        env = empg.envs.make(
            "webshop",
            data=DATA / "webshop",
            num_envs=len(group),
            mode=mode,
            goal_seed=seed,
            human_goals=human,
            max_steps=-1,
        )
        steps = [r["steps"] for r in group]

        def same(commands, recorded):
            available = recorded["available_actions"] or {"has_search_bar": False, "clickables": []}
            clicks = [f"click[{c}]" for c in available["clickables"] if c not in ("search", "")]
            search = ["search[<your query>]"] if available["has_search_bar"] else []
            # Python sorts by code points as bytes of UTF-8 do.
            assert list(commands) == sorted(clicks + search)

        def begin(i, obs, commands):
            assert obs == steps[i][0]["observation"]
            same(commands, steps[i][0])

        def check(i, step, obs, reward, done, info):
            recorded = steps[i][step + 1]
            assert obs == recorded["observation"]
            assert (reward, done) == (recorded["reward"], recorded["done"])
            assert bool(info["won"]) == (reward == 1.0)
            same(info["admissible_commands"], recorded)

        kind = "webshop-human" if human else "webshop"
        tasks = [f"{kind}/{seed}/{r['session']}" for r in group]
        actions = [[s["action"] for s in r[1:]] for r in steps]
        checked += replay(env, tasks, actions, check, begin)
        env.close()
    assert checked > 300


def test_search():
    every = recordings("deepsearch/episodes.jsonl.gz")
    checked = 0
    for (limit, topk), group in grouped(every, lambda r: (r["max_turns"], r["topk"])):
        env = empg.envs.make(
            "search",
            data=DATA / "deepsearch",
            num_envs=len(group),
            max_steps=limit,
            topk=topk,
            parse="verl",
        )
        steps = [r["steps"] for r in group]

        def begin(i, obs, commands):
            assert obs == steps[i][0]["anchor"] == group[i]["question"]
            assert len(commands) == 0

        def check(i, step, obs, reward, done, info):
            recorded = steps[i][step + 1]
            assert obs == recorded["anchor"]
            assert (reward, done) == (recorded["reward"], recorded["done"])
            assert bool(info["won"]) == recorded["won"]
            assert info["action"] == recorded["postprocessed_action"]
            assert int(info["valid"]) == recorded["is_action_valid"]

        actions = [[s["raw"] for s in r[1:]] for r in steps]
        checked += replay(env, [r["id"] for r in group], actions, check, begin)
        env.close()
    assert checked > 200


def test_projections():
    checked = 0
    for line in recordings("projections.jsonl.gz"):
        for name in ("alfworld", "webshop", "search"):
            action, valid = line[name]
            assert empg.envs.project(name, line["raw"]) == (action, bool(valid))
            checked += 1
    assert checked > 50
