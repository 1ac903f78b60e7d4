"""EMPG in SkyRL, against the real package: its trainer, batches, workers and model wrapper.

Needs `skyrl` with its trainer (requirements-skyrl.txt); everything runs on CPU.
"""

import importlib.util
import sys
import types

import numpy as np
import pytest

import empg
from empg.integrations.skyrl.trainer import EMPGMixin, step_rows
from paper_numpy import paper

# An empty package of the same name was SkyRL's first release. With the trainer there, an import that
# fails is a failure.
if importlib.util.find_spec("skyrl") is None or importlib.util.find_spec("skyrl.train") is None:
    pytest.skip("SkyRL's trainer is not installed", allow_module_level=True)
torch = pytest.importorskip("torch")
if sys.version_info < (3, 12):
    # SkyRL 0.3.0 declares a pydantic model over typing.TypedDict, which pydantic accepts from
    # Python 3.12 on only: without this the host cannot be imported at all.
    import typing

    import typing_extensions

    typing.TypedDict = typing_extensions.TypedDict
from skyrl.train.trainer import RayPPOTrainer  # noqa: E402
from transformers import AutoModelForCausalLM, BitsAndBytesConfig  # noqa: E402, F401

without_flash = importlib.util.find_spec("flash_attn") is None
if without_flash:
    # A CUDA build whose functions SkyRL's model wrapper imports to take padding out of a batch; the
    # tests leave padding in. transformers, imported above, has looked for the real one by now.
    padding = types.ModuleType("flash_attn.bert_padding")
    padding.pad_input = padding.unpad_input = None
    sys.modules.update({"flash_attn": types.ModuleType("flash_attn"), padding.__name__: padding})

from skyrl.backends.skyrl_train.workers.model_wrapper import HFModelWrapper  # noqa: E402

if without_flash:
    del sys.modules["flash_attn"], sys.modules["flash_attn.bert_padding"]

from skyrl.backends.skyrl_train.distributed.dispatch import WorkerOutput  # noqa: E402
from skyrl.backends.skyrl_train.training_batch import (  # noqa: E402
    TrainingInputBatch,
    pad_training_input_batch,
)
from skyrl.backends.skyrl_train.workers.worker import PolicyWorkerBase  # noqa: E402
from skyrl.train.config import SkyRLTrainConfig  # noqa: E402

from empg.integrations.skyrl import EMPGTrainer  # noqa: E402
from empg.integrations.skyrl.worker import (  # noqa: E402
    entropy_from_logits,
    recording_policy_worker,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:CUDA is not available:UserWarning",
    "ignore:This DataLoader will create:UserWarning",
    "ignore:'set_vital' is deprecated:UserWarning",
)


def config(**overrides):
    plain = {
        "trainer.logger": "tensorboard",
        "trainer.train_batch_size": 2,
        "trainer.epochs": 1,
        "trainer.resume_mode": "none",
        "trainer.algorithm.advantage_estimator": "grpo",
        "trainer.algorithm.use_kl_loss": "false",
        "trainer.remove_microbatch_padding": "false",
        "trainer.micro_forward_batch_size_per_gpu": 2,
        "generator.sampling_params.temperature": 0.7,
        "generator.inference_engine.enable_ray_prometheus_stats": "false",
    }
    return SkyRLTrainConfig.from_cli_overrides(
        [f"{name}={value}" for name, value in {**plain, **overrides}.items()]
    )


class Prompts:
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return "prompt"

    def collate_fn(self, batch):
        return batch


def trainer(cls=EMPGTrainer, cfg=None, **kwargs):
    return cls(
        cfg=cfg or config(),
        tracker=None,
        tokenizer=None,
        train_dataset=Prompts(),
        eval_dataset=None,
        inference_engine_client=None,
        generator=None,
        **kwargs,
    )


def batch(masks, rewards, uids, seed=0, is_last_step=None, **extra):
    """A batch as `convert_to_training_input` makes it, with the entropies of the policy pass."""
    rng = np.random.default_rng(seed)
    loss_mask = torch.tensor(masks, dtype=torch.int32)
    rows, width = loss_mask.shape
    # Responses lie at the right; tools' answers are part of the response, not of the loss.
    response = (loss_mask.flip(-1).cummax(-1).values.flip(-1) | loss_mask.cummax(-1).values).int()
    token_rewards = torch.zeros(rows, width)
    token_rewards[:, -1] = torch.tensor(rewards)
    data = TrainingInputBatch(
        {
            "sequences": torch.zeros(rows, width + 2, dtype=torch.long),
            "attention_mask": torch.ones(rows, width + 2, dtype=torch.long),
            "loss_mask": loss_mask,
            "response_mask": response,
            "rewards": token_rewards,
            "values": None,
            "entropy": torch.tensor(rng.gamma(2.0, 0.4, (rows, width)), dtype=torch.float32),
            **extra,
        }
    )
    data.metadata = {"uids": list(uids), "response_length": width, "avg_response_length": 1.0}
    if is_last_step is not None:
        data.metadata["is_last_step"] = list(is_last_step)
    return data


MULTI_TURN = [
    [0, 1, 1, 0, 1, 1, 1, 0, 1],
    [1, 1, 1, 0, 0, 1, 0, 1, 1],
    [0, 0, 0, 0, 0, 0, 1, 1, 1],
    [0, 1, 0, 1, 0, 1, 0, 1, 1],
]
REWARDS = [1.0, 0.0, 0.25, 0.5]


def close(got, want):
    np.testing.assert_allclose(np.asarray(got, np.float64), np.asarray(want), rtol=2e-5, atol=2e-5)


def copy_of(data):
    other = TrainingInputBatch({k: v if v is None else v.clone() for k, v in data.items()})
    other.metadata = {k: list(v) if isinstance(v, list) else v for k, v in data.metadata.items()}
    return other


@pytest.mark.parametrize("estimator", ["grpo", "rloo", "maxrl"])
def test_the_hosts_advantages_are_modulated_as_in_the_paper(estimator):
    cfg = config(**{"trainer.algorithm.advantage_estimator": estimator})
    data = batch(MULTI_TURN, REWARDS, "aabb")
    plain = copy_of(data)
    plain.pop("entropy")
    host = trainer(RayPPOTrainer, cfg).compute_advantages_and_returns(plain)
    entropy, mask = data["entropy"].clone(), data["loss_mask"].clone()
    mine = trainer(cfg=cfg)
    got = mine.compute_advantages_and_returns(data)

    base = host["advantages"][:, -1]
    assert base.abs().sum() > 0
    close(got["advantages"], paper(base.numpy(), entropy.numpy(), mask.numpy()))
    assert torch.equal(
        got["advantages"], empg.modulate(host["advantages"], entropy, mask=mask.bool())
    )
    assert torch.equal(got["returns"], host["returns"])
    assert "entropy" not in got
    steps = sum(len(spans) for spans in empg.steps_from_mask(mask.numpy()))
    assert mine.all_metrics["empg/steps"] == steps == got.metadata["metrics"]["empg/steps"]
    assert mine.all_metrics["empg/g_min"] < 1 < mine.all_metrics["empg/g_max"]


def test_options_reach_the_core():
    data = batch(MULTI_TURN, REWARDS, "aabb")
    entropy, mask = data["entropy"].numpy(), data["loss_mask"].numpy()
    options = {"k": 2.0, "k_f": 0.5, "zeta": 0.3, "center": False}
    plain = copy_of(data)
    plain.pop("entropy")
    host = trainer(RayPPOTrainer).compute_advantages_and_returns(plain)
    got = trainer(empg=options).compute_advantages_and_returns(data)
    close(got["advantages"], paper(host["advantages"][:, -1].numpy(), entropy, mask, **options))


def test_options_of_tokens_and_lists_reach_the_core_too():
    # As settings files have them; a step table takes neither of the latter two.
    plain = {"normalize": "quantile", "quantile": (0.1, 0.9)}
    lists = {"normalize": "quantile", "quantile": [0.1, 0.9], "paper_exact": True, "threads": 1}
    data = batch(MULTI_TURN, REWARDS, "aabb")
    mask = data["loss_mask"].bool()
    want, got = (
        trainer(empg=options).compute_advantages_and_returns(copy_of(data))["advantages"]
        for options in (plain, lists)
    )
    assert torch.equal(got[mask], want[mask]) and not torch.equal(got, want)


def test_off_is_the_host_to_the_bit():
    data = batch(MULTI_TURN, REWARDS, "aabb")
    data.pop("entropy")
    host = trainer(RayPPOTrainer).compute_advantages_and_returns(copy_of(data))
    got = trainer(empg=False).compute_advantages_and_returns(data)
    assert torch.equal(got["advantages"], host["advantages"])


STEP_WISE = [
    [0, 0, 1, 1, 1, 1],  # trajectory 0
    [0, 0, 0, 0, 0, 1],
    [0, 0, 0, 1, 1, 1],  # trajectory 1
    [0, 1, 1, 0, 1, 1],  # two merged turns
    [0, 0, 0, 0, 1, 1],
]
LAST = [False, True, False, False, True]


def test_rows_of_step_wise_training_are_one_trajectory():
    cfg = config(**{"generator.step_wise_trajectories": "true"})
    data = batch(STEP_WISE, [0.0, 2.0, 0.0, 0.0, 0.5], "gggg" + "g", is_last_step=LAST)
    # SkyRL pads to a multiple of the data-parallel size with copies of row 0 outside the loss.
    data = pad_training_input_batch(data, 3)
    entropy, mask = data["entropy"].numpy(), data["loss_mask"].numpy()
    plain = copy_of(data)
    plain.pop("entropy")
    host = trainer(RayPPOTrainer, cfg).compute_advantages_and_returns(plain)
    base = host["advantages"].numpy()[:, -1]
    got = trainer(cfg=cfg).compute_advantages_and_returns(data)["advantages"].numpy()

    want = paper(base, entropy, mask, trajectories=[0, 0, 1, 1, 1, 2, 3, 4])
    close(got, want)
    assert (got[5:] == 0).all(), "padding rows get nothing"
    # The bonus reaches over the rows: without it the first row's step would differ.
    apart = paper(base, entropy, mask)
    assert abs(apart[0][-1] - want[0][-1]) > 1e-3


def test_step_rows_counts_steps_before_a_row():
    trajectory, first = step_rows(np.array(STEP_WISE, bool), np.array(LAST))
    assert trajectory.tolist() == [0, 0, 1, 1, 1]
    assert first.tolist() == [0, 1, 0, 1, 3]
    trajectory, first = step_rows(np.array(STEP_WISE, bool), None)
    assert trajectory.tolist() == [0, 1, 2, 3, 4]
    assert first.tolist() == [0] * 5


def test_a_batch_outside_the_loss_stays_as_it_is():
    data = batch(MULTI_TURN, REWARDS, "aabb")
    data["loss_mask"] = torch.zeros_like(data["loss_mask"])
    plain = copy_of(data)
    plain.pop("entropy")
    host = trainer(RayPPOTrainer).compute_advantages_and_returns(plain)
    mine = trainer()
    got = mine.compute_advantages_and_returns(data)
    assert torch.equal(got["advantages"], host["advantages"])
    assert mine.all_metrics["empg/steps"] == 0


def test_not_a_number_is_an_error_only_inside_steps():
    data = batch(MULTI_TURN, REWARDS, "aabb")
    data["entropy"][0, 0] = float("nan")
    trainer().compute_advantages_and_returns(copy_of(data))
    data["entropy"][1, 5] = float("nan")
    with pytest.raises(ValueError, match="entropy"):
        trainer().compute_advantages_and_returns(data)


# The policy's forward pass.


def tiny_model(dtype=torch.float32):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    llama = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    model = LlamaForCausalLM(llama).to(dtype).eval()
    # A random initialisation is nearly uniform; real policies are not.
    model.lm_head.weight.data.mul_(40)
    return model


def worker(cls, cfg, model):
    made = object.__new__(cls)
    made.cfg = cfg.trainer
    made.model = HFModelWrapper(model, remove_microbatch_padding=False)
    return made


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: "cpu")


def prompts_and_responses(rows=5, prompt=4, response=9, seed=3):
    generator = torch.Generator().manual_seed(seed)
    sequences = torch.randint(0, 97, (rows, prompt + response), generator=generator)
    attention = torch.ones_like(sequences)
    for row in range(rows):
        attention[row, : row % (prompt - 1)] = 0
    data = TrainingInputBatch({"sequences": sequences, "attention_mask": attention})
    data.metadata = {"response_length": response}
    return data


def full_entropies(model, data, temperature):
    """Entropies of the whole vocabulary in float64, position t from the logits at t − 1."""
    attention = data["attention_mask"]
    positions = (attention.cumsum(-1) - 1).masked_fill(attention == 0, 1)
    with torch.no_grad():
        logits = model(
            data["sequences"], attention_mask=attention, position_ids=positions
        ).logits.double()
    logp = torch.log_softmax(logits / temperature, dim=-1)
    entropy = -(logp.exp() * logp).sum(-1)
    return entropy[:, -data.metadata["response_length"] - 1 : -1]


@pytest.mark.parametrize("tokens_per_microbatch", [-1, 20])
def test_the_policy_pass_hands_out_its_entropies(on_cpu, tokens_per_microbatch):
    cfg = config(**{"trainer.max_tokens_per_microbatch": tokens_per_microbatch})
    model, data = tiny_model(), prompts_and_responses()
    host = worker(PolicyWorkerBase, cfg, model).forward(data).loss_fn_outputs
    recording = worker(recording_policy_worker(PolicyWorkerBase), cfg, model)
    got = recording.forward(data).loss_fn_outputs
    assert [sample["logprobs"] for sample in got] == [sample["logprobs"] for sample in host]
    want = full_entropies(model, data, 0.7)
    assert want.std() > 0.1
    np.testing.assert_allclose([s["entropy"] for s in got], want, rtol=1e-4, atol=1e-5)
    # Ray ships the class by value to its workers.
    from ray import cloudpickle

    shipped = cloudpickle.loads(cloudpickle.dumps(recording_policy_worker(PolicyWorkerBase)))
    assert worker(shipped, cfg, model).forward(data).loss_fn_outputs == got
    # Afterwards the model is the host's again.
    plain = recording.model(data["sequences"], 9, data["attention_mask"])
    assert plain.shape == (5, 9)
    again = worker(PolicyWorkerBase, cfg, model).forward(data).loss_fn_outputs
    assert again == host


def test_entropies_keep_their_precision_in_bfloat16():
    from skyrl.backends.skyrl_train.utils.torch_utils import chunked_entropy_from_logits

    torch.manual_seed(1)
    logits = (torch.randn(3, 50, 211) * 6).bfloat16()
    logp = torch.log_softmax(logits.double(), -1)
    want = -(logp.exp() * logp).sum(-1)
    mine = (entropy_from_logits(logits, chunk_size=7).double() - want).abs().max()
    theirs = (chunked_entropy_from_logits(logits).double() - want).abs().max()
    assert mine < 1e-5 < 1e-3 < theirs
    masked = logits.clone()
    masked[..., 100:] = -float("inf")
    assert torch.isfinite(entropy_from_logits(masked)).all()
    keep = torch.ones(3, 50)
    keep[1] = 0
    assert (entropy_from_logits(logits, attention_mask=keep)[1] == 0).all()


class InProcess:
    """Stands where SkyRL's WorkerDispatch is: two data-parallel ranks, without Ray."""

    def __init__(self, policy):
        self.policy = policy

    def forward(self, model, data):
        half = len(data["sequences"]) // 2
        assert 2 * half == len(data["sequences"]), "as MeshDispatch.dispatch demands"
        return self.forward_from_staged(model, data.chunk(half))

    def stage_data(self, model, data, mini_batch_boundaries):
        # As MeshDispatch.stage_chunks: every mini-batch is padded by itself.
        parts = [data[start:end] for start, end in mini_batch_boundaries]
        padded = [pad_training_input_batch(part, len(part) % 2) for part in parts]
        return [part.chunk(len(part) // 2) for part in padded]

    def forward_from_staged(self, model, chunk_refs):
        assert model == "policy"
        shards = [self.policy.forward(part) for part in chunk_refs]
        return WorkerOutput(loss_fn_outputs=[x for s in shards for x in s.loss_fn_outputs])

    def empty_cache(self, model=None):
        pass


@pytest.mark.parametrize("per_minibatch", [False, True])
def test_from_the_policy_pass_to_the_advantages(on_cpu, per_minibatch):
    name = "trainer.recompute_old_logprobs_per_minibatch"
    cfg = config(**{name: str(per_minibatch).lower()})
    model, tokens = tiny_model(), prompts_and_responses(rows=4)
    data = batch(MULTI_TURN, REWARDS, "aabb")
    data.pop("entropy")
    data["sequences"], data["attention_mask"] = tokens["sequences"], tokens["attention_mask"]
    data.metadata["policy_mini_batch_boundaries"] = [(0, 2), (2, 4)]
    plain = trainer(RayPPOTrainer, cfg)
    plain.dispatch = InProcess(worker(PolicyWorkerBase, cfg, model))
    host = plain.compute_advantages_and_returns(plain.fwd_logprobs_values_reward(copy_of(data)))
    mine = trainer(cfg=cfg)
    mine.dispatch = InProcess(worker(recording_policy_worker(PolicyWorkerBase), cfg, model))
    passed = mine.fwd_logprobs_values_reward(copy_of(data))
    assert isinstance(mine.dispatch, InProcess)
    assert torch.equal(passed["action_log_probs"], host["action_log_probs"])
    got = mine.compute_advantages_and_returns(passed)
    entropy = full_entropies(model, tokens, 0.7).numpy()
    base = host["advantages"][:, -1].numpy()
    np.testing.assert_allclose(
        got["advantages"], paper(base, entropy, np.array(MULTI_TURN)), rtol=1e-3, atol=1e-4
    )
    # Nothing that the host does not know goes on to the training step.
    assert set(got) == set(host)


@pytest.mark.parametrize("per_minibatch", [False, True])
def test_mini_batches_that_are_padded_keep_their_entropies(on_cpu, per_minibatch):
    cfg = config(
        **{
            "generator.step_wise_trajectories": "true",
            "trainer.recompute_old_logprobs_per_minibatch": str(per_minibatch).lower(),
        }
    )
    # Two prompts with 5 and 6 rows of single turns, over two ranks.
    rng = np.random.default_rng(4)
    masks = [[0] * (9 - n) + [1] * n for n in rng.integers(1, 7, 11).tolist()]
    last = [False, True, False, False, True, False, True, False, True, False, True]
    rewards = [0.0, 2.0, 0.0, 0.0, 0.5, 0.0, 1.0, 0.0, 0.0, 0.0, 3.0]
    data = batch(masks, rewards, "aaaaabbbbbb", is_last_step=last)
    data.pop("entropy")
    tokens = prompts_and_responses(rows=11)
    data["sequences"], data["attention_mask"] = tokens["sequences"], tokens["attention_mask"]
    data.metadata["policy_mini_batch_boundaries"] = [(0, 5), (5, 11)]
    data = pad_training_input_batch(data, 1)
    model = tiny_model()
    entropy = full_entropies(model, data, 0.7).numpy()
    mine = trainer(cfg=cfg)
    mine.dispatch = InProcess(worker(recording_policy_worker(PolicyWorkerBase), cfg, model))
    passed = mine.fwd_logprobs_values_reward(data)
    np.testing.assert_allclose(passed["entropy"][:11], entropy[:11], rtol=1e-4, atol=1e-5)
    plain = copy_of(passed)
    plain.pop("entropy")
    host = trainer(RayPPOTrainer, cfg).compute_advantages_and_returns(plain)
    got = mine.compute_advantages_and_returns(passed)
    base, mask = host["advantages"][:, -1].numpy(), passed["loss_mask"].numpy()
    want = paper(base, entropy, mask, trajectories=[0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5])
    np.testing.assert_allclose(got["advantages"], want, rtol=1e-3, atol=1e-4)


def test_a_pass_that_the_host_would_skip_is_made():
    cfg = config(**{"trainer.algorithm.policy_loss_type": "rollout_is"})
    data = batch(MULTI_TURN, REWARDS, "aabb", rollout_logprobs=torch.zeros(4, 9))
    assert trainer(RayPPOTrainer, cfg)._skip_policy_forward(data)
    assert not trainer(cfg=cfg)._skip_policy_forward(data)


def test_entropies_may_come_from_elsewhere():
    class FromElsewhere(EMPGMixin, RayPPOTrainer):
        def empg_entropy(self, training_input):
            return torch.arange(36.0).reshape(4, 9)

    cfg = config(**{"trainer.strategy": "megatron"})
    mine = trainer(FromElsewhere, cfg)

    class Policy:
        def forward(self, data):
            rows = len(data["sequences"])
            return WorkerOutput(loss_fn_outputs=[{"logprobs": [0.0] * 9}] * rows)

    mine.dispatch = InProcess(Policy())
    data = batch(MULTI_TURN, REWARDS, "aabb")
    data.pop("entropy")
    passed = mine.fwd_logprobs_values_reward(data)
    assert torch.equal(passed["entropy"], torch.arange(36.0).reshape(4, 9))


# What is refused, and when.


def test_workers_without_entropies_are_named(on_cpu):
    mine = trainer()
    mine.dispatch = InProcess(worker(PolicyWorkerBase, config(), tiny_model()))
    data = batch(MULTI_TURN, REWARDS, "aabb")
    data.pop("entropy")
    tokens = prompts_and_responses(rows=4)
    data["sequences"], data["attention_mask"] = tokens["sequences"], tokens["attention_mask"]
    with pytest.raises(RuntimeError, match="build_models"):
        mine.fwd_logprobs_values_reward(data)
    data = batch(MULTI_TURN, REWARDS, "aabb")
    data.pop("entropy")
    with pytest.raises(RuntimeError, match="fwd_logprobs_values_reward"):
        mine.compute_advantages_and_returns(data)


@pytest.mark.parametrize(
    ("overrides", "options", "message"),
    [
        ({"trainer.algorithm.advantage_estimator": "gae"}, {}, "advantage_estimator=gae"),
        ({"trainer.algorithm.advantage_estimator": "reinforce++"}, {}, "grpo, rloo, maxrl"),
        ({"trainer.algorithm.advantage_batch_normalize": "true"}, {}, "advantage_batch_normalize"),
        ({"trainer.strategy": "megatron"}, {}, "strategy=megatron"),
        ({}, {"k": -1.0}, "k"),
        ({}, {"normalize": "softmax"}, "normalize"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_built(overrides, options, message):
    with pytest.raises(ValueError, match=message):
        trainer(cfg=config(**overrides), empg=options)
    # Without EMPG the host may do as it likes.
    if not options:
        trainer(cfg=config(**overrides), empg=False)


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match="zetta"):
        trainer(empg={"zetta": 0.1})


def test_the_mixin_needs_the_trainer_behind_it():
    class Alone(EMPGMixin):
        pass

    with pytest.raises(RuntimeError, match="RayPPOTrainer"):
        Alone(config())


def test_policy_workers_are_recognised():
    ray = pytest.importorskip("ray")
    recording = recording_policy_worker(PolicyWorkerBase)
    assert issubclass(recording, PolicyWorkerBase)
    assert recording is recording_policy_worker(PolicyWorkerBase)
    actor = recording_policy_worker(ray.remote(num_gpus=1)(PolicyWorkerBase))
    assert issubclass(actor.__ray_metadata__.modified_class, recording)
    with pytest.raises(TypeError, match="PolicyWorkerBase"):
        recording_policy_worker(dict)


def test_build_models_gets_the_recording_worker(monkeypatch):
    seen = []
    monkeypatch.setattr(RayPPOTrainer, "build_models", lambda self, *workers: seen.append(workers))
    trainer().build_models(PolicyWorkerBase, "critic", "ref")
    trainer(empg=False).build_models(PolicyWorkerBase, "critic", "ref")
    assert seen[0] == (recording_policy_worker(PolicyWorkerBase), "critic", "ref")
    assert seen[1] == (PolicyWorkerBase, "critic", "ref")


# The entrypoint.


def test_arguments_are_split():
    from empg.integrations.skyrl.entrypoint import split_arguments

    rest, options = split_arguments(
        [
            "trainer.override_entrypoint=empg.integrations.skyrl",
            "trainer.seed=1",
            "empg.zeta=0.05",
            "empg.normalize=quantile",
            "empg.quantile=(0.1, 0.9)",
            "empg.gate_bonus=true",
        ]
    )
    assert rest == ["trainer.seed=1"]
    assert options == {
        "zeta": 0.05,
        "normalize": "quantile",
        "quantile": (0.1, 0.9),
        "gate_bonus": True,
    }
    with pytest.raises(ValueError, match="twice"):
        split_arguments(["empg.k=1", "empg.k=2"])
    with pytest.raises(ValueError, match="NAME=VALUE"):
        split_arguments(["empg.k"])


def test_the_hosts_own_entrypoint_dispatches_to_ours(monkeypatch):
    from skyrl.train.entrypoints import main_base

    import empg.integrations.skyrl.entrypoint as entrypoint

    called = []
    monkeypatch.setattr(entrypoint, "main", lambda: called.append(True))
    arguments = ["main_base", "trainer.override_entrypoint=empg.integrations.skyrl"]
    monkeypatch.setattr(sys, "argv", arguments)
    main_base.main()
    assert called == [True]


# What SkyRL's own validation lets pass.
VALID = ["trainer.logger=tensorboard"]


def test_the_entrypoint_refuses_before_ray_starts(monkeypatch):
    from empg.integrations.skyrl import main

    refused = "trainer.algorithm.advantage_estimator=reinforce++"
    monkeypatch.setattr(sys, "argv", ["main", *VALID, refused, "empg.zeta=0.2"])
    with pytest.raises(ValueError, match=r"advantage_estimator=reinforce\+\+"):
        main()
    import ray

    assert not ray.is_initialized()


def test_the_entrypoint_takes_the_older_name_of_a_strategy(monkeypatch):
    from skyrl.train.utils import utils

    from empg.integrations.skyrl import main

    class Started(Exception):
        pass

    def start(cfg):
        raise Started(cfg.trainer.strategy)

    monkeypatch.setattr(utils, "initialize_ray", start)
    monkeypatch.setattr(sys, "argv", ["main", *VALID, "trainer.strategy=fsdp2"])
    with pytest.warns(DeprecationWarning, match="fsdp2"), pytest.raises(Started, match="^fsdp$"):
        main()


def test_the_experiment_makes_the_trainer_with_its_options():
    from empg.integrations.skyrl.entrypoint import experiment

    exp = types.SimpleNamespace()
    made = experiment({"zeta": 0.2}).get_trainer(
        exp,
        cfg=config(),
        tracker=None,
        tokenizer=None,
        train_dataset=Prompts(),
        eval_dataset=None,
        inference_engine_client=None,
        generator=None,
        colocate_pg=None,
    )
    assert isinstance(made, EMPGTrainer)
    assert made.empg_options == {"zeta": 0.2}
