#!/usr/bin/env python3
"""Plays generated households in the real TextWorld and records what it answers.

    python3 -m venv VENV
    VENV/bin/pip install 'textworld[pddl]' && VENV/bin/pip install --no-deps alfworld
    VENV/bin/python tools/textworld_goldens.py [--games 36] [--out crates/env/tests/goldens/households.jsonl.gz]

Every game is played once in each of ALFWorld's data versions: with the shortest plan, with random
admissible commands, or with a mixture of plan, random commands and junk. The domain and the grammar
are the ones inside the `alfworld` package (data version 2.1.2+); undoing its three changes to the
texts gives version 2.1.1. The recordings hold the problem files, so that they stay valid when the
generator changes.
"""

import argparse
import gzip
import json
import os
import random
import subprocess
import tempfile
from pathlib import Path

os.environ.setdefault("ALFWORLD_DATA", tempfile.mkdtemp(prefix="alfworld-"))

import textworld  # noqa: E402
import textworld.envs  # noqa: E402
from alfworld.agents.environment.alfred_tw_env import AlfredDemangler  # noqa: E402
from alfworld.info import ALFRED_PDDL_PATH, ALFRED_TWL2_PATH  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
JUNK = [
    "", "dance", "go to", "go to moon 1", "take mug 1", "take mug 9 from countertop 1",
    "open countertop 1", "close fridge 1", "put mug 1 in/on desk 1", "move mug 1 to desk 1",
    "use desklamp 1", "examine nothing", "LOOK", " inventory ", "help", "clean mug 1 with sinkbasin 1",
    "heat mug 1 with microwave 1", "cool mug 1 with fridge 1", "slice apple 1 with knife 1",
]


def without(text, start, end):
    """The text without the part from `start` up to the first `end` after it, which goes too."""
    begin = text.index(start)
    return text[:begin] + text[text.index(end, begin) + len(end):]


def old_grammar(text):
    """The grammar as it was in data version 2.1.1."""
    for new, old in [
        ('"You arrive at {r.name}. #examineReceptacle', '"You arrive at {lend.name}. #examineReceptacle'),
        ('"You move the {o.name} to the {r.name}."', '"You put the {o.name} in/on the {r.name}."'),
        ('template :: "move {o} to {r}";', 'template :: "put {o} in/on {r}";'),
    ]:
        if new not in text:
            raise SystemExit(f"this grammar lacks {new!r}: another alfworld release?")
        text = text.replace(new, old)
    return without(text, "action help {", '""";\n}')


def old_domain(text):
    """The domain without the action `help`."""
    return without(text, "(:action help", ")\n    :effect\n        (and\n            (checked ?a)\n        )\n)")


def make_env(path):
    infos = textworld.EnvInfos(won=True, admissible_commands=True, score=True)
    env = textworld.start(str(path), infos, wrappers=[AlfredDemangler])
    return env


def next_command(policy, turn, plan, progress, admissible, rng):
    """The command to play and whether the plan went on."""
    if policy == "plan" or (policy == "mixed" and rng.random() < 0.4):
        if progress < len(plan) and plan[progress] in admissible:
            return plan[progress], True
    if policy == "mixed" and rng.random() < 0.35:
        return rng.choice(JUNK), False
    # Few of the commands are "go to": handling things is what the rules are about.
    others = [c for c in admissible if not c.startswith("go to ")]
    return rng.choice(others if others and rng.random() < 0.6 else admissible), False


def play(directory, version, policy, seed, turns, grammar, domain):
    game = json.loads((directory / "game.tw-pddl").read_text())
    notes = json.loads((directory / "plan.json").read_text())
    plan = notes[version]
    if version == "2.1.1":
        game["grammar"] = old_grammar(grammar).replace("UNKNOWN GOAL.", notes["task"])
        game["pddl_domain"] = old_domain(domain)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "game.tw-pddl"
        path.write_text(json.dumps(game))
        env = make_env(path)
        state = env.reset()
        rng = random.Random(seed)
        steps = [{"command": None, "observation": state["feedback"], "won": bool(state["won"]),
                  "admissible": sorted(set(state["admissible_commands"]))}]
        progress, done = 0, False
        while not done and len(steps) <= turns:
            command, advanced = next_command(
                policy, len(steps), plan, progress, steps[-1]["admissible"], rng)
            progress += advanced
            state, _, done = env.step(command)
            steps.append({"command": command, "observation": state["feedback"], "won": bool(state["won"]),
                          "admissible": sorted(set(state["admissible_commands"]))})
        env.close()
    if policy == "plan" and not steps[-1]["won"]:
        raise SystemExit(f"{notes['id']}: the plan does not win in TextWorld: {plan}")
    return {"id": notes["id"], "version": version, "policy": policy, "seed": seed, "task": notes["task"],
            "steps": steps}


def deltas(steps):
    """Admissible lists as what went and what came: they hardly change from step to step."""
    before = []
    for step in steps:
        now = step.pop("admissible")
        step["gone"] = [c for c in before if c not in set(now)]
        step["come"] = [c for c in now if c not in set(before)]
        before = now
    return steps


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=int, default=36)
    parser.add_argument("--turns", type=int, default=35)
    parser.add_argument("--exporter", nargs="+", metavar="COMMAND",
                        default=["cargo", "run", "-q", "--release", "-p", "empg-env", "--example",
                                 "export_households", "--"],
                        help="what writes the games (default: builds the example)")
    parser.add_argument("--out", type=Path, default=ROOT / "crates/env/tests/goldens/households.jsonl.gz")
    arguments = parser.parse_args()
    grammar, domain = Path(ALFRED_TWL2_PATH).read_text(), Path(ALFRED_PDDL_PATH).read_text()
    records = []
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [*arguments.exporter, folder, str(arguments.games), ALFRED_PDDL_PATH, ALFRED_TWL2_PATH],
            cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        for number, plan in enumerate(sorted(Path(folder).glob("*/*/*/plan.json"))):
            directory = plan.parent
            record = {"problem": json.loads((directory / "game.tw-pddl").read_text())["pddl_problem"], "plays": []}
            for offset, version in enumerate(["2.1.1", "2.1.2+"]):
                policy = ["mixed", "plan", "mixed", "random"][(number + offset) % 4]
                played = play(directory, version, policy, 1000 * number + offset, arguments.turns, grammar, domain)
                played["steps"] = deltas(played["steps"])
                record["plays"].append(played)
            records.append(record)
            print(f"{number + 1}/{arguments.games}", record["plays"][0]["id"], flush=True)
    text = "".join(json.dumps(record, separators=(",", ":"), ensure_ascii=False) + "\n" for record in records)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with open(arguments.out, "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as out:
        out.write(text.encode())
    print(f"{len(records)} games, {sum(len(p['steps']) for r in records for p in r['plays'])} steps,"
          f" {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
