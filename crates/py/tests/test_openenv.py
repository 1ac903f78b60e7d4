"""The real `empg` binary and the real openenv package, each way.

`EMPG_BIN` names the binary; without it the tests are skipped.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openenv.core", reason="openenv-core is not installed")
BIN = os.environ.get("EMPG_BIN", "")
if not BIN:
    pytest.skip("EMPG_BIN does not name the empg binary", allow_module_level=True)

from empg.envs.openenv import EmpgAction, EmpgEnv  # noqa: E402
from openenv.core.generic_client import GenericEnvClient  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
FEW = (
    "--set rollout.groups=2 --set rollout.group_size=2 --set rollout.max_turns=3 "
    "--set algo.dynamic_sampling=false --set algo.minibatches=1 --set eval.episodes=2 --threads 2"
).split()


class Served:
    """A running `empg serve env`."""

    def __init__(self, *arguments: str) -> None:
        command = [BIN, "serve", "env", *arguments, "--port", "0", "--json"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read() if self.process.stderr else ""
        self.url = str(json.loads(line)["url"])

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=20)


@pytest.fixture
def served() -> Iterator[Callable[..., Served]]:
    running: list[Served] = []

    def start(*arguments: str) -> Served:
        running.append(Served(*arguments))
        return running[-1]

    yield start
    for server in running:
        if server.process.poll() is None:
            assert server.end() == 0


@pytest.fixture
def households(served: Callable[..., Served]) -> Served:
    return served("households", "--max-steps", "6", "--sessions", "80")


def empg(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN, *arguments], capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )


def test_synchronous_client(households: Served) -> None:
    with EmpgEnv(base_url=households.url).sync() as env:
        first = env.reset(seed=5, split="unseen", episode_id="mine")
        assert first.observation.task_id == "households/unseen/5"
        assert first.observation.task_type and first.reward is None and not first.done
        assert env.state().episode_id == "mine" and env.state().step_count == 0
        steps = 0
        result = first
        while not result.done:
            result = env.step(EmpgAction(text=result.observation.admissible[0]))
            steps += 1
            assert isinstance(result.reward, float) and result.observation.reward == result.reward
        assert steps == 6 and result.observation.truncated and not result.observation.won
        assert env.state().done and env.state().step_count == 6
        with pytest.raises(RuntimeError, match="EXECUTION_ERROR"):
            env.step(EmpgAction(text="look"))
        assert env.reset(seed=5, split="unseen").observation == first.observation
        named = env.reset(task_id="households/seen/3")
        assert named.observation.task_id == "households/seen/3"
        assert not env.step(EmpgAction(text="dance")).observation.effect
        with pytest.raises(RuntimeError, match="chess"):
            env.reset(task_id="chess/1")


def test_many_sessions_at_once(households: Served) -> None:
    async def play(seed: int) -> list[str]:
        texts = []
        async with EmpgEnv(base_url=households.url) as env:
            result = await env.reset(seed=seed)
            texts.append(result.observation.text)
            while not result.done:
                commands = result.observation.admissible
                result = await env.step(EmpgAction(text=commands[seed % len(commands)]))
                texts.append(result.observation.text)
        return texts

    async def all_of_them() -> list[list[str]]:
        return await asyncio.gather(*(play(i // 2) for i in range(64)))

    played = asyncio.run(all_of_them())
    for i in range(0, 64, 2):
        assert played[i] == played[i + 1] and len(played[i]) == 7
    assert len({tuple(texts) for texts in played}) > 20


def test_generic_client_and_limits(served: Callable[..., Served]) -> None:
    server = served("households", "--sessions", "1")

    async def check() -> None:
        async with GenericEnvClient(base_url=server.url) as env:
            result = await env.reset(seed=0)
            result = await env.step({"text": result.observation["admissible"][0]})
            assert result.observation["text"]
            with pytest.raises(RuntimeError, match="VALIDATION_ERROR"):
                await env.step({"command": "look"})
            async with GenericEnvClient(base_url=server.url) as other:
                with pytest.raises(RuntimeError, match="CAPACITY_REACHED"):
                    await other.reset()
            assert (await env.state())["step_count"] == 1
            assert server.end() == 0
            with pytest.raises(Exception):  # noqa: B017 - closed, whatever the client calls it
                await env.step({"text": "look"})

    asyncio.run(check())


def test_the_projects_own_validation(households: Served) -> None:
    from openenv.cli._validation import validate_running_environment

    report = validate_running_environment(households.url)
    assert report["passed"], report
    assert report["mode"] == "simulation"


SERVER = textwrap.dedent(
    """
    import random, sys
    import uvicorn
    from fastapi import FastAPI
    from openenv.core import create_fastapi_app
    from openenv.core.env_server import Action, Environment, Observation, State

    class Colour(Action):
        message: str

    class Lamp(Observation):
        message: str

    class Lamps(Environment):
        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self):
            super().__init__()
            self.lamps, self.lit = [], 0

        def reset(self, seed=None, episode_id=None, **kwargs):
            self.lamps = random.Random(seed).choices(["red", "green", "blue"], k=3)
            self.lit = 0
            return Lamp(message=f"the lamp is {self.lamps[0]}")

        def step(self, action, timeout_s=None, **kwargs):
            hit = action.message.strip() == self.lamps[self.lit]
            self.lit += 1
            done = self.lit == 3
            text = "done" if done else f"the lamp is {self.lamps[self.lit]}"
            return Lamp(message=text, reward=float(hit), done=done)

        @property
        def state(self):
            return State(step_count=self.lit)

    class Unseeded(Lamps):
        def reset(self, seed=None, episode_id=None, **kwargs):
            return super().reset()

    class Broken(Lamps):
        def step(self, action, timeout_s=None, **kwargs):
            raise RuntimeError("the fuse is gone")

    app = FastAPI()
    for path, game, sessions in [
        ("/lamps", Lamps, 8), ("/unseeded", Unseeded, 8), ("/broken", Broken, 8), ("/single", Lamps, 1)
    ]:
        app.mount(path, create_fastapi_app(game, Colour, Lamp, max_concurrent_envs=sessions))
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
    """
)


@pytest.fixture(scope="module")
def lamps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Openenv's own server with four environments; gives its address."""
    program = tmp_path_factory.mktemp("lamps") / "server.py"
    program.write_text(SERVER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(program), str(port)])
    try:
        for _ in range(1200):
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, "the server ended"
            time.sleep(0.1)
        else:
            raise AssertionError("the server does not listen")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def test_training_on_a_server_of_openenv(lamps: str, tmp_path: Path) -> None:
    url = f"{lamps}/lamps"
    run = tmp_path / "run"
    train = [*FEW, "--set", "env.sessions=8", "--steps", "2", "--json"]
    ran = empg("train", "--env", "openenv", "--url", url, *train, "--out", str(run))
    assert ran.returncode == 0, ran.stderr
    summary = json.loads(ran.stdout.splitlines()[-1])
    assert summary["steps"] == 2 and "Lamps" in str(summary["after"]), summary
    assert "failed" not in ran.stderr and "differently" not in ran.stderr, ran.stderr
    # The same seeds, the same answers: the same run, however many sessions there are.
    other = tmp_path / "other"
    train[train.index("env.sessions=8")] = "env.sessions=3"
    ran = empg("train", "--env", "openenv", "--url", url, *train, "--out", str(other))
    assert ran.returncode == 0, ran.stderr
    assert (run / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    ran = empg("eval", "--model", str(run), "--episodes", "4", "--show", "1")
    assert ran.returncode == 0 and "the lamp is" in ran.stdout, ran.stderr
    ran = empg("env", "bench", "openenv", "--url", url, "--at-once", "4", "--json")
    assert json.loads(ran.stdout)["steps_per_s"] > 0, ran.stderr


def test_servers_that_cannot_be_trained_on(lamps: str, tmp_path: Path) -> None:
    def train(url: str, *more: str) -> subprocess.CompletedProcess[str]:
        out = ["--steps", "1", "--out", str(tmp_path / f"run{time.monotonic_ns()}")]
        return empg("train", "--env", "openenv", "--url", url, *FEW, *out, *more)

    ran = train(f"{lamps}/unseeded")
    assert ran.returncode == 0 and ran.stderr.count("began differently") == 1, ran.stderr
    ran = train(f"{lamps}/broken")
    assert ran.returncode == 1, ran.stderr
    assert "every episode" in ran.stderr and "the fuse is gone" in ran.stderr, ran.stderr
    # A server for one session is no trouble once that is known.
    ran = train(f"{lamps}/single", "--set", "env.sessions=1")
    assert ran.returncode == 0 and "failed" not in ran.stderr, ran.stderr
    ran = train("http://127.0.0.1:9", "--set", "env.retries=1")
    assert ran.returncode == 1 and "127.0.0.1:9" in ran.stderr, ran.stderr
    assert "2 attempts" in ran.stderr, ran.stderr


def test_a_program_of_thirty_lines(tmp_path: Path) -> None:
    program = f"{sys.executable} {ROOT / 'examples' / 'stdio_env.py'}"
    out = tmp_path / "run"
    train = [*FEW, "--steps", "2", "--json", "--out", str(out)]
    ran = empg("train", "--env", "stdio", "--command", program, *train)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1])["steps"] == 2
    assert "failed" not in ran.stderr, ran.stderr


def test_a_program_as_a_server(served: Callable[..., Served]) -> None:
    program = f"{sys.executable} {ROOT / 'examples' / 'stdio_env.py'}"
    server = served("stdio", "--command", program)
    with EmpgEnv(base_url=server.url).sync() as env:
        result = env.reset(seed=1)
        assert result.observation.admissible == ["red", "green", "blue"]
        while not result.done:
            colour = result.observation.text.split("the lamp is ")[1].split(".")[0]
            result = env.step(EmpgAction(text=colour))
        assert result.observation.won


def example() -> Any:
    path = ROOT / "examples" / "python" / "openenv_trl.py"
    spec = importlib.util.spec_from_file_location("openenv_trl", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_environment_of_trls_example(households: Served) -> None:
    module = example()
    env, twin = (module.Household(households.url) for _ in range(2))
    text = env.reset(**module.tasks(2)[1])
    assert "Your task" in text and twin.reset(seed=1, prompt="") == text
    seen = env.act("look")
    assert seen and env.get_reward() == 0.0
    for _ in range(6):
        seen = env.act("look")
    assert seen == "The task is over."
    # TRL makes the tool's schema from signature and docstring.
    json_schema = pytest.importorskip("transformers.utils").get_json_schema(env.act)
    function = json_schema["function"]
    assert function["name"] == "act"
    assert function["parameters"]["required"] == ["command"]


def test_trls_trainer_plays_the_served_environment(households: Served, tmp_path: Path) -> None:
    """TRL's own trainer and tool loop, with a model that always calls the tool."""
    torch = pytest.importorskip("torch")
    trl = pytest.importorskip("trl")
    transformers = pytest.importorskip("transformers")
    datasets = pytest.importorskip("datasets")
    tokenizers = pytest.importorskip("tokenizers")
    pytest.importorskip("transformers.models.qwen3")

    byte_level = tokenizers.pre_tokenizers.ByteLevel
    vocabulary = {byte: i for i, byte in enumerate(sorted(byte_level.alphabet()))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokens = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tags = ("tool_call", "tool_response", "think")
    tokens.add_tokens(["<|im_start|>", *(f"<{t}>" for t in tags), *(f"</{t}>" for t in tags)])
    templates = Path(trl.__file__).parent / "chat_templates"
    tokens.chat_template = (templates / "qwen3.jinja").read_text()
    call = json.dumps({"name": "act", "arguments": {"command": "look"}})
    said = torch.tensor(tokens(f"<tool_call>\n{call}\n</tool_call><|im_end|>")["input_ids"])

    class Scripted(transformers.Qwen3ForCausalLM):  # type: ignore[misc, name-defined]
        def generate(self, input_ids: Any, **_: Any) -> Any:
            return torch.cat([input_ids, said.repeat(len(input_ids), 1)], dim=1)

    config = transformers.Qwen3Config(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    module = example()
    environments: list[Any] = []

    def factory() -> Any:
        environments.append(module.Household(households.url))
        return environments[-1]

    trainer = trl.GRPOTrainer(
        model=Scripted(config),
        processing_class=tokens,
        args=trl.GRPOConfig(
            output_dir=str(tmp_path),
            max_steps=1,
            num_generations=2,
            per_device_train_batch_size=2,
            max_completion_length=1024,
            max_tool_calling_iterations=2,
            use_cpu=True,
            bf16=False,
            save_strategy="no",
            report_to=[],
        ),
        train_dataset=datasets.Dataset.from_list(module.tasks(4)),
        environment_factory=factory,
    )
    trainer.train()
    states = [environment._env.state() for environment in environments]
    assert len(states) == 2 and [state.step_count for state in states] == [2, 2]
    assert len({state.task_id for state in states}) == 1, "a group plays one task"
