#!/usr/bin/env python3
"""Goldens of EMPG's credit assignment: the equations transcribed in numpy.

    python3 tools/empg_goldens.py            # rewrites crates/empg/tests/goldens/*.json

Needs numpy alone. The files are small and versioned; `cargo test -p empg` holds the Rust code to
them (1e-6 * max(1, |y|) in f64, 2e-5 in f32).
"""

import json
import pathlib

import numpy as np

OUT = pathlib.Path(__file__).resolve().parent.parent / "crates" / "empg" / "tests" / "goldens"
EPS = 1e-8

PAPER = {
    "k": 1.0,
    "k-f": 1.0,
    "zeta": 0.1,
    "shape": "exp",
    "normalize": "minmax",
    "quantile-low": 0.05,
    "quantile-high": 0.95,
    "bonus": "next-entropy",
    "gate-bonus": False,
    "center": True,
    "paper-exact": False,
}


def falling(shape, k, h):
    return np.exp(-k * h) if shape == "exp" else np.maximum(0.0, 1.0 - k * h)


def modulate(entropy, advantages, steps, options):
    """(B, T) entropies and advantages, steps[row] = [(start, end), ...] -> (B, T) advantages.

    The arithmetic on tokens is done in the arrays' own type, the statistics in float64.
    """
    kind = advantages.dtype.type
    flat = [(row, start, end) for row, spans in enumerate(steps) for start, end in spans]
    exact = options["paper-exact"]
    if not flat:
        return advantages.copy()
    h = np.array([float(entropy[row, start:end].mean()) for row, start, end in flat])
    if options["normalize"] == "minmax":
        low, high = h.min(), h.max()
    else:
        low, high = np.quantile(h, [options["quantile-low"], options["quantile-high"]])
    hn = np.clip((h - low) / (high - low + EPS), 0.0, 1.0)  # Eq. 12
    g = falling(options["shape"], options["k"], hn)
    g = g / (g.mean() + EPS)  # Eq. 10
    f = falling(options["shape"], options["k-f"], hn)  # Eq. 11
    if options["bonus"] == "entropy-drop":
        f = np.append(np.inf, np.maximum(0.0, hn[:-1] - hn[1:]))

    out = advantages.copy() if exact else np.zeros_like(advantages)
    firsts = []
    for i, (row, start, end) in enumerate(flat):
        value = advantages[row, start:end] * kind(g[i])
        has_next = i + 1 < len(flat) and flat[i + 1][0] == row
        if has_next and not (options["gate-bonus"] and advantages[row, start] == 0):
            value = value + kind(options["zeta"] * f[i + 1])  # Eq. 8
        out[row, start:end] = value
        firsts.append(value[0])
    if options["center"]:
        mean = kind(np.mean(np.array(firsts)))  # Eq. 7: over steps
        if exact:
            out -= mean
        else:
            for row, start, end in flat:
                out[row, start:end] -= mean
    return out


def episode_steps(rng, width, count):
    """`count` disjoint runs of sampled tokens in a row, observations between them."""
    cuts = np.sort(rng.choice(np.arange(1, width), size=2 * count, replace=False))
    return [(int(cuts[2 * i]), int(cuts[2 * i + 1])) for i in range(count)]


def short(values, digits):
    return [float(f"{value:.{digits}g}") for value in values.ravel()]


def case(rng, name, rows=5, width=18, counts=(3, 1, 4, 2, 3), entropy=None, advantages=None,
         vary=False, **options):
    options = {**PAPER, **{key.replace("_", "-"): value for key, value in options.items()}}
    steps = [episode_steps(rng, width, count) for count in counts]
    if entropy is None:
        entropy = rng.gamma(1.5, 0.4, size=(rows, width))
    if advantages is None:
        rewards = rng.integers(0, 2, size=rows).astype(float)
        rewards[:2] = [0.0, 1.0]
        advantages = np.repeat((rewards - rewards.mean())[:, None] / rewards.std(ddof=1), width, 1)
    if vary:
        advantages = advantages + 0.2 * rng.standard_normal(advantages.shape)
    # Both precisions start from the same numbers, which are short to write.
    entropy = (np.round(entropy * 256) / 256).astype(np.float32)
    advantages = (np.round(advantages * 256) / 256).astype(np.float32)
    wide = modulate(entropy.astype(np.float64), advantages.astype(np.float64), steps, options)
    narrow = modulate(entropy, advantages, steps, options)
    return {
        "name": name,
        "options": options,
        "rows": rows,
        "width": width,
        "steps": steps,
        "entropy": entropy.astype(float).ravel().tolist(),
        "advantages": advantages.astype(float).ravel().tolist(),
        "f64": short(wide, 12),
        "f32": short(narrow, 9),
    }


def modulation(rng):
    outlier = rng.gamma(1.5, 0.4, size=(5, 18))
    outlier[2, :] = 60.0
    half = np.zeros((5, 18))
    half[3:] = [[1.25], [-0.75]]
    both = []
    for exact in (False, True):
        mode = {"paper_exact": exact}
        tag = "paper-exact: " if exact else ""
        both += [
            case(rng, tag + "the paper's constants", **mode),
            case(rng, tag + "advantages that vary within a step", vary=True, **mode),
            case(rng, tag + "strong scaling, weak bonus", k=3.0, k_f=0.5, zeta=0.02, **mode),
            case(rng, tag + "scaling only", zeta=0.0, **mode),
            case(rng, tag + "bonus only", k=0.0, **mode),
            case(rng, tag + "neither half", k=0.0, zeta=0.0, **mode),
            case(rng, tag + "not centred", center=False, **mode),
            case(rng, tag + "linear shape", shape="linear", k=1.4, k_f=0.8, **mode),
            case(rng, tag + "an outlier entropy", entropy=outlier, **mode),
            case(rng, tag + "quantile bounds", entropy=outlier, normalize="quantile", **mode),
            case(rng, tag + "entropy drop", bonus="entropy-drop", **mode),
            case(rng, tag + "bonus gated", advantages=half, gate_bonus=True, **mode),
            case(rng, tag + "equal entropies", entropy=np.full((5, 18), 0.75), **mode),
            case(rng, tag + "a row without steps", counts=(2, 0, 3, 1, 0), **mode),
            case(rng, tag + "one step a row", counts=(1,) * 5, **mode),
            case(rng, tag + "a single step", rows=1, counts=(1,), entropy=outlier[:1],
                 advantages=half[4:], **mode),
        ]
    both.append(case(rng, "paper-exact: no steps at all", counts=(0,) * 5, paper_exact=True))
    return both


def groups(rng):
    out = []
    for rewards in ([0.0, 1.0], [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0], [0.3, 0.3, 0.3],
                    rng.standard_normal(6).tolist(), (100.0 * rng.random(5)).tolist()):
        r = np.array(rewards)
        n = len(r)
        out.append({
            "rewards": r.tolist(),
            "grpo": ((r - r.mean()) / (r.std(ddof=1) + 1e-6)).tolist(),
            "grpo-ddof-0": ((r - r.mean()) / (r.std() + 1e-6)).tolist(),
            "trl": ((r - r.mean()) / (r.std(ddof=1) + 1e-4)).tolist(),
            "dr-grpo": (r - r.mean()).tolist(),
            "rloo": [float(r[i] - np.delete(r, i).mean()) for i in range(n)],
        })
    return out


def losses(rng):
    out = []
    for _ in range(24):
        new, old, ref = -rng.gamma(1.0, 1.0, size=3)
        a = rng.standard_normal()
        low, high = 0.2, 0.28
        r = np.exp(new - old)
        d = ref - new
        out.append({
            "logp": new, "logp_old": old, "logp_ref": ref, "advantage": a,
            "ppo": -min(r * a, np.clip(r, 1 - low, 1 + high) * a),
            "k1": -d, "k2": d * d / 2, "k3": np.exp(d) - d - 1,
        })
    return out


def write(name, cases):
    text = ",\n".join(json.dumps(case) for case in cases)
    (OUT / name).write_text(f"[\n{text}\n]\n")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20261120)
    write("modulation.json", modulation(rng))
    write("groups.json", groups(rng))
    write("loss.json", losses(rng))


if __name__ == "__main__":
    main()
