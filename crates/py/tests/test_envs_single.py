"""The single environment."""

import warnings

import pytest

gymnasium = pytest.importorskip("gymnasium")

import empg.envs
from gymnasium.utils.env_checker import check_env

NAMES = ("households", "webshop", "search")


@pytest.mark.parametrize("name", NAMES)
def test_passes_gymnasiums_checker(name):
    empg.envs.register()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(f"empg/{name}-v0").unwrapped)
        check_env(gymnasium.make(f"empg/{name}-v0", parse="verl", split="unseen").unwrapped)


@pytest.mark.parametrize("name", NAMES)
def test_an_episode(name):
    env = empg.envs.make(name, max_steps=3)
    obs, info = env.reset(seed=2)
    assert isinstance(obs, str) and obs in env.observation_space
    assert set(info) == {"admissible_commands", "task", "task_type"}
    assert info["task_type"]
    for left in (2, 1, 0):
        obs, reward, terminated, truncated, info = env.step("no such action")
        assert (reward, terminated, truncated) == (0.0, False, left == 0)
        assert info["won"] is False and info["effect"] is False
    with pytest.raises(RuntimeError, match="the episode is over: call reset"):
        env.step("look")
    env.reset()
    env.step("look")
    env.close()
    env.close()


def test_a_game_is_won():
    import empg

    env = empg.envs.make_single("search", split="seen", parse="verl")
    env.reset(seed=0)
    text = "<think>I guess.</think> <answer> nobody </answer>"
    _, reward, terminated, truncated, info = env.step(text)
    assert terminated and not truncated and reward == 0.0 and info["won"] is False
    assert info["action"] == "<answer>nobody</answer>" and info["valid"] is True


def test_reset_by_task():
    env = empg.envs.make("households")
    first, info = env.reset(options={"task": "households/seen/9"})
    assert info["task"] == "households/seen/9"
    assert env.reset(options={"task": "households/seen/9"})[0] == first
    assert env.reset()[1]["task"].startswith("households/train/")


def test_projection():
    project = empg.envs.project
    text = "<think>hm</think><ACTION> Go to Shelf 1 </Action>"
    assert project("alfworld", text) == project("households", text) == ("go to shelf 1", True)
    assert project("webshop", "x" * 50) == ("x" * 20, False)
    assert project("search", "nothing") == ("", False)
    with pytest.raises(ValueError, match="did you mean 'webshop'"):
        project("webshp", "")
