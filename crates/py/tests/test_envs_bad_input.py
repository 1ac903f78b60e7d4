"""What environments refuse, and how they say so."""

import subprocess
import sys
import types

import numpy as np
import pytest

pytest.importorskip("gymnasium")

import empg.envs

MAKE = [
    ("alfwrld", {}, ValueError, "no environment is called 'alfwrld': did you mean 'alfworld'"),
    (3, {}, TypeError, "name is int"),
    ("alfworld", {}, ValueError, "alfworld needs data=FOLDER"),
    ("alfworld", {"data": "/no/such/folder"}, FileNotFoundError, "/no/such/folder: no such folder"),
    ("webshop", {"data": "/no/such/folder"}, FileNotFoundError, "/no/such/folder"),
    ("search", {"data": "/no/such/folder"}, FileNotFoundError, "/no/such/folder"),
    ("search", {"corpus": "/no/such/file"}, FileNotFoundError, "/no/such/file"),
    ("search", {"corpus": "https://a.b/c"}, RuntimeError, "https"),
    ("households", {"data": 3}, ValueError, "households has no option 'data': it belongs to alfworld"),
    ("alfworld", {"data": 3}, TypeError, "str|path"),
    ("households", {"max_stps": 3}, TypeError, "did you mean 'max_steps'"),
    ("households", {"topk": 3}, ValueError, "it belongs to search"),
    ("households", {"split": "tran"}, ValueError, "no split is called 'tran': did you mean 'train'"),
    ("households", {"max_steps": 0}, ValueError, "max_steps is 0"),
    ("households", {"max_steps": -2}, ValueError, "max_steps is -2"),
    ("households", {"max_steps": 2.5}, TypeError, "max_steps is 2.5"),
    ("households", {"data_version": "1"}, ValueError, "no data version"),
    ("households", {"seed": -1}, ValueError, "seed is -1"),
    ("households", {"seed": "1"}, TypeError, "seed is '1'"),
    ("households", {"parse": "json"}, ValueError, "parse is 'json'"),
    ("households", {"on_failure": "x"}, ValueError, "on_failure is 'x'"),
    ("households", {"admissible": 1}, TypeError, "admissible is 1"),
    ("webshop", {"mode": "html"}, ValueError, "mode is \"html\": it is one of text, text_rich"),
    ("webshop", {"splits": "mine"}, ValueError, "splits is"),
    ("webshop", {"goal_seed": 2**32}, ValueError, "goal_seed is 4294967296"),
    ("webshop", {"human_goals": True}, ValueError, "instructions|human"),
    ("search", {"protocol": "x"}, ValueError, "no protocol is called"),
    ("search", {"topk": 0}, ValueError, "topk is 0"),
]


@pytest.mark.parametrize(("name", "options", "kind", "text"), MAKE)
@pytest.mark.parametrize("count", [None, 2])
def test_making(name, options, kind, text, count):
    with pytest.raises((kind, RuntimeError) if "human_goals" in options else kind, match=text):
        empg.envs.make(name, num_envs=count, **options)


def test_making_vectors():
    make = empg.envs.make
    for count, kind in ((0, ValueError), (-1, ValueError), (2.0, TypeError), ("2", TypeError)):
        with pytest.raises(kind, match="num_envs is"):
            make("households", num_envs=count)
    with pytest.raises(ValueError, match="autoreset_mode is 'Never': it is one of 'NextStep'"):
        make("households", num_envs=1, autoreset_mode="Never")
    with pytest.raises(ValueError, match="threads is -1"):
        make("households", num_envs=1, threads=-1)
    with pytest.raises(TypeError, match="threads belongs to a vector"):
        make("households", threads=1)


@pytest.fixture
def env():
    env = empg.envs.make("households", num_envs=2)
    env.reset(seed=0)
    return env


@pytest.mark.parametrize(
    ("actions", "kind", "text"),
    [
        (["look"], ValueError, "actions: 1 given for 2 environments"),
        (["look"] * 3, ValueError, "actions: 3 given for 2 environments"),
        ([], ValueError, "actions: 0 given"),
        (["look", 3], TypeError, r"actions\[1\] is int: every action is a str"),
        (["look", None], TypeError, r"actions\[1\] is NoneType"),
        ([b"look", "look"], TypeError, r"actions\[0\] is bytes"),
        ("look", TypeError, "actions is one str"),
        (None, TypeError, "actions is NoneType"),
        (7, TypeError, "actions is int"),
        (["look", "\ud800"], ValueError, r"actions\[1\] is no valid text"),
    ],
)
def test_actions(env, actions, kind, text):
    with pytest.raises(kind, match=text):
        env.step(actions)
    # Nothing was played.
    assert env.step(["inventory"] * 2)[0] == ("You are not carrying anything.",) * 2


def test_any_sequence_of_str_is_played(env):
    for actions in (("look", "look"), np.array(["look", "look"]), iter(["look", "look"])):
        env.step(actions)
    obs, *_ = env.step(["", "x" * 100_000 + "\0\n🙂"])
    assert obs == ("Nothing happens.",) * 2


def test_order_of_calls():
    for call in (
        lambda: empg.envs.make("households", num_envs=2).step(["look"] * 2),
        lambda: empg.envs.make("households").step("look"),
    ):
        with pytest.raises(RuntimeError, match="environment 0 has no episode: call reset first"):
            call()
    env = empg.envs.make("households", num_envs=3, autoreset_mode="Disabled", max_steps=1)
    env.reset(seed=0)
    env.step(["look"] * 3)
    with pytest.raises(RuntimeError, match="environments 0, 1, 2 are over and auto-reset is disabled"):
        env.step(["look"] * 3)


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"seed": [1]}, ValueError, "seed has 1 entries for 2 environments"),
        ({"seed": "12"}, TypeError, "seed is '12'"),
        ({"seed": 1.5}, TypeError, "seed is 1.5"),
        ({"seed": [1, "x"]}, TypeError, r"seed\[1\] is 'x'"),
        ({"seed": [1, -4]}, ValueError, r"seed\[1\] is -4"),
        ({"seed": 2**64}, ValueError, "seed is 18446744073709551616"),
        ({"options": {"task": "x"}}, ValueError, "no reset option is called 'task'"),
        ({"options": {"tasks": "x"}}, TypeError, "options\\['tasks'\\] is 'x'"),
        ({"options": {"tasks": ["x"]}}, ValueError, "has 1 entries for 2 environments"),
        ({"options": {"tasks": [None, 3]}}, TypeError, r"options\['tasks'\]\[1\] is 3"),
        (
            {"options": {"tasks": [None, "households/x/1"]}},
            ValueError,
            'environment 1: no task "households/x/1" in households .it looks like households/train/0',
        ),
        ({"options": {"reset_mask": [True, False]}}, TypeError, "numpy array of bool"),
        ({"options": {"reset_mask": np.array([1, 0])}}, TypeError, "numpy array of bool"),
        ({"options": {"reset_mask": np.ones(3, bool)}}, ValueError, "has shape .3,."),
        ({"options": {"reset_mask": np.zeros(2, bool)}}, ValueError, "selects no environment"),
    ],
)
def test_resets(env, arguments, kind, text):
    before = env.step(["look"] * 2)[0]
    with pytest.raises(kind, match=text):
        env.reset(**arguments)
    assert env.step(["look"] * 2)[0] == before


def test_single_resets():
    env = empg.envs.make("webshop")
    for options, kind, text in (
        ({"tasks": ["x"]}, ValueError, "no reset option is called 'tasks'"),
        ({"task": 3}, TypeError, "options\\['task'\\] is 3"),
        ({"task": "webshop/0"}, ValueError, 'no task "webshop/0" in webshop .tasks are called like'),
        ({"task": "webshop/0/99999999"}, ValueError, "there are .* goals"),
    ):
        with pytest.raises(kind, match=text):
            env.reset(options=options)
    with pytest.raises(TypeError, match=r"actions\[0\] is int"):
        env.reset()
        env.step(3)


def test_task_ids():
    env = empg.envs.make("households")
    with pytest.raises(ValueError, match="without end: say where to stop"):
        env.task_ids()
    assert env.task_ids(3, 5) == ["households/train/3", "households/train/4"]
    with pytest.raises(ValueError, match="the split has"):
        empg.envs.make("search").task_ids(0, 10**9)


def failing(**options):
    """Searches at an address where nobody listens."""
    return empg.envs.make("search", corpus="http://127.0.0.1:9/retrieve", **options)


def test_a_failed_environment_is_truncated_and_says_why():
    env = failing(num_envs=3, threads=3)
    env.reset(seed=0)
    actions = ["<search>who</search>", "<answer>nobody</answer>", "<search>what</search>"]
    obs, rewards, terminations, truncations, info = env.step(actions)
    assert list(truncations) == [True, False, True] and list(terminations) == [False, True, False]
    assert list(info["_failed"]) == [True, False, True] and info["failed"][1] is None
    assert "127.0.0.1:9" in info["failed"][0]
    assert not rewards.any() and not info["won"].any()
    obs, *_, info = env.step(["x"] * 3)
    assert "failed" not in info and all(obs)

    env = failing(num_envs=1, autoreset_mode="SameStep")
    env.reset(seed=0)
    *_, truncations, info = env.step(["<search>who</search>"])
    assert truncations[0] and "127.0.0.1:9" in info["final_info"]["failed"][0]
    assert "failed" not in info

    env = failing()
    env.reset(seed=0)
    *_, truncated, info = env.step("<search>who</search>")
    assert truncated and "127.0.0.1:9" in info["failed"]


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_a_failure_can_raise(mode):
    env = failing(num_envs=2, on_failure="raise", autoreset_mode=mode)
    env.reset(seed=0)
    with pytest.raises(RuntimeError, match="environment 1 failed: .*127.0.0.1:9"):
        env.step(["<answer>a</answer>", "<search>who</search>"])
    single = failing(on_failure="raise")
    single.reset(seed=0)
    with pytest.raises(RuntimeError, match="failed"):
        single.step("<search>who</search>")


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_the_others_go_on_when_a_failure_raises(mode):
    env = failing(num_envs=2, on_failure="raise", autoreset_mode=mode)
    quiet = failing(num_envs=2, autoreset_mode=mode)
    # Either way environment 0 begins its second task in the round in which environment 1 fails.
    if mode == "NextStep":
        rounds = [["<answer>a</answer>", "x"], ["x", "<search>who</search>"]]
    else:
        rounds = [["<answer>a</answer>", "<search>who</search>"]]
    for each in (env, quiet):
        each.reset(seed=0)
        for actions in rounds[:-1]:
            each.step(actions)
    quiet.step(rounds[-1])
    with pytest.raises(RuntimeError, match="environment 1 failed"):
        env.step(rounds[-1])
    *_, info = env.step(["x", "x"])
    *_, expected = quiet.step(["x", "x"])
    assert list(info["task"]) == list(expected["task"])
    assert list(info["task_type"]) == list(expected["task_type"])


def test_a_failure_that_raises_leaves_the_observations_of_its_round():
    env = failing(num_envs=2, on_failure="raise", autoreset_mode="Disabled")
    first, _ = env.reset(seed=0)
    with pytest.raises(RuntimeError, match="environment 1 failed"):
        env.step(["x", "<search>who</search>"])
    obs, _ = env.reset(options={"reset_mask": np.array([False, True])})
    assert obs[0] == "" != first[0] and obs[1]


class Stubborn:
    """The native environments, of which one does not begin its episodes the first time it is asked."""

    def __init__(self, core, index):
        self.core, self.index, self.failures = core, index, 1

    def __getattr__(self, name):
        return getattr(self.core, name)

    def reset(self, *arguments):
        turns = self.core.reset(*arguments)
        names = ("observations", "commands", "tasks", "began", "won", "effect", "projected", "ends")
        kept = {name: getattr(turns, name) for name in names}
        failed = None
        if self.failures and turns.observations[self.index] is not None:
            self.failures -= 1
            failed = [None] * len(turns.observations)
            failed[self.index] = "it is broken"
            observations = list(turns.observations)
            observations[self.index] = ""
            kept["observations"] = tuple(observations)
        return types.SimpleNamespace(**kept, failed=failed)


def test_a_reset_that_fails_loses_nothing_of_the_others():
    fine = empg.envs.make("households", num_envs=3, seed=4)
    expected = fine.reset()
    env = empg.envs.make("households", num_envs=3, seed=4)
    env._core = Stubborn(env._core, 1)
    task = expected[1]["task"][1]
    with pytest.raises(empg.envs.ResetError, match="environment 1 could not begin") as raised:
        env.reset()
    error = raised.value
    assert str(error) == f'environment 1 could not begin "{task}": it is broken'
    assert error.observations == (expected[0][0], "", expected[0][2])
    assert list(error.info["task"]) == list(expected[1]["task"])
    assert list(error.info["failed"]) == [None, "it is broken", None]
    assert list(error.info["_failed"]) == [False, True, False]
    for i in (0, 2):
        assert list(error.info["admissible_commands"][i]) == list(expected[1]["admissible_commands"][i])
    # The one that failed goes on with its next task, the others are where they began.
    mask = {"reset_mask": np.array([False, True, False])}
    obs, info = env.reset(options=mask)
    assert (obs[0], obs[2]) == (expected[0][0], expected[0][2])
    wanted, of = fine.reset(options=mask)
    assert obs == wanted and info["task"][1] == of["task"][1] != task
    assert env.step(["look"] * 3)[0] == fine.step(["look"] * 3)[0]


def test_a_single_environment_goes_on_after_a_reset_that_failed():
    fine, env = (empg.envs.make("households", seed=4) for _ in range(2))
    env._core = Stubborn(env._core, 0)
    fine.reset()
    with pytest.raises(empg.envs.ResetError, match="environment 0 could not begin .*: it is broken") as told:
        env.reset()
    assert told.value.observations == ("",) and told.value.info["failed"] == "it is broken"
    with pytest.raises(RuntimeError, match="call reset before the next step"):
        env.step("look")
    assert env.reset()[1]["task"] == fine.reset()[1]["task"]


HANGING = """
import signal, socket, sys, threading, time, os
import empg.envs
server = socket.create_server(("127.0.0.1", 0))
held = []
def take():
    while True:
        connection = server.accept()[0]
        held.append(connection)
        print("asked", flush=True)
threading.Thread(target=take, daemon=True).start()
address = f"http://127.0.0.1:{server.getsockname()[1]}/retrieve"
env = empg.envs.make("search", num_envs=2, threads=2, corpus=address)
env.reset(seed=0)
began = time.monotonic()
def interrupt():
    while len(held) < 1:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
try:
    env.step(["<search>who</search>", "<answer>nobody</answer>"])
except KeyboardInterrupt:
    assert time.monotonic() - began < 10, time.monotonic() - began
else:
    sys.exit("not interrupted")
# The server hangs up: the call that was given up ends, and the next one says what to do.
def hang_up():
    while True:
        for connection in list(held):
            connection.close()
        time.sleep(0.05)
threading.Thread(target=hang_up, daemon=True).start()
try:
    env.step(["x", "x"])
except RuntimeError as error:
    assert "environment 0 has no episode: call reset first" in str(error), error
else:
    sys.exit("not refused")
assert all(env.reset()[0])
env.close()
print("done", flush=True)
"""

CLOSED = HANGING.replace("# The server hangs up", "env.close(); print('done', flush=True); os._exit(0)\n#")


@pytest.mark.parametrize("code", [HANGING, CLOSED], ids=["goes on", "closed"])
def test_a_retriever_that_hangs_can_be_interrupted(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "done"


def test_importing_empg_imports_no_host():
    code = (
        "import sys, empg, empg.envs; empg.envs.project('alfworld', '')\n"
        "heavy = {'torch', 'gymnasium', 'pandas', 'polars', 'pyarrow', 'trl', 'verl', 'ray'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_missing_gymnasium_is_named():
    code = (
        "import sys; sys.modules['gymnasium'] = None\n"
        "import empg.envs\n"
        "try: empg.envs.make('households')\n"
        "except ImportError as e: sys.exit(0 if \"pip install 'empg[envs]'\" in str(e) else 1)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_forked_child_steps_too():
    code = (
        "import os, empg.envs\n"
        "env = empg.envs.make('households', num_envs=8, threads=2)\n"
        "env.reset(seed=0); env.step(['look'] * 8)\n"
        "pid = os.fork()\n"
        "obs = env.step(['inventory'] * 8)[0]\n"
        "assert obs == ('You are not carrying anything.',) * 8\n"
        "if pid == 0: os._exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
