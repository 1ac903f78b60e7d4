"""The vector environment: Gymnasium's conventions, auto-reset, seeds, threads."""

import copy
import gc
import json
import pickle
from collections.abc import Sequence

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium")

import empg.envs
from gymnasium.utils.env_checker import data_equivalence, data_shares_objects
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics

MODES = ["NextStep", "SameStep", "Disabled"]


def actions_of(info, step):
    """A fixed policy that depends on what is admissible."""
    return [c[(len(c) * 7 + step * 13) % len(c)] for c in info["admissible_commands"]]


def pair(mode, **options):
    mine = empg.envs.make(
        "households", num_envs=4, autoreset_mode=mode, threads=2, **options
    )
    theirs = SyncVectorEnv(
        [lambda: empg.envs.make("households", **options)] * 4, autoreset_mode=mode
    )
    return mine, theirs


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("parse", [None, "verl"])
def test_equals_gymnasiums_own_vector_of_single_environments(mode, parse):
    mine, theirs = pair(mode, max_steps=3, parse=parse)
    assert mine.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    (obs, info), (obs_2, info_2) = mine.reset(seed=5), theirs.reset(seed=5)
    assert obs == obs_2
    assert data_equivalence(info, info_2, exact=True)
    for step in range(11):
        if mode == "Disabled" and step and step % 3 == 0:
            mask = np.array([True, False, True, True])
            # One environment that is over is left so, and reset by a mask of its own.
            (obs, info), (obs_2, info_2) = (
                mine.reset(options={"reset_mask": mask}),
                theirs.reset(options={"reset_mask": mask}),
            )
            assert obs == obs_2
            assert data_equivalence(info, info_2, exact=True)
            mask = ~mask
            (obs, info_b), (obs_2, info_2b) = (
                mine.reset(options={"reset_mask": mask}, seed=[None, 77, None, None]),
                theirs.reset(options={"reset_mask": mask}, seed=[None, 77, None, None]),
            )
            assert obs == obs_2
            assert data_equivalence(info_b, info_2b, exact=True)
            info["admissible_commands"][1] = info_b["admissible_commands"][1]
        actions = actions_of(info, step)
        if parse:
            actions = [f"<think>x</think><action>{a.upper()}</action>" for a in actions]
        got, expected = mine.step(actions), theirs.step(actions)
        for a, b in zip(got, expected, strict=True):
            assert data_equivalence(a, b, exact=True), (step, a, b)
        info = got[4]
    mine.close()
    theirs.close()


def test_spaces_hold_what_is_seen_and_played():
    for name in ("households", "webshop", "search"):
        env = empg.envs.make(name, num_envs=3, seed=1, max_steps=4)
        obs, _ = env.reset(seed=0)
        assert env.observation_space.contains(obs)
        assert env.single_observation_space.contains(obs[0])
        env.action_space.seed(3)
        for _ in range(6):
            actions = env.action_space.sample()
            assert env.action_space.contains(actions)
            obs, rewards, terminations, truncations, info = env.step(actions)
            assert env.observation_space.contains(obs)
            assert isinstance(obs, tuple)
            assert rewards.dtype == np.float64 and rewards.shape == (3,)
            assert terminations.dtype == truncations.dtype == np.bool_
            for key, value in info.items():
                assert isinstance(value, np.ndarray) and value.shape == (3,), key
    text = env.single_observation_space
    assert text.contains("Öl\n中 \x1c") and not text.contains(3)
    assert not text.contains("x" * (text.max_length + 1))


@pytest.mark.parametrize("mode", MODES)
def test_returned_data_is_new_every_time(mode):
    env = empg.envs.make("households", num_envs=3, autoreset_mode=mode, max_steps=2)
    calls = [env.reset(seed=0)]
    for step in range(4):
        if mode == "Disabled" and step == 2:
            calls.append(env.reset())
        obs, rewards, terminations, truncations, info = env.step(["look"] * 3)
        calls.append((rewards, terminations, truncations, info))
    for i, first in enumerate(calls):
        for second in calls[i + 1 :]:
            assert not data_shares_objects(first, second)
            assert not data_shares_objects(first[-1], second[-1])


def test_same_step_tells_the_end_and_the_next_beginning():
    env = empg.envs.make("households", num_envs=2, autoreset_mode="SameStep", max_steps=2)
    _, first = env.reset(seed=0)
    env.step(["look", "inventory"])
    obs, _, terminations, truncations, info = env.step(["look", "inventory"])
    assert truncations.all() and not terminations.any()
    assert info["final_obs"][1] == "You are not carrying anything."
    assert obs[1].startswith("-= Welcome")
    final = info["final_info"]
    assert list(final["task"]) == list(first["task"])
    assert (final["task"] != info["task"]).all()
    assert final["_effect"].all() and final["effect"].all()
    assert "effect" not in info
    assert final["admissible_commands"][0] != info["admissible_commands"][0]


def test_next_step_ignores_the_action_after_the_end():
    env = empg.envs.make("households", num_envs=2, max_steps=1)
    env.reset(seed=0)
    *_, truncations, _ = env.step(["look", "look"])
    assert truncations.all()
    obs, rewards, terminations, truncations, info = env.step(["inventory", "no such thing"])
    assert all(o.startswith("-= Welcome") for o in obs)
    assert not rewards.any() and not terminations.any() and not truncations.any()
    assert "won" not in info


def run(threads, seed=3, count=6):
    env = empg.envs.make("households", num_envs=count, threads=threads, max_steps=6)
    obs, info = env.reset(seed=seed)
    log = [(obs, list(info["task"]))]
    for step in range(20):
        obs, rewards, terminations, truncations, info = env.step(actions_of(info, step))
        log.append((obs, list(info["task"]), rewards.tolist(), truncations.tolist()))
    return log


def test_any_number_of_threads_gives_the_same():
    expected = run(1)
    for threads in (2, 5, 0):
        assert run(threads) == expected
    assert run(1, seed=4) != expected


M = (1 << 64) - 1


def mix(seed, coordinate):
    def finish(z):
        z = (z + 0x9E3779B97F4A7C15) & M
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M
        return z ^ (z >> 31)

    inner = finish((coordinate + 0x9E3779B97F4A7C15) & M)
    return finish(seed ^ (((inner << 23) | (inner >> 41)) & M))


def permuted(n, key, value):
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = value >> half, value & mask
        for turn in range(4):
            left, right = right, left ^ (mix(mix(key, turn), right) & mask)
        value = left << half | right
        if value < n:
            return value


def place(n, seed, episode):
    """The order of tasks, as the documentation states it."""
    at = (permuted(n, 0x737461727400, seed % n) + episode) % n
    return permuted(n, mix(0x726F756E6400, episode // n), at)


def test_tasks_come_in_the_documented_order():
    env = empg.envs.make("search", num_envs=3, split="seen", max_steps=1)
    n = env.num_tasks
    ids = env.task_ids()
    assert len(ids) == n == len(set(ids))
    seeds = [0, 12345, 2**64 - 1]
    _, info = env.reset(seed=seeds)
    played = [list(info["task"])]
    for _ in range(n + 3):
        env.step(["x"] * 3)
        *_, info = env.step(["x"] * 3)
        played.append(list(info["task"]))
    for i, seed in enumerate(seeds):
        order = [tasks[i] for tasks in played]
        assert order == [ids[place(n, seed, k)] for k in range(n + 4)]
        assert len(set(order[:n])) == n


def test_seeds():
    env = empg.envs.make("households", num_envs=5)
    tasks = lambda info: list(info["task"])
    first = tasks(env.reset(seed=8)[1])
    assert len(set(first)) == 5
    second = tasks(env.reset()[1])
    assert not set(first) & set(second)
    assert tasks(env.reset(seed=8)[1]) == first
    assert tasks(env.reset()[1]) == second
    assert tasks(env.reset(seed=[8, 9, 10, 11, 12])[1]) == first
    again = tasks(env.reset(seed=[8, 8, None, 8, 8])[1])
    assert again[:2] == [first[0]] * 2
    assert tasks(empg.envs.make("households", num_envs=5, seed=8).reset()[1]) == first
    assert tasks(env.reset(seed=np.int64(8))[1]) == first
    # Without a seed the start is random.
    random = {empg.envs.make("households", num_envs=1).reset()[1]["task"][0] for _ in range(4)}
    assert len(random) == 4


@pytest.mark.parametrize("first", [[True, False, True], [False, True, False]])
def test_a_mask_leaves_the_seeds_of_the_others_for_later(first):
    plain = empg.envs.make("households", num_envs=3, seed=8)
    expected = list(plain.reset()[1]["task"])
    after = list(plain.reset()[1]["task"])
    mask = np.array(first)
    env = empg.envs.make("households", num_envs=3, seed=8)
    begun = env.reset(options={"reset_mask": mask})[1]["task"]
    assert list(begun[mask]) == [t for t, m in zip(expected, mask, strict=True) if m]
    # Whole or by the other mask: those that had begun play their next task.
    _, info = env.reset()
    assert list(info["task"]) == [a if m else e for a, e, m in zip(after, expected, mask, strict=True)]

    env = empg.envs.make("households", num_envs=3, seed=8)
    env.reset(options={"reset_mask": mask})
    _, info = env.reset(options={"reset_mask": ~mask})
    assert list(info["task"][~mask]) == [t for t, m in zip(expected, mask, strict=True) if not m]
    # None in a list is the environment's own seed too, as long as it has not begun.
    env = empg.envs.make("households", num_envs=3, seed=8)
    assert list(env.reset(seed=[8, None, None])[1]["task"]) == expected


def test_a_drawn_seed_is_one_for_all_masks():
    env = empg.envs.make("households", num_envs=2)
    masks = (np.array([True, False]), np.array([False, True]))
    played = [env.reset(options={"reset_mask": mask})[1]["task"][i] for i, mask in enumerate(masks)]
    again = empg.envs.make("households", num_envs=2).reset(seed=env.np_random_seed)[1]["task"]
    assert played == list(again)
    # A seed that is given to some draws that of the others as well.
    others = []
    for _ in range(2):
        env = empg.envs.make("households", num_envs=2)
        env.reset(seed=5, options={"reset_mask": masks[0]})
        others.append(env.reset(options={"reset_mask": masks[1]})[1]["task"][1])
    assert others[0] == others[1] and others[0] != "households/train/0"


def test_tasks_can_be_chosen():
    env = empg.envs.make("households", num_envs=3)
    wanted = ["households/unseen/4", "households/train/0", "households/unseen/4"]
    obs, info = env.reset(seed=1, options={"tasks": wanted})
    assert list(info["task"]) == wanted and obs[0] == obs[2]
    # A chosen task takes no place in the order.
    _, info = env.reset()
    _, plain = env.reset(seed=1)
    assert list(info["task"]) == list(plain["task"])
    _, info = env.reset(options={"tasks": [None, wanted[1], None]})
    assert info["task"][1] == wanted[1] and info["task"][0] not in wanted
    assert all(kind for kind in info["task_type"])


def test_commands_are_a_lazy_sequence():
    env = empg.envs.make("households", num_envs=1)
    _, info = env.reset(seed=0)
    commands = info["admissible_commands"][0]
    texts = list(commands)
    assert isinstance(commands, Sequence) and isinstance(commands, empg.envs.Commands)
    assert len(commands) == len(texts) > 5 and all(isinstance(t, str) for t in texts)
    assert commands == texts and texts == commands and commands != texts[1:]
    assert commands != tuple(texts[::-1]) and commands != "look" and commands != 3
    assert commands[-1] == texts[-1] and commands[1:7:2] == texts[1:7:2]
    assert commands[::-1] == texts[::-1] == list(reversed(commands))
    assert "look" in commands and "fly" not in commands and 3 not in commands
    assert commands.index("look") == texts.index("look") and commands.count("look") == 1
    assert pickle.loads(pickle.dumps(commands)) == texts
    assert copy.deepcopy(info)["admissible_commands"][0] == texts
    assert repr(commands) == f"Commands({texts!r})"
    with pytest.raises(IndexError, match="index 999 of"):
        commands[999]
    with pytest.raises(TypeError, match="not str"):
        commands["look"]
    with pytest.raises(ValueError, match="'fly'|\"fly\""):
        commands.index("fly")


def test_commands_can_be_left_out():
    env = empg.envs.make("households", num_envs=2, admissible=False)
    _, info = env.reset(seed=0)
    assert len(info["admissible_commands"][0]) == 0


def test_wrappers_of_gymnasium():
    env = RecordEpisodeStatistics(empg.envs.make("households", num_envs=2, max_steps=3))
    env = DictInfoToList(env)
    _, infos = env.reset(seed=0)
    assert [set(i) for i in infos] == [{"admissible_commands", "task", "task_type"}] * 2
    for _ in range(3):
        *_, infos = env.step(["look", "look"])
    assert infos[0]["episode"]["l"] == 3
    assert infos[1]["won"] is np.False_ or infos[1]["won"] == False  # noqa: E712


def test_registry():
    empg.envs.register()
    empg.envs.register()
    env = gymnasium.make_vec("empg/households-v0", num_envs=3, max_steps=2)
    assert env.unwrapped.num_envs == 3 and env.spec.id == "empg/households-v0"
    assert env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    obs, _ = env.reset(seed=4)
    plain = empg.envs.make("households", num_envs=3)
    assert obs == plain.reset(seed=4)[0]
    sync = gymnasium.make_vec("empg/households-v0", num_envs=2, vectorization_mode="sync")
    assert sync.reset(seed=4)[0] == obs[:2]
    single = gymnasium.make("empg.envs.registration:empg/households-v0")
    assert single.reset(seed=4)[0] == obs[0]


def test_gymnasiums_processes_take_no_shared_memory():
    empg.envs.register()
    make = lambda: empg.envs.make("households", admissible=False)
    with pytest.raises(ValueError, match="shared_memory=False") as error:
        AsyncVectorEnv([make] * 2)
    cause = str(error.value.__cause__)
    assert cause.startswith("AnyText(1048576) contains texts of any characters") and "vector_kwargs" in cause
    with pytest.raises(ValueError, match="shared_memory=False"):
        gymnasium.make_vec("empg/households-v0", num_envs=2, vectorization_mode="async")
    env = gymnasium.make_vec(
        "empg/households-v0",
        num_envs=2,
        vectorization_mode="async",
        vector_kwargs={"shared_memory": False},
        admissible=False,
    )
    plain = empg.envs.make("households", num_envs=2, admissible=False)
    assert env.reset(seed=3)[0] == plain.reset(seed=3)[0]
    assert env.step(("look", "inventory"))[0] == plain.step(("look", "inventory"))[0]
    env.close()


def test_closing():
    env = empg.envs.make("households", num_envs=2)
    env.reset(seed=0)
    env.close()
    env.close()
    assert env.closed
    for call in (env.reset, lambda: env.step(["look"] * 2)):
        with pytest.raises(RuntimeError, match="closed"):
            call()


def test_data_is_shared_between_environments(tmp_path):
    question = {"id": "q1", "data_source": "nq", "question": "Who?", "golden_answers": ["Ada"]}
    (tmp_path / "questions.jsonl").write_text(json.dumps(question | {"metadata": {"split": "train"}}))
    (tmp_path / "passages.jsonl").write_text(json.dumps({"id": "0", "contents": '"Ada"\nAda wrote.'}))
    options = {"data": tmp_path, "corpus": tmp_path / "passages.jsonl", "num_envs": 1}
    first = empg.envs.make("search", **options)
    (tmp_path / "questions.jsonl").unlink()
    # Nothing is read again while an environment holds it, whatever the rules.
    second = empg.envs.make("search", topk=1, **options)
    assert first.reset(seed=0)[0] == second.reset(seed=0)[0] == ("Who?",)
    del first, second
    gc.collect()
    with pytest.raises(ValueError, match="no questions here"):
        empg.envs.make("search", **options)


def test_relative_data_is_that_of_the_folder_where_it_was_named(tmp_path, monkeypatch):
    question = {"id": "q1", "data_source": "nq", "golden_answers": ["Ada"], "metadata": {"split": "train"}}
    for name in ("here", "there"):
        (tmp_path / name / "data").mkdir(parents=True)
        text = json.dumps(question | {"question": f"Who is {name}?"})
        (tmp_path / name / "data" / "questions.jsonl").write_text(text)
        (tmp_path / name / "passages.jsonl").write_text(json.dumps({"id": "0", "contents": f'"Ada"\nAda is {name}.'}))
    envs = []
    for name in ("here", "there"):
        monkeypatch.chdir(tmp_path / name)
        envs.append(empg.envs.make("search", data="data", corpus="passages.jsonl", num_envs=1))
        assert envs[-1].reset(seed=0)[0] == (f"Who is {name}?",)
        obs, *_ = envs[-1].step(["<search>Ada</search>"])
        assert f"Ada is {name}." in obs[0]
    # A link's parent is that of its target; an address is no path, and nothing is not this folder.
    (tmp_path / "link").symlink_to(tmp_path / "here" / "data")
    monkeypatch.chdir(tmp_path)
    linked = empg.envs.make("search", data="link/../data", corpus="link/../passages.jsonl", num_envs=1)
    assert linked.reset(seed=0)[0] == ("Who is here?",)
    empg.envs.make("search", corpus="http://127.0.0.1:9/retrieve", num_envs=1)
    with pytest.raises(FileNotFoundError):
        empg.envs.make("search", data="", num_envs=1)


def test_worlds_differ():
    worlds = [empg.envs.make("search", num_envs=1, world_seed=seed) for seed in (98, 99, 99)]
    first = [env.reset(seed=0)[0] for env in worlds]
    assert first[0] != first[1] == first[2]


def test_a_world_keeps_its_questions_over_a_corpus(tmp_path):
    (tmp_path / "passages.jsonl").write_text(json.dumps({"id": "0", "contents": '"Ada"\nAda wrote.'}))
    here = empg.envs.make("search", num_envs=1, world_seed=98)
    over = empg.envs.make("search", num_envs=1, world_seed=98, corpus=tmp_path / "passages.jsonl")
    assert here.reset(seed=0)[0] == over.reset(seed=0)[0]
    assert "Ada wrote." in over.step(["<search>Ada</search>"])[0][0]


def test_generated_questions_have_six_turns():
    envs = empg.envs.make("search", num_envs=1)
    envs.reset(seed=0)
    ends = [bool(envs.step(["<search>a</search>"])[3][0]) for _ in range(6)]
    assert ends == [False] * 5 + [True]


@pytest.mark.parametrize(
    "protocol, action", [("verl-agent", "<search>b</search>"), ("search-r1", "<answer>a</answer>")]
)
def test_parse_reads_a_search_as_its_protocol_does(protocol, action):
    envs = empg.envs.make("search", num_envs=1, parse="verl", protocol=protocol)
    envs.reset(seed=0)
    _, _, terminations, _, info = envs.step(["<answer>a</answer> <Search>b</search>"])
    assert info["action"][0] == action
    assert terminations[0] == action.startswith("<answer>")
