"""Steps a second of the environments from Python.

    python crates/py/benches/bench_envs.py --data FOLDER

FOLDER holds alfworld/, webshop/ and deepsearch/; what is not there is left out (ALFWorld) or
generated. The policy draws a random admissible command for every environment, which makes one Python
string each; Deep Search is asked for random words of its questions. `fixed` plays one command and
looks at nothing: what the environments and the crossing alone take.
"""

import argparse
import os
import random
import statistics
import time
from pathlib import Path

import empg.envs

FOLDERS = {
    "alfworld": "alfworld",
    "households": None,
    "webshop": "webshop",
    "search": "deepsearch",
}
FIXED = {
    "alfworld": "look",
    "households": "look",
    "webshop": "search[red shoes]",
    "search": "<search>mayor of the town</search>",
}


def policy(name, rng, obs, info):
    """Random actions; the strings of all other commands are never made."""
    if name == "search":
        words = [o.split()[:40] or ["who"] for o in obs]
        return [f"<search>{rng.choice(w)} {rng.choice(w)}</search>" for w in words]
    # After the end there is nothing to choose, and the action is ignored.
    actions = [rng.choice(commands or ("",)) for commands in info["admissible_commands"]]
    if name == "webshop":
        for i, action in enumerate(actions):
            if action == "search[<your query>]":
                actions[i] = f"search[{rng.choice(obs[i].split())}]"
    return actions


def measure(env, name, fixed, seconds, repeats):
    """Median and best steps a second, and CPU microseconds a step."""
    rng = random.Random(0)
    obs, info = env.reset(seed=0)
    rates, costs = [], []
    for repeat in range(repeats + 1):
        steps, begin, cpu = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - begin < seconds:
            actions = [FIXED[name]] * env.num_envs if fixed else policy(name, rng, obs, info)
            obs, _, _, _, info = env.step(actions)
            steps += env.num_envs
        passed = time.perf_counter() - begin
        if repeat:  # The first warms up.
            rates.append(steps / passed)
            costs.append((time.process_time() - cpu) / steps * 1e6)
    return statistics.median(rates), max(rates), statistics.median(costs)


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with alfworld/, webshop/, deepsearch/")
    parser.add_argument("--env", choices=FOLDERS, action="append", help="only these")
    parser.add_argument("--num-envs", type=int, default=256)
    parser.add_argument("--threads", type=int, default=0, help="0: one per core")
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{args.num_envs} environments, {os.cpu_count()} cores, load {load:.1f} before\n")
    print(f"{'':30}{'median':>12}{'best':>12}{'CPU':>12}")
    print(f"{'':30}{'steps/s':>12}{'steps/s':>12}{'µs/step':>12}")
    for name in args.env or FOLDERS:
        folder = FOLDERS[name]
        data = args.data / folder if args.data and folder else None
        real = data is not None and data.is_dir()
        if name == "alfworld" and not real:
            print(f"{name:30}{'no data':>12}")
            continue
        options = {"data": data} if real else {}
        for fixed in (False, True):
            env = empg.envs.make(name, num_envs=args.num_envs, threads=args.threads, **options)
            median, best, cpu = measure(env, name, fixed, args.seconds, args.repeats)
            env.close()
            label = f"{name}{' (generated)' if folder and not real else ''}"
            label += ", fixed" if fixed else ", random"
            print(f"{label:30}{median:12,.0f}{best:12,.0f}{cpu:12.2f}")


if __name__ == "__main__":
    main()
