"""The examples for one's own trainer and for slime run, and say what their pages say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

EXAMPLES = Path(__file__).parents[3] / "examples" / "python"


def lines(*command: str) -> list[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # Without buffers a line and its end are written apart, and two ranks' lines mix.
    environment.pop("PYTHONUNBUFFERED", None)
    run = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=400, env=environment
    )
    assert run.returncode == 0, run.stderr
    return sorted(line for line in run.stdout.splitlines() if line)


def test_a_trainer_of_ones_own_prints_the_same_on_two_ranks() -> None:
    program = str(EXAMPLES / "own_trainer.py")
    alone = lines(program)
    assert sum(line.startswith("row ") for line in alone) == 8
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    together = "\n".join(lines(*launcher, program))
    assert all(line in together for line in alone) and together.count("row ") == 8


def test_two_ranks_of_slime_are_shown() -> None:
    shown = "\n".join(lines(str(EXAMPLES / "slime_advantages.py")))
    assert sorted(re.findall(r"rank \d sample \d", shown)) == [
        "rank 0 sample 0",
        "rank 0 sample 3",
        "rank 1 sample 1",
        "rank 1 sample 2",
    ]
    assert shown.count("'empg/steps': 8.0") == 1
