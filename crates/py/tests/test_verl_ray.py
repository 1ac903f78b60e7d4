"""verl's real trainer class over a real TransferQueue, and Ray workers that each hold a shard."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from verl_cases import case, discoverable, reference, runs

discoverable()
torch = pytest.importorskip("torch")
pytest.importorskip("verl")
ray = pytest.importorskip("ray")
tq = pytest.importorskip("transfer_queue")
from hydra import compose, initialize_config_module  # noqa: E402
from omegaconf import open_dict  # noqa: E402
from tensordict import TensorDict  # noqa: E402
from verl.protocol import DataProto  # noqa: E402
from verl.trainer.ppo import core_algos  # noqa: E402
from verl.trainer.ppo.padding_utils import upsample_batch_to_divisible_size  # noqa: E402
from verl.trainer.ppo.v1 import PPOTrainerSync, get_trainer_cls  # noqa: E402
from verl.utils.tensordict_utils import list_of_dict_to_tensordict  # noqa: E402

from empg.integrations.verl import modulate_batch  # noqa: E402

ON = "+algorithm.empg.enable=True"


def start_ray():
    """A local cluster; again where a busy machine takes more than Ray's 30 seconds, which are fixed."""
    for attempt in range(5):
        ray.shutdown()
        try:
            ray.init(
                num_cpus=4,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
                object_store_memory=100 * 2**20,
            )
        except Exception as error:
            if attempt == 4 or "timed out during startup" not in str(error):
                raise
        else:
            return


@pytest.fixture(scope="module")
def cluster():
    start_ray()
    tq.init(
        settings("transfer_queue.backend.SimpleStorage.num_data_storage_units=1").transfer_queue
    )
    yield
    tq.close()
    ray.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random model of 25 thousand parameters with a tokenizer, as a folder of Hugging Face's form."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    folder = str(tmp_path_factory.mktemp("model"))
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=False, initializer_range=0.5,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(64)}, unk_token="t0"))
    PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="t1", pad_token="t0", unk_token="t0"
    ).save_pretrained(folder)
    return folder


def actor_settings(model, *overrides):
    """Training settings for two processes without accelerators."""
    actor = "actor_rollout_ref.actor"
    return settings(
        f"actor_rollout_ref.model.path={model}", "actor_rollout_ref.model.use_remove_padding=False",
        "+actor_rollout_ref.model.override_config.attn_implementation=sdpa",
        f"{actor}.strategy=fsdp2", f"{actor}.ppo_micro_batch_size_per_gpu=3", f"{actor}.optim.lr=1e-3",
        f"{actor}.ppo_mini_batch_size=3", f"{actor}.fsdp_config.model_dtype=fp32", f"{actor}.use_torch_compile=False",
        *(f"+{actor}.fsdp_config.mixed_precision.{part}_dtype=fp32" for part in ("param", "reduce", "buffer")),
        "actor_rollout_ref.rollout.name=vllm", "actor_rollout_ref.rollout.n=4",
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=3", "trainer.device=cpu", *overrides,
    )  # fmt: skip


@pytest.fixture(scope="module")
def actors(cluster, model):
    """verl's worker group of two Ray workers that share one model by FSDP."""
    from verl.single_controller.ray import RayClassWithInitArgs, RayResourcePool, RayWorkerGroup
    from verl_actor import CpuActor

    config = actor_settings(model).actor_rollout_ref
    pool = RayResourcePool([2], use_gpu=False, max_colocate_count=1)
    cls = RayClassWithInitArgs(cls=ray.remote(CpuActor), config=config, role="actor")
    group = RayWorkerGroup(pool, cls, device_name="cpu", use_gpu=False)
    group.init_model()
    return group


def settings(*overrides):
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=["algorithm.adv_estimator=grpo", *overrides])


def queued(c, partition):
    """Put the batch into TransferQueue as verl's agent loop does: unpadded rows under their keys."""
    rows, tags = [], []
    for row, length in enumerate(c.lengths):
        scores = torch.zeros(length)
        scores[-1] = float(c.rewards[row])
        prompts, responses = torch.arange(1, 5), torch.arange(10, 10 + length)
        mask = torch.from_numpy(c.mask[row, :length])
        rows.append({
            "uid": c.uid[row], "prompts": prompts, "responses": responses,
            "input_ids": torch.cat([prompts, responses]),
            "position_ids": torch.arange(4 + length), "response_mask": mask, "loss_mask": mask,
            "rm_scores": scores, "rollout_log_probs": torch.from_numpy(c.rollout_log_probs[row, :length]),
        })  # fmt: skip
        tags.append({"prompt_len": 4, "response_len": length, "seq_len": 4 + length})
    return tq.kv_batch_put(
        keys=list(c.keys),
        partition_id=partition,
        fields=list_of_dict_to_tensordict(rows),
        tags=tags,
    )


class Actors:
    """Answers the pass over old log-probabilities as the workers do: whole sequences, jagged."""

    def __init__(self, c):
        self.c = c
        self.requests = []

    def compute_log_prob(self, batch):
        self.requests.append(dict(batch.extra_info))
        data = tq.kv_batch_get(
            keys=batch.keys,
            partition_id=batch.partition_id,
            select_fields=["input_ids", "responses"],
        )
        fields = {"log_probs": [], "entropy": []}
        for key, ids, response in zip(
            batch.keys, data["input_ids"].unbind(), data["responses"].unbind()
        ):
            length = len(response)
            for name, values in (("log_probs", self.c.old_log_probs), ("entropy", self.c.entropy)):
                # A value belongs to the next token: the response's are one place to the left.
                whole = torch.full((len(ids),), 5.0)
                own = (
                    values[self.c.keys.index(key), :length]
                    if key in self.c.keys
                    else np.full(length, 3.0)
                )
                whole[len(ids) - length - 1 : -1] = torch.from_numpy(
                    np.asarray(own, dtype=np.float32)
                )
                fields[name].append(whole)
        out = {
            name: torch.nested.as_nested_tensor(rows, layout=torch.jagged)
            for name, rows in fields.items()
        }
        return tq.kv_batch_put(
            keys=batch.keys,
            partition_id=batch.partition_id,
            fields=TensorDict(out, batch_size=len(batch)),
        )


def trainer(config, c, cls=None):
    """The trainer that the registry gives, without its cluster of GPUs."""
    cls = cls or get_trainer_cls("sync")
    made = cls.__new__(cls)
    made.config = config
    made.actor_rollout_wg = Actors(c)
    return made


def train_on(config, c, partition, cls=None, multiple=1):
    """verl's old-log-prob pass and its advantages; the padded tensors that the actor would see."""
    with open_dict(config):
        config.actor_rollout_ref.rollout.calculate_log_probs = False
    batch = queued(c, partition)
    batch = upsample_batch_to_divisible_size(batch, multiple, eos_token_id=0)
    made, metrics = trainer(config, c, cls), {}
    batch = made._compute_old_log_prob(batch, metrics)
    batch = made._compute_advantage(batch, metrics)
    data = tq.kv_batch_get(
        keys=batch.keys,
        partition_id=partition,
        select_fields=["advantages", "returns", "response_mask"],
    )
    tags = batch.tags
    tq.kv_clear(keys=batch.keys, partition_id=partition)
    assert [tag["seq_len"] for tag in tags][: len(c.lengths)] == [
        4 + length for length in c.lengths
    ]
    return data.to_padded_tensor(), metrics, made


def grpo(c):
    """A_i of every row by verl's own function."""
    advantages, _ = core_algos.compute_grpo_outcome_advantage(
        torch.from_numpy(c.rewards)[:, None], torch.ones(len(c.rewards), 1), c.uid
    )
    return advantages[:, 0].numpy()


def session_scores(c):
    """As `grpo`, but verl scores a session once and gives the score to all its outputs."""
    sessions = [key.rsplit("_", 1)[0] for key in c.keys]
    first = [sessions.index(name) for name in dict.fromkeys(sessions)]
    uid, rewards = c.uid[first], torch.from_numpy(c.rewards[first])
    scores, _ = core_algos.compute_grpo_outcome_advantage(
        rewards[:, None], torch.ones(len(first), 1), uid
    )
    score = dict(zip(dict.fromkeys(sessions), scores[:, 0].tolist()))
    return np.array([score[name] for name in sessions])


def close(got, wanted):
    wanted = np.asarray(wanted)
    np.testing.assert_array_less(
        np.abs(np.asarray(got) - wanted), 2e-5 * np.maximum(1.0, np.abs(wanted))
    )


def test_the_trainer_modulates_what_its_base_computes(cluster):
    c = case(seed=21)
    data, metrics, made = train_on(settings(ON), c, "modulated")
    assert made.actor_rollout_wg.requests[0]["calculate_entropy"] is True
    close(data["advantages"], reference(grpo(c), c.entropy, c.mask))
    assert torch.count_nonzero(data["advantages"][data["response_mask"] == 0]) == 0
    assert metrics["empg/steps"] == sum(len(runs(row)) for row in c.mask)
    assert metrics["empg/g_std"] > 0.0
    # The same batch by the core, to the bit.
    core = DataProto.from_dict(
        tensors={
            "advantages": torch.from_numpy(grpo(c))[:, None] * torch.from_numpy(c.mask),
            "entropy": torch.from_numpy(c.entropy),
            "response_mask": torch.from_numpy(c.mask),
        }
    )
    modulate_batch(core, keys=c.keys)
    assert torch.equal(core.batch["advantages"], data["advantages"])


def test_a_run_that_does_not_ask_is_verls_own(cluster):
    c = case(seed=22)
    mine, metrics, _ = train_on(settings(), c, "off")
    verls, verls_metrics, _ = train_on(settings(), c, "plain", cls=PPOTrainerSync)
    assert torch.equal(mine["advantages"], verls["advantages"])
    assert metrics == verls_metrics and not any(name.startswith("empg") for name in metrics)


@pytest.mark.parametrize("estimator", ["rloo", "reinforce_plus_plus_baseline"])
def test_the_base_may_be_any_estimator(cluster, estimator):
    c = case(seed=23)
    choice = f"algorithm.adv_estimator={estimator}"
    base, _, _ = train_on(settings(choice), c, "base")
    data, _, _ = train_on(settings(choice, ON, "+algorithm.empg.k=2"), c, "on")
    close(data["advantages"], reference(base["advantages"].numpy(), c.entropy, c.mask, k=2.0))
    assert torch.equal(data["returns"], base["returns"])


def test_rejection_sampling_in_the_trainer_keeps_the_steps(cluster):
    c = case(seed=24, prompts=4)
    correction = ["algorithm.rollout_correction.rollout_rs=token_k1",
                  "algorithm.rollout_correction.rollout_rs_threshold='0.9_1.1'"]  # fmt: skip
    data, metrics, _ = train_on(settings(ON, *correction), c, "rejected")
    kept = data["response_mask"].numpy() != 0
    assert 0 < kept.sum() < c.mask.sum()
    assert not np.any(kept & (c.mask == 0))
    left = c.mask * kept.any(axis=1, keepdims=True)
    close(data["advantages"], reference(grpo(c), c.entropy, left) * kept)
    assert metrics["empg/steps"] == sum(len(runs(row)) for row in left)
    assert metrics["empg/rejected_tokens"] == pytest.approx(1.0 - kept.sum() / c.mask.sum())
    assert any(name.startswith("rollout_corr/") for name in metrics)


def test_sessions_of_several_outputs_and_verls_padding_rows(cluster):
    c = case(seed=25, outputs=(1, 3, 2))
    multiple = len(c.keys) + 3
    data, metrics, _ = train_on(settings(ON), c, "sessions", multiple=multiple)
    assert len(data["advantages"]) == multiple
    base = session_scores(c)
    rows = data["advantages"][: len(c.keys)].numpy()
    close(rows, reference(base, c.entropy, c.mask, c.keys))
    assert torch.count_nonzero(data["advantages"][len(c.keys) :]) == 0
    assert metrics["empg/steps"] == sum(len(runs(row)) for row in c.mask)


def test_a_batch_without_entropies_is_refused(cluster):
    c = case(seed=26)
    config = settings(ON, "algorithm.rollout_correction.bypass_mode=True")
    with pytest.raises(ValueError, match="the batch has no entropy.*bypass_mode"):
        train_on(config, c, "bypass")


def test_two_ray_workers_give_the_bits_of_one_process(actors):
    c = case(seed=27, prompts=6, sessions=4, outputs=(1, 2))
    options = {"zeta": 0.3, "normalize": "quantile"}
    data = DataProto.from_dict(
        tensors={
            "entropy": torch.from_numpy(c.entropy),
            "response_mask": torch.from_numpy(c.mask),
            "advantages": torch.from_numpy(c.rewards - c.rewards.mean())[:, None]
            * torch.from_numpy(c.mask),
        },
        non_tensors={"uid": c.uid},
    )
    workers = actors.workers
    # Sessions are torn apart: even rows to the one, odd rows to the other.
    rows = [np.arange(rank, len(c.keys), 2) for rank in range(2)]
    held = [
        worker.hold.remote(data.select_idxs(own), [c.keys[row] for row in own])
        for worker, own in zip(workers, rows)
    ]
    tables = ray.get(held)
    results = ray.get([worker.modulate.remote(tables, options) for worker in workers])
    whole_metrics = modulate_batch(data, options, keys=c.keys)
    for own, (part, metrics) in zip(rows, results):
        assert torch.equal(
            part.batch["advantages"], data.batch["advantages"][torch.from_numpy(own)]
        )
        whole = {
            name: value for name, value in whole_metrics.items() if name != "empg/rejected_tokens"
        }
        assert {name: metrics[name] for name in whole} == whole
    names = [worker.trainer_name.remote() for worker in workers]
    assert ray.get(names) == ["EmpgPPOTrainerSync"] * 2, "the plugin is loaded in workers too"


def test_verls_step_of_training_on_two_ray_workers(actors, model):
    """All of a step but the sampling: balance, old log-probabilities, advantages, update by FSDP."""
    c = case(seed=28, outputs=(1, 2))
    config = actor_settings(model, ON, "+algorithm.empg.zeta=0.05")
    with open_dict(config):
        config.actor_rollout_ref.rollout.calculate_log_probs = False
    cls = get_trainer_cls("sync")
    made, metrics = cls.__new__(cls), {}
    made.config, made.actor_rollout_wg, made.global_steps = config, actors, 1
    made.use_critic, made.distillation_config, made.tokenizer = (
        False,
        None,
        SimpleNamespace(eos_token_id=1),
    )
    before = actors.parameters()[0]

    batch = made._balance_batch(queued(c, "step"), metrics)
    assert len(batch) == 24 and sum(tag.get("is_padding", False) for tag in batch.tags) == 24 - len(
        c.keys
    )
    batch.extra_info["temperature"] = 1.0
    batch = made._compute_old_log_prob(batch, metrics)
    batch = made._compute_advantage(batch, metrics)
    fields = ["advantages", "entropy", "response_mask"]
    data = tq.kv_batch_get(
        keys=c.keys, partition_id="step", select_fields=fields
    ).to_padded_tensor()
    batch = made._update_actor(batch, metrics)
    tq.kv_clear(keys=batch.keys, partition_id="step")

    entropy = data["entropy"].numpy()
    spread = metrics["empg/entropy_max"] - metrics["empg/entropy_min"]
    assert spread > 0.1, "the model must be surer of some steps than of others"
    close(data["advantages"], reference(session_scores(c), entropy, c.mask, c.keys, zeta=0.05))
    assert np.isfinite(metrics["actor/pg_loss"]) and metrics["actor/grad_norm"] > 0.0
    after, other = actors.parameters()
    assert max(float((after[name] - before[name]).abs().max()) for name in after) > 1e-4
    assert all(torch.equal(after[name], other[name]) for name in after)
