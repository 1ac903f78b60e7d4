"""EMPGTrainer against TRL itself: a random model, a few steps, on the CPU."""

from __future__ import annotations

import copy
import inspect
import math
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("trl", reason="TRL is not installed")

import tiny_trl as tiny
import torch
import trl
from trl import GRPOConfig, GRPOTrainer

import empg
from empg.integrations.trl import EMPGConfig, EMPGMixin, EMPGOptions, EMPGTrainer

torch.set_num_threads(1)


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def same(left, right):
    return all(torch.equal(left[name], right[name]) for name in left)


def base_of(trainer, number=0):
    """The base advantages that TRL logged with the completions, in the order of rows."""
    rows = len(trainer.batches[number]["advantages"])
    logged = np.array(trainer._logs["advantages"])
    assert len(logged) == rows
    return logged


def test_two_lines_train_and_change_the_weights(tmp_path):
    before = tiny.model().state_dict()
    trainer = tiny.train(EMPGTrainer, tiny.arguments(GRPOConfig, tmp_path))
    assert trainer.state.global_step == 2
    assert not same(before, weights(trainer))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2 and all(map(math.isfinite, losses))


def test_the_loss_sees_what_the_core_computes_from_the_policys_entropies(tmp_path):
    policy = tiny.model()
    start = copy.deepcopy(policy)
    config = tiny.arguments(GRPOConfig, tmp_path, max_steps=1, temperature=0.7)
    trainer = tiny.train(
        tiny.watched(EMPGTrainer), config, model=policy, rollout_func=tiny.turns, empg={"k": 2.0, "zeta": 0.3}
    )
    batch, base = trainer.batches[0], base_of(trainer)
    mask = tiny.steps_of(batch)
    entropy = tiny.entropies(start, batch, temperature=0.7)
    seen = batch["advantages"].numpy()
    assert seen.shape == mask.shape and seen.dtype == np.float32
    assert mask.max(axis=1).all() and len({len(steps) for steps in empg.steps_from_mask(mask)}) > 1
    np.testing.assert_allclose(seen, tiny.paper(base, entropy, mask, k=2.0, zeta=0.3), atol=2e-5, rtol=2e-5)
    core = empg.modulate(base, entropy, mask=mask, k=2.0, zeta=0.3)
    np.testing.assert_allclose(seen, core, atol=2e-5, rtol=2e-5)
    assert (seen[mask == 0] == 0).all()
    # The buffers from which minibatches are taken hold these very values.
    buffered = torch.cat([part["advantages"] for part in trainer._buffered_inputs])
    assert sorted(map(tuple, buffered.tolist())) == sorted(map(tuple, batch["advantages"].tolist()))


def test_without_scaling_bonus_and_centring_it_is_grpo_to_the_bit(tmp_path):
    off = {"k": 0.0, "zeta": 0.0, "center": False}
    for changes in ({}, {"num_iterations": 2, "max_steps": 4}):
        config = tiny.arguments(GRPOConfig, tmp_path, **changes)
        plain = tiny.train(tiny.watched(GRPOTrainer), config, rollout_func=tiny.turns)
        neutral = tiny.train(tiny.watched(EMPGTrainer), config, rollout_func=tiny.turns, empg=off)
        modulated = tiny.train(tiny.watched(EMPGTrainer), config, rollout_func=tiny.turns)
        switched_off = tiny.train(tiny.watched(EMPGTrainer), config, rollout_func=tiny.turns, empg=False)
        assert plain.losses == neutral.losses == switched_off.losses
        assert same(weights(plain), weights(neutral)) and same(weights(plain), weights(switched_off))
        assert not same(weights(plain), weights(modulated))
        # What TRL logs with the completions stays the base.
        assert list(plain._logs["advantages"]) == list(neutral._logs["advantages"])


def test_one_completion_is_one_step_without_a_tool_mask(tmp_path):
    trainer = tiny.train(tiny.watched(EMPGTrainer), tiny.arguments(GRPOConfig, tmp_path, max_steps=1))
    batch = trainer.batches[0]
    assert "tool_mask" not in batch
    seen, mask = batch["advantages"], batch["completion_mask"]
    inside = [row[kept == 1].unique() for row, kept in zip(seen, mask, strict=True)]
    assert all(len(values) == 1 for values in inside)
    entries = [entry for entry in trainer.state.log_history if "empg/g_min" in entry]
    assert entries[0]["empg/steps_per_completion"] == 1.0 and entries[0]["empg/bonus_mean"] == 0.0


def test_metrics_are_those_of_the_core(tmp_path):
    trainer = tiny.train(
        tiny.watched(EMPGTrainer), tiny.arguments(GRPOConfig, tmp_path, max_steps=1), rollout_func=tiny.turns
    )
    batch = trainer.batches[0]
    logged = next(entry for entry in trainer.state.log_history if "empg/g_min" in entry)
    mask = tiny.steps_of(batch)
    credit = empg.explain(base_of(trainer), tiny.entropies(tiny.model(), batch), mask=mask)
    assert logged["empg/g_min"] == pytest.approx(credit.g.min(), rel=1e-5)
    assert logged["empg/g_max"] == pytest.approx(credit.g.max(), rel=1e-5)
    assert logged["empg/g_std"] == pytest.approx(credit.g.std(), rel=1e-3)
    assert logged["empg/step_entropy_mean"] == pytest.approx(credit.entropy.mean(), rel=1e-5)
    assert logged["empg/step_entropy_min"] < logged["empg/step_entropy_mean"] < logged["empg/step_entropy_max"]
    assert logged["empg/bonus_mean"] == pytest.approx(credit.bonus.mean(), rel=1e-5) and credit.bonus.mean() > 0
    assert logged["empg/centring"] == pytest.approx(credit.centring.mean(), rel=1e-4)
    assert logged["empg/steps_per_completion"] == pytest.approx(len(credit) / len(mask))


def test_the_old_policys_pass_is_used_where_trl_makes_one(tmp_path):
    def passes(kind, **changes):
        settings = {"max_steps": 2, "gradient_accumulation_steps": 1, "per_device_train_batch_size": 4, **changes}
        trainer = tiny.train(tiny.watched(kind), tiny.arguments(GRPOConfig, tmp_path, **settings))
        return trainer, trainer.passes

    # Two updates a generation: TRL scores the old policy itself, and EMPG adds no pass.
    shared, with_empg = passes(EMPGTrainer, num_iterations=2)
    assert "old_per_token_logps" in shared.batches[0]
    assert with_empg == passes(GRPOTrainer, num_iterations=2)[1]
    # One update a generation: TRL has no such pass, and each of the two generations costs one more.
    alone, with_empg = passes(EMPGTrainer)
    assert "old_per_token_logps" not in alone.batches[0]
    assert with_empg == passes(GRPOTrainer)[1]  # the watcher counts passes that TRL asks for
    assert len(alone.batches) == 2


def test_entropies_are_of_the_policy_that_sampled(tmp_path):
    """With several updates on one generation the credit is that of its first moment."""
    start = tiny.model()
    config = tiny.arguments(
        GRPOConfig, tmp_path, max_steps=3, num_iterations=3, gradient_accumulation_steps=2, learning_rate=5e-2
    )
    trainer = tiny.train(tiny.watched(EMPGTrainer), config, rollout_func=tiny.turns)
    assert len(trainer.batches) == 1
    batch = trainer.batches[0]
    mask = tiny.steps_of(batch)
    expected = tiny.paper(base_of(trainer), tiny.entropies(start, batch), mask)
    np.testing.assert_allclose(batch["advantages"].numpy(), expected, atol=2e-5)
    moved = tiny.paper(base_of(trainer), tiny.entropies(trainer.model, batch), mask)
    assert np.abs(moved - expected).max() > 1e-3


LOSSES = ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"]
if tuple(map(int, trl.__version__.split(".")[:2])) < (1, 10):
    LOSSES.remove("luspo")


@pytest.mark.parametrize("loss", LOSSES)
def test_every_token_of_every_loss_sees_its_own_advantage(tmp_path, loss):
    """The loss is Σ A·∂loss/∂A on policy, and the derivative is 0 exactly outside steps."""
    seen = []

    class Probe(tiny.watched(EMPGTrainer)):
        def _compute_loss(self, model, inputs):
            advantages = inputs["advantages"].clone().requires_grad_()
            value = super()._compute_loss(model, {**inputs, "advantages": advantages})
            (slope,) = torch.autograd.grad(value, advantages, retain_graph=True)
            mask = inputs["completion_mask"] * inputs["tool_mask"]
            assert slope.shape == mask.shape
            assert torch.equal(slope != 0, mask == 1)
            assert value.item() == pytest.approx((slope * advantages).sum().item(), rel=1e-4, abs=1e-6)
            seen.append(value.item())
            return value

    sequence = {"importance_sampling_level": "sequence"} if loss == "luspo" else {}
    config = tiny.arguments(GRPOConfig, tmp_path, max_steps=1, loss_type=loss, **sequence)
    trainer = tiny.train(Probe, config, rollout_func=tiny.turns)
    assert len(seen) == 2 and all(map(math.isfinite, seen))
    assert not same(tiny.model().state_dict(), weights(trainer))


def test_truncated_completions_enter_no_statistic(tmp_path):
    config = tiny.arguments(
        GRPOConfig, tmp_path, max_steps=1, mask_truncated_completions=True, max_completion_length=6
    )

    def rollout(prompts, trainer):
        out = tiny.turns(prompts, trainer)
        for row, ids in enumerate(out["completion_ids"]):
            ids[-1] = 2 if row % 2 else 30  # rows that do not end with the end token are truncated
        return out

    trainer = tiny.train(tiny.watched(EMPGTrainer), config, rollout_func=rollout)
    batch = trainer.batches[0]
    mask, seen = tiny.steps_of(batch), batch["advantages"].numpy()
    assert not mask[0::2].any() and not seen[0::2].any() and mask[1::2].any()
    kept = tiny.paper(base_of(trainer)[1::2], tiny.entropies(tiny.model(), batch)[1::2], mask[1::2])
    np.testing.assert_allclose(seen[1::2], kept, atol=2e-5)


@pytest.mark.parametrize("name", ["image_position_ids", "pixel_position_ids"])
def test_the_extra_pass_gets_what_trl_puts_into_batches(name):
    given = {}

    class Host:
        def _get_per_token_logps_and_entropies(self, model, ids, mask, width, **inputs):
            given.update(inputs)
            return None, torch.zeros(len(ids), width)

    class Mine(EMPGMixin, Host):
        pass

    trainer = Mine.__new__(Mine)
    trainer.model = SimpleNamespace(is_gradient_checkpointing=False)
    trainer.args = SimpleNamespace(gradient_checkpointing_kwargs=None, per_device_train_batch_size=2)
    ids = torch.ones(2, 3, dtype=torch.long)
    batch = {f"{part}_{kind}": ids for part in ("prompt", "completion") for kind in ("ids", "mask")}
    trainer._empg_entropy({**batch, name: ids, "num_images": [1, 1], "advantages": torch.zeros(2)})
    assert given[name] is ids and given["num_images"] == [1, 1] and "advantages" not in given


def test_every_input_of_trls_pass_is_known():
    from empg.integrations.trl.trainer import _FORWARD_INPUTS

    of_pass = inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters
    own = {"self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size"}
    own |= {"compute_entropy", "compute_aux_loss"}
    assert set(of_pass) - own <= set(_FORWARD_INPUTS)


def test_a_batch_without_any_step_is_no_failure(tmp_path):
    def rollout(prompts, trainer):
        out = tiny.turns(prompts, trainer)
        out["env_mask"] = [[0] * len(ids) for ids in out["completion_ids"]]
        return out

    config = tiny.arguments(GRPOConfig, tmp_path, max_steps=1)
    trainer = tiny.train(tiny.watched(EMPGTrainer), config, rollout_func=rollout)
    assert not trainer.batches[0]["advantages"].any()
    assert trainer.state.log_history[0]["empg/steps_per_completion"] == 0.0


@pytest.mark.parametrize("exact", [False, True])
def test_completions_that_no_reward_scores_do_not_move_the_policy(tmp_path, exact):
    def scored(completions, **_):
        return [None if row == 1 else float(row % 3) for row in range(len(completions))]

    trainer = tiny.train(
        tiny.watched(EMPGTrainer),
        tiny.arguments(GRPOConfig, tmp_path, max_steps=1),
        reward_funcs=scored,
        rollout_func=tiny.turns,
        empg={"paper_exact": exact},
    )
    batch = trainer.batches[0]
    mask, seen = tiny.steps_of(batch), batch["advantages"].numpy()
    assert mask[1].any() and not seen[1].any()
    others = mask.copy()
    others[1] = 0
    assert exact == bool(seen[others == 0].any())
    expected = tiny.paper(base_of(trainer), tiny.entropies(tiny.model(), batch), others)
    np.testing.assert_allclose(seen[others == 1], expected[others == 1], atol=2e-5)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_the_base_is_trls_for_every_scaling_of_rewards(tmp_path, scale):
    config = tiny.arguments(GRPOConfig, tmp_path, max_steps=1, scale_rewards=scale)
    plain = tiny.train(tiny.watched(GRPOTrainer), config, rollout_func=tiny.turns)
    trainer = tiny.train(tiny.watched(EMPGTrainer), config, rollout_func=tiny.turns)
    base = plain.batches[0]["advantages"].numpy()
    batch = trainer.batches[0]
    expected = tiny.paper(base, tiny.entropies(tiny.model(), batch), tiny.steps_of(batch))
    np.testing.assert_allclose(batch["advantages"].numpy(), expected, atol=2e-5)


def test_evaluation_keeps_the_base(tmp_path):
    config = tiny.arguments(GRPOConfig, tmp_path, max_steps=1, per_device_eval_batch_size=4)
    trainer = tiny.train(tiny.watched(EMPGTrainer), config, eval_dataset=tiny.prompts(2))
    made = len(trainer.batches)
    metrics = trainer.evaluate()
    assert math.isfinite(metrics["eval_loss"])
    assert len(trainer.batches) > made and trainer.batches[-1]["advantages"].dim() == 1
    assert not any("empg" in name for name in metrics)


@pytest.mark.parametrize("iterations", [1, 2])
def test_an_adapter_is_the_policy_and_its_base_the_reference(tmp_path, iterations):
    """TRL scores both with one model; the credit is of the adapter, whether TRL scores it or EMPG."""
    peft = pytest.importorskip("peft")
    config = tiny.arguments(GRPOConfig, tmp_path, beta=0.1, learning_rate=0.0, num_iterations=iterations)
    adapter = peft.LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    trainer = tiny.train(tiny.watched(EMPGTrainer), config, rollout_func=tiny.turns, peft_config=adapter)
    batch = trainer.batches[-1]
    assert "ref_per_token_logps" in batch and ("old_per_token_logps" in batch) == (iterations == 2)
    mask, base, seen = tiny.steps_of(batch), base_of(trainer, -1), batch["advantages"].numpy()
    np.testing.assert_allclose(seen, tiny.paper(base, tiny.entropies(trainer.model, batch), mask), atol=2e-5)
    with trainer.model.disable_adapter():
        reference = tiny.entropies(trainer.model, batch)
    assert np.abs(seen - tiny.paper(base, reference, mask)).max() > 1e-3


def test_an_adapter_trains_and_the_model_below_it_does_not(tmp_path):
    peft = pytest.importorskip("peft")
    adapter = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    config = tiny.arguments(GRPOConfig, tmp_path)
    trainer = tiny.train(EMPGTrainer, config, rollout_func=tiny.turns, peft_config=adapter)
    after = trainer.model.state_dict()
    assert any(value.any() for name, value in after.items() if "lora_B" in name)
    assert torch.equal(after["base_model.model.model.embed_tokens.weight"], tiny.model().model.embed_tokens.weight)


def test_configuration_fields_and_keyword_agree(tmp_path):
    config = tiny.arguments(
        EMPGConfig, tmp_path, max_steps=1, empg_k=0.5, empg_zeta=0.2, empg_normalize="quantile"
    )
    by_config = tiny.train(tiny.watched(EMPGTrainer), config, rollout_func=tiny.turns)
    by_keyword = tiny.train(
        tiny.watched(EMPGTrainer),
        tiny.arguments(GRPOConfig, tmp_path, max_steps=1),
        rollout_func=tiny.turns,
        empg=EMPGOptions(k=0.5, zeta=0.2, normalize="quantile"),
    )
    assert torch.equal(by_config.batches[0]["advantages"], by_keyword.batches[0]["advantages"])
    off = tiny.arguments(EMPGConfig, tmp_path, max_steps=1, empg=False)
    assert tiny.train(tiny.watched(EMPGTrainer), off).batches[0]["advantages"].dim() == 1


def test_the_mixin_serves_another_subclass(tmp_path):
    class Shaped(GRPOTrainer):
        def _calculate_rewards(self, *args, **kwargs):
            return 2 * super()._calculate_rewards(*args, **kwargs)

    class Mine(EMPGMixin, Shaped):
        pass

    config = tiny.arguments(GRPOConfig, tmp_path, max_steps=1, scale_rewards="none")
    doubled = tiny.train(tiny.watched(Mine), config, rollout_func=tiny.turns, empg={"zeta": 0.0})
    single = tiny.train(tiny.watched(EMPGTrainer), config, rollout_func=tiny.turns, empg={"zeta": 0.0})
    assert torch.equal(doubled.batches[0]["advantages"], 2 * single.batches[0]["advantages"])
