"""verl's real trainer class over a real TransferQueue, and Ray workers that each hold a shard."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from verl_cases import case, discoverable, reference, runs

FOLDER = discoverable()
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

import empg  # noqa: E402
from empg.integrations.verl import modulate_batch, step_table  # noqa: E402

ON = "+algorithm.empg.enable=True"


@pytest.fixture(scope="module")
def cluster():
    here = os.path.dirname(__file__)
    path = [here, FOLDER or "", *filter(None, sys.path)]
    # Ray gives way to everything else on the machine unless told otherwise.
    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(
        num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False,
        object_store_memory=100 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, path))}},
    )  # fmt: skip
    tq.init(settings("transfer_queue.backend.SimpleStorage.num_data_storage_units=1").transfer_queue)
    yield
    tq.close()
    ray.shutdown()


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
        keys=list(c.keys), partition_id=partition, fields=list_of_dict_to_tensordict(rows), tags=tags
    )


class Actors:
    """Answers the pass over old log-probabilities as the workers do: whole sequences, jagged."""

    def __init__(self, c):
        self.c = c
        self.requests = []

    def compute_log_prob(self, batch):
        self.requests.append(dict(batch.extra_info))
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["input_ids", "responses"])
        fields = {"log_probs": [], "entropy": []}
        for key, ids, response in zip(batch.keys, data["input_ids"].unbind(), data["responses"].unbind()):
            length = len(response)
            for name, values in (("log_probs", self.c.old_log_probs), ("entropy", self.c.entropy)):
                # A value belongs to the next token: the response's are one place to the left.
                whole = torch.full((len(ids),), 5.0)
                own = values[self.c.keys.index(key), :length] if key in self.c.keys else np.full(length, 3.0)
                whole[len(ids) - length - 1 : -1] = torch.from_numpy(np.asarray(own, dtype=np.float32))
                fields[name].append(whole)
        out = {name: torch.nested.as_nested_tensor(rows, layout=torch.jagged) for name, rows in fields.items()}
        return tq.kv_batch_put(
            keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(out, batch_size=len(batch))
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
    data = tq.kv_batch_get(keys=batch.keys, partition_id=partition, select_fields=["advantages", "returns", "response_mask"])
    tags = batch.tags
    tq.kv_clear(keys=batch.keys, partition_id=partition)
    assert [tag["seq_len"] for tag in tags][: len(c.lengths)] == [4 + length for length in c.lengths]
    return data.to_padded_tensor(), metrics, made


def grpo(c):
    """A_i of every row by verl's own function."""
    advantages, _ = core_algos.compute_grpo_outcome_advantage(
        torch.from_numpy(c.rewards)[:, None], torch.ones(len(c.rewards), 1), c.uid
    )
    return advantages[:, 0].numpy()


def close(got, wanted):
    wanted = np.asarray(wanted)
    np.testing.assert_array_less(np.abs(np.asarray(got) - wanted), 2e-5 * np.maximum(1.0, np.abs(wanted)))


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
    scores = np.where(kept.any(axis=1), grpo(c), 0.0)
    close(data["advantages"], reference(scores, c.entropy, c.mask) * kept)
    assert metrics["empg/steps"] == sum(len(runs(row)) for row in c.mask)
    assert metrics["empg/rejected_tokens"] == pytest.approx(1.0 - kept.sum() / c.mask.sum())
    assert any(name.startswith("rollout_corr/") for name in metrics)


def test_sessions_of_several_outputs_and_verls_padding_rows(cluster):
    c = case(seed=25, outputs=(1, 3, 2))
    multiple = len(c.keys) + 3
    data, metrics, _ = train_on(settings(ON), c, "sessions", multiple=multiple)
    assert len(data["advantages"]) == multiple
    # verl scores a session by its last output and gives the score to all of them.
    sessions = [key.rsplit("_", 1)[0] for key in c.keys]
    first = [sessions.index(name) for name in dict.fromkeys(sessions)]
    uid, rewards = c.uid[first], torch.from_numpy(c.rewards[first])
    scores, _ = core_algos.compute_grpo_outcome_advantage(rewards[:, None], torch.ones(len(first), 1), uid)
    score = dict(zip(dict.fromkeys(sessions), scores[:, 0].tolist()))
    base = np.array([score[name] for name in sessions])
    rows = data["advantages"][: len(c.keys)].numpy()
    close(rows, reference(base, c.entropy, c.mask, c.keys))
    assert torch.count_nonzero(data["advantages"][len(c.keys) :]) == 0
    assert metrics["empg/steps"] == sum(len(runs(row)) for row in c.mask)


def test_a_batch_without_entropies_is_refused(cluster):
    c = case(seed=26)
    config = settings(ON, "algorithm.rollout_correction.bypass_mode=True")
    with pytest.raises(ValueError, match="the batch has no entropy.*bypass_mode"):
        train_on(config, c, "bypass")


@ray.remote
class Worker:
    """One rank: verl is imported anew here, and its plugins with it."""

    def trainer_name(self):
        from verl.trainer.ppo.v1 import get_trainer_cls

        return get_trainer_cls("sync").__name__

    def hold(self, data, keys):
        self.data, self.keys = data, keys
        return step_table(data, keys=keys)

    def modulate(self, tables, options):
        metrics = modulate_batch(self.data, options, keys=self.keys, table=empg.StepTable.gather(tables))
        return self.data, metrics


def test_two_ray_workers_give_the_bits_of_one_process(cluster):
    c = case(seed=27, prompts=6, sessions=4, outputs=(1, 2))
    options = {"zeta": 0.3, "normalize": "quantile"}
    data = DataProto.from_dict(
        tensors={
            "entropy": torch.from_numpy(c.entropy),
            "response_mask": torch.from_numpy(c.mask),
            "advantages": torch.from_numpy(c.rewards - c.rewards.mean())[:, None] * torch.from_numpy(c.mask),
        },
        non_tensors={"uid": c.uid},
    )
    workers = [Worker.remote() for _ in range(2)]
    # Sessions are torn apart: even rows to the one, odd rows to the other.
    rows = [np.arange(rank, len(c.keys), 2) for rank in range(2)]
    held = [worker.hold.remote(data.select_idxs(own), [c.keys[row] for row in own]) for worker, own in zip(workers, rows)]
    tables = ray.get(held)
    results = ray.get([worker.modulate.remote(tables, options) for worker in workers])
    whole_metrics = modulate_batch(data, options, keys=c.keys)
    for own, (part, metrics) in zip(rows, results):
        assert torch.equal(part.batch["advantages"], data.batch["advantages"][torch.from_numpy(own)])
        whole = {name: value for name, value in whole_metrics.items() if name != "empg/rejected_tokens"}
        assert {name: metrics[name] for name in whole} == whole
    assert ray.get([worker.trainer_name.remote() for worker in workers]) == ["EmpgPPOTrainerSync"] * 2
