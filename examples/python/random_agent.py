"""A random agent in 64 generated households, then what it saw.

    pip install 'empg[envs]'
    python examples/python/random_agent.py

The loop is Gymnasium's: an episode that ends is followed by the next one (`NextStep`), and the step
between the two ignores its action.
"""

import random
import time

import empg.envs


def main() -> None:
    """Plays 200 steps in every environment and counts."""
    envs = empg.envs.make("households", num_envs=64, max_steps=30)
    observations, info = envs.reset(seed=0)
    print(observations[0], "\n")

    rng = random.Random(0)
    episodes = won = effective = played = 0
    begun = time.perf_counter()
    for _ in range(200):
        actions = [rng.choice(commands) for commands in info["admissible_commands"]]
        observations, rewards, terminations, truncations, info = envs.step(actions)
        over = terminations | truncations
        episodes += int(over.sum())
        if "won" in info:
            won += int((info["won"] & over).sum())
            effective += int(info["effect"].sum())
            played += int(info["_effect"].sum())
    seconds = time.perf_counter() - begun
    envs.close()

    print(f"{episodes} episodes, {won} won, {effective / played:.0%} of commands had an effect")
    print(f"{200 * 64 / seconds:,.0f} steps/s")


if __name__ == "__main__":
    main()
