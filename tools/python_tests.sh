#!/usr/bin/env bash
# Tests the Python package as users get it: builds the wheel, installs it into a folder of its own,
# and runs crates/py/tests on it. What the tests need (torch, TRL, verl, SkyRL, Ray, Gymnasium, MLflow …) is
# installed once into a virtual environment outside the checkout, one per version of the requirement
# files.
#
#   tools/python_tests.sh [pytest arguments]
#
#   EMPG_PYTHON        interpreter to make the environment with (default: python3)
#   EMPG_PYTHON_CACHE  where environments are kept (default: ${XDG_CACHE_HOME:-~/.cache}/empg)
#   EMPG_TEST_DATA     folder of the original environments' data, as for `cargo test`
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec < /dev/null

python="${EMPG_PYTHON:-python3}"
if ! command -v "$python" > /dev/null; then
    echo "$0: $python is missing: the Python package cannot be tested (Python 3.11 or newer)" >&2
    exit 1
fi
"$python" - << 'EOF'
import sys
if sys.version_info < (3, 11):
    sys.exit(f"Python {sys.version.split()[0]} is too old: the tests' requirements need 3.11")
EOF

tests=crates/py/tests
requirements="$tests/requirements.txt"
beside=("$tests/requirements-skyrl.txt" "$tests/requirements-mlflow.txt")
cache_root="${EMPG_PYTHON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/empg}"
key="$("$python" - "$requirements" "${beside[@]}" << 'EOF'
import hashlib, pathlib, platform, sys
digest = hashlib.sha256(platform.python_version().encode() + platform.machine().encode())
for name in sys.argv[1:]:
    path = pathlib.Path(name)
    digest.update(path.read_bytes())
print(digest.hexdigest()[:16])
EOF
)"
cache="$cache_root/python-$key"
mkdir -p "$cache_root"

# One installs, the others wait. A run that was killed half-way leaves no mark and is made again.
(
    if command -v flock > /dev/null; then
        flock 9
    fi
    if [ ! -e "$cache/complete" ]; then
        echo "installing what the tests need into $cache (once; several gigabytes)"
        rm -rf "$cache"
        "$python" -m venv "$cache"
        pip=("$cache/bin/python" -m pip --disable-pip-version-check --no-input --no-cache-dir)
        # The file names everything: nothing is left to resolve.
        "${pip[@]}" install -q --no-deps -r "$requirements"
        for file in "${beside[@]}"; do
            "${pip[@]}" install -q --no-deps -r "$file"
        done
        touch "$cache/complete"
    fi
) 9> "$cache_root/python-$key.lock"

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# The wheel lies in a folder that only this run sees, so that no clone tests another's.
"$cache/bin/maturin" build -q --release --locked -m crates/py/Cargo.toml \
    -i "$cache/bin/python" -o "$work/wheels"
start="$(date +%s%N)"
"$cache/bin/python" -m pip --disable-pip-version-check --no-input install -q --no-deps \
    --no-index --target "$work/site" "$work"/wheels/empg-*.whl
echo "wheel: $(du -k "$work"/wheels/empg-*.whl | cut -f1) KiB," \
    "installed in $((($(date +%s%N) - start) / 1000000)) ms"

# The command line, whose numbers the package must repeat.
if [ -z "${EMPG_BIN:-}" ]; then
    cargo build -q --locked -p empg-cli
    target="$(cargo metadata --locked --no-deps --format-version 1 \
        | "$python" -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')"
    export EMPG_BIN="$target/debug/empg"
fi

export PYTHONPATH="$work/site"
# Trainers ask their hubs and report their use unless told not to.
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 WANDB_MODE=disabled RAY_USAGE_STATS_ENABLED=0
export MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true
export PYTHONDONTWRITEBYTECODE=1 TOKENIZERS_PARALLELISM=false

# Tests skip hosts that are not installed; here none may be missing.
"$cache/bin/python" -c 'import duckdb, empg, gymnasium, mlflow, mypy, openenv, pandas, polars, pyarrow, ray, tensorboard, torch, trl, verl, wandb'
"$cache/bin/python" -c 'from importlib.util import find_spec; assert find_spec("skyrl.train"), "no SkyRL"'

cd crates/py
"$cache/bin/python" -m pytest -q -p no:cacheprovider --durations=10 "$@"
