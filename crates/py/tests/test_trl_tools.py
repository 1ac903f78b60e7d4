"""Several turns through TRL's own tool loop: every turn of the model is one step."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import numpy as np
import pytest

pytest.importorskip("trl", reason="TRL is not installed")

import tiny_trl as tiny
import torch
import trl
from datasets import Dataset
from trl import GRPOConfig

import empg
from empg.integrations.trl import EMPGTrainer, TextEnvironment, environment_factory, host

torch.set_num_threads(1)


class Countdown:
    """Asks for a number of steps, then is over."""

    def reset(self, left: int = 0, **_: Any) -> str:
        self._left, self._score = left, 0.0
        return f" [left {left}]"

    def press(self, digit: int) -> str:
        """
        Presses a key.

        Args:
            digit: The key, 0 to 9.

        Returns:
            How many are left.
        """
        self._left -= 1
        self._score += digit / 10
        return f"[left {self._left}]"



def score(environments: list[Countdown], **_: Any) -> list[float]:
    return [environment._score for environment in environments]


def press(digit: int) -> str:
    """
    Presses a key once and for all.

    Args:
        digit: The key, 0 to 9.

    Returns:
        What is left.
    """
    return "[left 0]"


class Scripted(tiny.watched(EMPGTrainer)):  # type: ignore[misc]
    """A model that calls the tool as long as something is left: what it says is written here."""

    def _generate_single_turn(self, prompt_ids: Any, *_: Any, **__: Any) -> Any:
        draw = self.__dict__.setdefault("draw", random.Random(3))
        said = self.__dict__.setdefault("said", [])
        out = []
        for ids in prompt_ids:
            left = int(re.findall(r"\[left (\d+)\]", self.processing_class.decode(ids))[-1])
            call = f'{{"name": "press", "arguments": {{"digit": {draw.randint(0, 9)}}}}}'
            text = f"<tool_call>\n{call}\n</tool_call><|im_end|>" if left else f"done {draw.randint(0, 9)}<|im_end|>"
            said.append(text)
            out.append(self.processing_class(text)["input_ids"])
        return out, None


def check(trainer: Any, turns: list[int]) -> None:
    batch = trainer.batches[0]
    mask, seen = tiny.steps_of(batch), batch["advantages"].numpy()
    steps = empg.steps_from_mask(mask)
    assert [len(row) for row in steps] == turns
    # A step holds exactly the tokens of one turn, its end included, and no token of the tool.
    text = trainer.processing_class.decode
    spoken = [
        text(batch["completion_ids"][row, start:end]) for row, spans in enumerate(steps) for start, end in spans
    ]
    assert sorted(spoken) == sorted(trainer.said)
    base = np.array(trainer._logs["advantages"])
    expected = tiny.paper(base, tiny.entropies(trainer.model, batch), mask)
    np.testing.assert_allclose(seen, expected, atol=2e-5)
    assert np.ptp(base) > 0
    logged = next(entry for entry in trainer.state.log_history if "empg/g_min" in entry)
    assert logged["empg/steps_per_completion"] == pytest.approx(sum(turns) / len(turns))
    assert logged["empg/bonus_mean"] > 0 and logged["tools/call_frequency"] > 0


def test_an_environment_factory(tmp_path):
    rows = Dataset.from_dict(
        {"prompt": [[{"role": "user", "content": "Press."}]] * 2, "left": [1, 3]}
    )
    config = tiny.arguments(
        GRPOConfig, tmp_path, max_steps=1, max_completion_length=700, shuffle_dataset=False, learning_rate=0.0
    )
    trainer = tiny.train(
        Scripted, config, train_dataset=rows, reward_funcs=score, environment_factory=Countdown
    )
    check(trainer, [2] * 4 + [4] * 4)


def test_tools(tmp_path):
    def digits(completions, **_):
        return [float(len(str(completion)) % 5 + row % 2) for row, completion in enumerate(completions)]

    rows = Dataset.from_dict({"prompt": [[{"role": "user", "content": "Press. [left 1]"}]] * 2})
    config = tiny.arguments(GRPOConfig, tmp_path, max_steps=1, max_completion_length=700, learning_rate=0.0)
    trainer = tiny.train(Scripted, config, train_dataset=rows, reward_funcs=digits, tools=[press])
    check(trainer, [2] * 8)


class Walker(tiny.watched(EMPGTrainer)):  # type: ignore[misc]
    """A model that plays a command that it was offered, twice."""

    def _generate_single_turn(self, prompt_ids: Any, *_: Any, **__: Any) -> Any:
        said = self.__dict__.setdefault("said", [])
        draw = self.__dict__.setdefault("draw", random.Random(5))
        out = []
        for ids in prompt_ids:
            text = self.processing_class.decode(ids)
            offered = re.findall(r"^Commands: (.*)$", text.replace("<|im_end|>", ""), flags=re.MULTILINE)
            command = draw.choice(offered[-1].split(", "))
            call = json.dumps({"name": "act", "arguments": {"command": command}})
            more = text.count("<tool_response>") < 2
            said.append(f"<tool_call>\n{call}\n</tool_call><|im_end|>" if more else "done<|im_end|>")
            out.append(self.processing_class(said[-1])["input_ids"])
        return out, None


def test_households_as_tools(tmp_path):
    pytest.importorskip("gymnasium")
    if tuple(map(int, trl.__version__.split(".")[:2])) < (1, 8):
        pytest.skip("TRL before 1.8 takes get_reward for a tool")
    rows = Dataset.from_dict({"prompt": [[{"role": "user", "content": "Play.\n"}]] * 2, "seed": [3, 4]})
    config = tiny.arguments(
        GRPOConfig, tmp_path, max_steps=1, max_completion_length=12000, learning_rate=0.0, shuffle_dataset=False,
        num_generations=2, per_device_train_batch_size=2,
    )  # fmt: skip
    draw = random.Random(1)

    def luck(environments, **_):
        assert all(type(environment) is TextEnvironment for environment in environments)
        return [draw.random() for _ in environments]

    trainer = tiny.train(
        Walker, config, model=tiny.model(positions=16384), train_dataset=rows, reward_funcs=luck,
        environment_factory=environment_factory("households"),
    )  # fmt: skip
    check(trainer, [3] * 4)
    text = trainer.processing_class.batch_decode(trainer.batches[0]["prompt_ids"], skip_special_tokens=True)
    assert len(set(text[:2])) == len(set(text[2:])) == 1 and text[0] != text[2]


def test_a_trl_that_takes_get_reward_for_a_tool_is_refused(monkeypatch):
    for installed in ("1.0.0", "1.7.1"):
        monkeypatch.setattr(host, "version", lambda _, installed=installed: installed)
        with pytest.raises(ImportError, match=rf"TRL >= 1.8, and TRL {installed} .* pip install -U 'trl>=1.8'"):
            environment_factory("households")
    for installed in ("1.8.0", "1.16.0", "2.0"):
        monkeypatch.setattr(host, "version", lambda _, installed=installed: installed)
        environment_factory("households")


class Plain:
    """Gymnasium's interface, and two steps to the end."""

    def reset(self, *, seed=None, options=None):
        self.begun, self.left = (seed, options), 2
        return "a room", {"admissible_commands": ["look", "go north"]}

    def step(self, action):
        self.left -= 1
        return f"{action}!", 0.5, self.left == 0, False, {"admissible_commands": ["look"]}


def test_an_environment_tells_its_commands_and_its_end():
    environment = TextEnvironment(Plain())
    assert environment.act("look").startswith("The episode is over")
    assert environment.reset(prompt="x", task="t-1") == "a room\nCommands: look, go north"
    assert environment._env.begun == (None, {"task": "t-1"})
    assert environment.act("look") == "look!\nCommands: look"
    assert environment.act("look").startswith("look!\nThe episode is over")
    assert environment.act("look").startswith("The episode is over")
    assert environment.get_reward() == 1.0
    assert TextEnvironment(Plain(), commands=False).reset(seed=1) == "a room"
    with pytest.raises(ValueError, match=r"needs a column `task` or `seed`.*the row has \['prompt'\]"):
        environment.reset(prompt="x")
