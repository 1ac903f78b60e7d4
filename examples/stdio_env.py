"""An environment in 30 lines: three lamps light up; naming the colour of each earns a third.

cargo run --release -- train --env stdio --command 'python3 examples/stdio_env.py' --steps 10
"""

import json
import random
import sys

COLOURS = ["red", "green", "blue"]
lamps: list[str] = []
lit = 0

for line in sys.stdin:
    request = json.loads(line)
    answer: dict[str, object] = {"reward": 0.0, "done": False, "admissible": COLOURS}
    if request["type"] == "reset":  # equal seeds must begin equal episodes
        lamps = random.Random(request["seed"]).choices(COLOURS, k=3)
        lit = 0
    else:
        hit = request["action"].strip() == lamps[lit]
        lit += 1
        answer["reward"] = 1 / 3 if hit else 0.0
        answer["effect"] = request["action"].strip() in COLOURS
        answer["done"] = lit == len(lamps)
        answer["won"] = answer["done"] and hit
    lamp = "all lamps are out" if answer["done"] else f"the lamp is {lamps[lit]}"
    answer["observation"] = f"{lamp}. choose {', '.join(COLOURS)}"
    print(json.dumps(answer), flush=True)  # stdout is the protocol; prints belong on stderr
