"""The stubs say what the module does, and the package passes mypy's strict mode."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import empg

pytest.importorskip("mypy")
ROOT = Path(__file__).parents[1]
# Where the package is: mypy looks into no folder that is only on PYTHONPATH.
PACKAGE = Path(empg.__file__).parent


ENVIRONMENT = {
    **os.environ,
    "MYPYPATH": str(PACKAGE.parent),
    "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]),
}


def run(*command: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_stubs_are_those_of_the_module(tmp_path: Path) -> None:
    run("-m", "mypy.stubtest", "empg._core", cwd=tmp_path)


@pytest.mark.timeout(900)
def test_the_package_passes_mypy_strict(tmp_path: Path) -> None:
    config = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path)]
    run("-m", "mypy", *config, str(PACKAGE))


def test_a_program_that_uses_the_core_is_checked(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import numpy as np\n"
        "from typing import assert_type\n"
        "from numpy.typing import NDArray\n"
        "import empg\n"
        "base: NDArray[np.float32] = np.ones(2, np.float32)\n"
        "h: NDArray[np.float32] = np.ones((2, 4), np.float32)\n"
        "m: NDArray[np.bool_] = np.ones((2, 4), np.bool_)\n"
        "assert_type(empg.modulate(base, h, mask=m, steps=None), NDArray[np.float32])\n"
        "table = empg.StepTable.gather([empg.StepTable.from_tokens(base, h, mask=m)])\n"
        "assert_type(table.credit(k=2.0).g, NDArray[np.float64])\n"
        "empg.modulate(base, h, mask=m, shape='cubic')\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--python-version", "3.11", str(program)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    lines = [line for line in done.stdout.splitlines() if "program.py" in line]
    assert len(lines) == 1 and ":11: error: Argument" in lines[0], done.stdout + done.stderr
