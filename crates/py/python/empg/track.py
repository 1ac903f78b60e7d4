"""Mirroring run directories to Weights & Biases.

``python -m empg.track wandb RUN --mode offline`` writes what ``wandb sync`` uploads; with ``--mode
online`` W&B is told directly, with ``--follow`` while the run is being written. MLflow is the command
line's (``empg track``); TensorBoard reads a run directory as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from empg._core import RunFollower
from empg.runs import Run, read_run

__all__ = ["main", "to_wandb", "wandb_id"]

# Beside the files of an offline run: where it goes, which its own file has in W&B's format only.
MARK = "empg.json"
# Settings that differ between runs of one group; sections of which all may.
UNGROUPED = ("seed", "env.data", "env.corpus")
UNGROUPED_SECTIONS = ("checkpoint", "record")


def wandb_id(path: str | os.PathLike[str]) -> str:
    """The id of a run on W&B, derived from what was written when it was created.

    It stays the same wherever the run lies and however far it is trained.

    Parameters
    ----------
    path
        The run's directory.
    """
    root = Path(path).expanduser().resolve()
    try:
        data = (root / "created.json").read_bytes()
    except OSError:
        data = os.fsencode(root)
    return hashlib.sha256(data).hexdigest()[:16]


def to_wandb(
    path: str | os.PathLike[str],
    *,
    project: str = "empg",
    entity: str | None = None,
    name: str | None = None,
    group: str | None = None,
    mode: str | None = None,
    directory: str | os.PathLike[str] | None = None,
    follow: bool = False,
    every: float = 2.0,
) -> str:
    """Mirrors a run to W&B, and returns its id there.

    Online, W&B is asked how far it has the run, and told what is missing. Offline, the run is
    written from its first step on, and takes the place of what was written of it before for the same
    project. A run that is being written has the status "running" there, and no exit code of failure.

    Parameters
    ----------
    path
        The run's directory, finished or being written.
    project, entity, name, group
        As ``wandb.init`` takes them. Runs that differ in their seed only are a group by default.
    mode
        ``"online"`` or ``"offline"``; None leaves the choice to W&B (``WANDB_MODE``).
    directory
        Where W&B keeps its files; None leaves the choice to W&B (``WANDB_DIR``).
    follow
        Go on until the run is no longer being written.
    every
        Seconds between looks at a run that is followed.

    Raises
    ------
    ImportError
        wandb is not installed.
    FileNotFoundError, ValueError
        No run is there, or it is damaged.
    """
    if mode not in (None, "online", "offline"):
        raise ValueError(f"mode is {mode!r}: it is 'online', 'offline' or None")
    if not every > 0:
        raise ValueError(f"every is {every!r}: seconds between looks are above 0")
    run = read_run(path)
    follower = RunFollower(run.path)
    wandb = _wandb()
    info = _info(run)
    identity = wandb_id(run.path)
    goal = {"project": project, "entity": entity or os.environ.get("WANDB_ENTITY") or None}
    before = _offline_runs(directory, identity, goal)
    target = wandb.init(
        id=identity,
        resume="allow",
        project=project,
        entity=entity,
        name=name or Path(run.path).resolve().name,
        group=group or _group(info, run.config),
        job_type="train",
        tags=[str(info[key]) for key in ("env", "algo") if info.get(key)],
        config={**run.config, "empg_run": info},
        mode=mode,
        dir=None if directory is None else os.fspath(directory),
        allow_val_change=True,
        settings=_settings(wandb),
    )
    code = 1
    offline = bool(target.settings.mode == "offline")
    mine = Path(str(target.settings.sync_dir)).resolve()
    try:
        if offline:
            (mine / MARK).write_text(json.dumps(goal), encoding="utf-8")
        # Where W&B has some of it, the first step that it lacks.
        first = target.step if target.resumed else 0
        for step, seconds, values in _steps(follower, follow, every):
            if step >= first:
                stamp = {} if seconds is None else {"_timestamp": seconds}
                target.log({**values, **stamp}, step=step)
        # Asked first: a run that ends in between has committed its last step by then.
        written = follower.is_being_written
        run.refresh()
        status = "running" if written else "finished" if _finished(run) else "stopped"
        code = 1 if status == "stopped" else 0
        target.summary["status"] = status
    except KeyboardInterrupt:
        code = 130
        raise
    finally:
        target.finish(exit_code=code)
    for old in before:
        if offline and old.resolve() != mine:
            shutil.rmtree(old, ignore_errors=True)
    return identity


def main(arguments: Sequence[str] | None = None) -> int:
    """The command ``python -m empg.track``; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m empg.track",
        description="Mirror run directories to a tracker.",
        epilog="MLflow: empg track RUN --mlflow URL. TensorBoard: tensorboard --logdir RUN.",
    )
    trackers = parser.add_subparsers(dest="tracker", required=True)
    wandb = trackers.add_parser(
        "wandb",
        help="Weights & Biases",
        epilog="Example: python -m empg.track wandb runs/NAME --mode offline && wandb sync "
        "wandb/offline-run-*",
    )
    wandb.add_argument("runs", nargs="+", metavar="RUN", help="run directories")
    wandb.add_argument("--project", default=os.environ.get("WANDB_PROJECT") or "empg")
    wandb.add_argument("--entity", help="user or team")
    wandb.add_argument("--group", help="default: runs that differ in their seed only")
    wandb.add_argument("--mode", choices=["online", "offline"], help="default: WANDB_MODE, else online")
    wandb.add_argument("--dir", help="where W&B keeps its files; default: WANDB_DIR, else .")
    wandb.add_argument("--follow", action="store_true", help="until the run ends (one run)")
    given = parser.parse_args(arguments)
    if given.follow and len(given.runs) > 1:
        parser.error("--follow takes one run: start the command once for each")
    failed = False
    for path in given.runs:
        try:
            identity = to_wandb(
                path,
                project=given.project,
                entity=given.entity,
                group=given.group,
                mode=given.mode,
                directory=given.dir,
                follow=given.follow,
            )
            print(f"{path}: {given.project}/{identity}")
        except KeyboardInterrupt:
            print("interrupted; the same command sends the rest", file=sys.stderr)
            return 130
        except ImportError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except _failures() as error:
            # It keeps no other run from being sent.
            where = f"{path}: " if str(path) not in str(error) else ""
            print(f"error: {where}{error}", file=sys.stderr)
            failed = True
    return 1 if failed else 0


def _failures() -> tuple[type[Exception], ...]:
    """What may go wrong with a run: W&B's errors among it, where W&B has been imported."""
    errors = getattr(sys.modules.get("wandb"), "errors", None)
    error = getattr(errors, "Error", None)
    return (OSError, ValueError) + ((error,) if isinstance(error, type) else ())


def _steps(
    follower: RunFollower, follow: bool, every: float
) -> Iterator[tuple[int, float | None, dict[str, float]]]:
    last = -1
    while True:
        # Asked before the look: a run that ends in between is looked at once more.
        written = follower.is_being_written
        _, steps = follower.look()
        for step, seconds, values in steps:
            # A resumed run repeats steps.
            if step > last:
                last = step
                yield step, seconds, dict(values)
        if not follower.caught_up:
            continue
        if not (follow and written):
            return
        time.sleep(every)


def _finished(run: Run) -> bool:
    steps = run.config.get("steps")
    return isinstance(steps, int) and run.step is not None and run.step >= steps


def _info(run: Run) -> dict[str, Any]:
    info = run.manifest.get("info")
    return info if isinstance(info, dict) else {}


def _group(info: dict[str, Any], config: dict[str, Any]) -> str | None:
    """Environment and algorithm, and a mark that differs where a setting that bears on results does."""
    parts = [str(info[key]) for key in ("env", "algo") if info.get(key)]
    if not parts:
        return None
    settings = dict(_bearing(config))
    if settings:
        text = json.dumps(settings, sort_keys=True, default=str)
        parts.append(hashlib.sha256(text.encode()).hexdigest()[:8])
    return " ".join(parts)


def _bearing(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The settings by dotted key that make another arm, as a report groups runs."""
    given = config.get("empg")
    off = isinstance(given, dict) and given.get("enabled") is False
    for key, value in _flat(config):
        if key in UNGROUPED or key.split(".")[0] in UNGROUPED_SECTIONS:
            continue
        # Without EMPG, its other settings say nothing.
        if not (off and key.startswith("empg.") and key != "empg.enabled"):
            yield key, value


def _flat(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _offline_runs(
    directory: str | os.PathLike[str] | None, identity: str, goal: dict[str, str | None]
) -> list[Path]:
    """What was written of a run for the same project before."""
    root = Path(directory or os.environ.get("WANDB_DIR") or ".")
    found = [path for base in ("wandb", ".wandb") for path in (root / base).glob(f"offline-run-*-{identity}")]
    return [path for path in found if _mark(path) == goal]


def _mark(path: Path) -> Any:
    try:
        return json.loads((path / MARK).read_bytes())
    except (OSError, ValueError):
        # Whoever wrote it, it may be the only copy.
        return None


def _settings(wandb: Any) -> Any:
    # What this process prints and needs is not the run's.
    wanted = {"console": "off", "x_disable_stats": True, "disable_git": True, "disable_code": True}
    known = getattr(wandb.Settings, "model_fields", wanted)
    return wandb.Settings(**{key: value for key, value in wanted.items() if key in known})


def _wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ImportError("this needs wandb: pip install 'empg[track]'") from error
    if not hasattr(wandb, "init"):
        # A folder of that name in the working directory is found where the package is missing.
        raise ImportError("this needs wandb: pip install 'empg[track]'")
    return wandb


if __name__ == "__main__":
    sys.exit(main())
