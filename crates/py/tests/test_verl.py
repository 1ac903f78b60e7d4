"""EMPG over verl's own batches and advantage functions, in one process."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from verl_cases import case, discoverable, reference, runs, token_rewards

discoverable()
torch = pytest.importorskip("torch")
pytest.importorskip("verl")
from tensordict import TensorDict  # noqa: E402
from verl.protocol import DataProto  # noqa: E402
from verl.trainer.ppo import core_algos  # noqa: E402
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_add_to_batch  # noqa: E402

import empg  # noqa: E402
from empg.integrations.verl import EmpgConfig, modulate_batch, session_rows, step_table  # noqa: E402

SOME = {"k": 1.3, "k_f": 0.7, "zeta": 0.2}


def proto(c, with_advantages=None):
    tensors = {
        "response_mask": torch.from_numpy(c.mask.copy()),
        "entropy": torch.from_numpy(c.entropy.copy()),
        "old_log_probs": torch.from_numpy(c.old_log_probs.copy()),
        "rollout_log_probs": torch.from_numpy(c.rollout_log_probs.copy()),
        "token_level_rewards": torch.from_numpy(token_rewards(c)),
    }
    if with_advantages is not None:
        tensors["advantages"] = with_advantages
    return DataProto.from_dict(tensors=tensors, non_tensors={"uid": c.uid})


def estimate(name, data):
    """A base advantage by verl's own function of that name."""
    arguments = {
        "token_level_rewards": data.batch["token_level_rewards"],
        "response_mask": data.batch["response_mask"],
    }
    if name == "gae":
        values = torch.linspace(-1.0, 1.0, data.batch["response_mask"].numel())
        arguments["values"] = values.reshape(data.batch["response_mask"].shape)
        return core_algos.compute_gae_advantage_return(**arguments, gamma=0.99, lam=0.95)[0]
    from omegaconf import OmegaConf

    function = core_algos.get_adv_estimator_fn(name)
    config = OmegaConf.create({"gamma": 1.0, "norm_adv_by_std_in_grpo": True})
    return function(**arguments, index=data.non_tensor_batch["uid"], config=config)[0]


def jagged(padded, lengths):
    return torch.nested.as_nested_tensor(
        [padded[row, :length].clone() for row, length in enumerate(lengths)], layout=torch.jagged
    )


def close(got, wanted):
    wanted = np.asarray(wanted)
    np.testing.assert_array_less(
        np.abs(np.asarray(got) - wanted), 2e-5 * np.maximum(1.0, np.abs(wanted))
    )


@pytest.mark.parametrize("name", ["grpo", "rloo", "grpo_passk", "reinforce_plus_plus", "gae"])
@pytest.mark.parametrize("options", [{}, SOME], ids=["paper", "other"])
def test_any_estimator_of_verl_is_modulated_as_the_equations_say(name, options):
    c = case(seed=1)
    data = proto(c)
    base = estimate(name, data)
    before = base.clone()
    data.batch["advantages"] = base
    metrics = modulate_batch(data, options)
    got = data.batch["advantages"]
    close(got, reference(base.numpy(), c.entropy, c.mask, **options))
    core = empg.modulate(base, data.batch["entropy"], mask=data.batch["response_mask"], **options)
    assert torch.equal(got, core)
    assert torch.equal(base, before), "the base's own tensor stays"
    assert torch.count_nonzero(got[data.batch["response_mask"] == 0]) == 0
    assert metrics["empg/steps"] == sum(len(runs(row)) for row in c.mask)


def test_metrics_are_the_credit_of_the_batch():
    c = case(seed=2)
    data = proto(c)
    data.batch["advantages"] = estimate("grpo", data)
    credit = empg.explain(
        data.batch["advantages"], data.batch["entropy"], mask=data.batch["response_mask"]
    )
    metrics = modulate_batch(data)
    for name, value in credit.summary.items():
        assert metrics[f"empg/{name}"] == value
    assert all(isinstance(value, float) for value in metrics.values())
    assert metrics["empg/rejected_tokens"] == 0.0
    assert metrics["empg/zero_base"] == np.mean(np.asarray(credit.base) == 0.0)


def test_a_jagged_tensordict_gives_the_bits_of_the_padded_dataproto():
    c = case(seed=3)
    data = proto(c)
    base = estimate("grpo", data)
    data.batch["advantages"] = base
    modulate_batch(data, SOME)
    ragged = TensorDict(
        {
            "advantages": jagged(base, c.lengths),
            "entropy": jagged(torch.from_numpy(c.entropy), c.lengths),
            "response_mask": jagged(torch.from_numpy(c.mask), c.lengths),
        },
        batch_size=len(c.lengths),
    )
    modulate_batch(ragged, SOME)
    got = ragged["advantages"]
    assert got.is_nested and got.offsets().diff().tolist() == c.lengths
    for row, values in enumerate(got.unbind()):
        assert torch.equal(values, data.batch["advantages"][row, : c.lengths[row]])


def test_padding_rows_get_nothing_and_change_nothing():
    c = case(seed=4)
    data = proto(c)
    base = estimate("grpo", data)
    data.batch["advantages"] = base
    modulate_batch(data)
    padded = TensorDict(
        {
            "advantages": torch.cat([base, torch.full((2, base.shape[1]), 7.0)]),
            "entropy": torch.cat(
                [torch.from_numpy(c.entropy), torch.full((2, base.shape[1]), 9.0)]
            ),
            "response_mask": torch.cat(
                [torch.from_numpy(c.mask), torch.zeros(2, base.shape[1], dtype=torch.int64)]
            ),
        },
        batch_size=len(base) + 2,
    )
    modulate_batch(padded)
    assert torch.equal(padded["advantages"][:-2], data.batch["advantages"])
    assert torch.count_nonzero(padded["advantages"][-2:]) == 0


@pytest.mark.parametrize(
    ("kind", "threshold"),
    [
        ("token_k1", "0.4_2.5"),
        ("token_k1", "0.9_1.1"),
        ("seq_mean_k1", "0.85_1.2"),
        ("seq_max_k3", "0.5"),
    ],
)
def test_steps_are_those_before_rejection_sampling(kind, threshold):
    c = case(seed=5, prompts=4)
    data = proto(c)
    copy = data.batch["response_mask"].clone()
    data, _ = compute_rollout_correction_and_add_to_batch(
        data, {"rollout_rs": kind, "rollout_rs_threshold": threshold}
    )
    kept = data.batch["response_mask"].bool()
    assert 0 < (copy.bool() & ~kept).sum() < copy.sum(), (
        "the case must reject some tokens and keep some"
    )
    data.batch["advantages"] = estimate("grpo", data)
    metrics = modulate_batch(data, SOME, mask=copy)

    scores = np.array(
        [row[row != 0].tolist()[:1] or [0.0] for row in estimate("grpo", data).numpy()]
    )[:, 0]
    # Rows of which no token is left are no part of the batch.
    left = c.mask * kept.numpy().any(axis=1, keepdims=True)
    assert kind.startswith("token") or (left != c.mask).any()
    wanted = reference(scores, c.entropy, left, **SOME) * kept.numpy()
    close(data.batch["advantages"], wanted)
    assert torch.count_nonzero(data.batch["advantages"][~kept]) == 0
    assert metrics["empg/steps"] == sum(len(runs(row)) for row in left)
    share = float((copy.bool() & ~kept).sum() / copy.sum())
    assert metrics["empg/rejected_tokens"] == pytest.approx(share, abs=1e-7)


def test_without_the_copy_rejection_would_cut_steps():
    c = case(seed=5, prompts=4)
    data = proto(c)
    data, _ = compute_rollout_correction_and_add_to_batch(
        data, {"rollout_rs": "token_k1", "rollout_rs_threshold": "0.9_1.1"}
    )
    data.batch["advantages"] = estimate("grpo", data)
    cut = modulate_batch(data)["empg/steps"]
    assert cut != sum(len(runs(row)) for row in c.mask)


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_rejection_means_the_same_in_jagged_batches(share):
    c = case(seed=12, prompts=5)
    rng = np.random.default_rng(3)
    kept = torch.from_numpy(c.mask * (rng.random(c.mask.shape) > share))
    kept[4] = 0
    base = torch.from_numpy(rng.normal(size=c.mask.shape).astype(np.float32)) * kept
    padded = TensorDict(
        {"advantages": base, "entropy": torch.from_numpy(c.entropy), "response_mask": kept},
        batch_size=len(base),
    )
    ragged = TensorDict(
        {name: jagged(padded[name], c.lengths) for name in padded.keys()}, batch_size=len(base)
    )
    mask = torch.from_numpy(c.mask)
    assert modulate_batch(padded, mask=mask) == modulate_batch(ragged, mask=jagged(mask, c.lengths))
    for row, values in enumerate(ragged["advantages"].unbind()):
        assert torch.equal(values, padded["advantages"][row, : c.lengths[row]])
    # What the statistics see of a rejected token: the first survivor of its step, or of its row. Rows
    # without one they do not see.
    filled = base.numpy().copy()
    alive = kept.numpy() != 0
    for row in range(len(filled)):
        of_row = filled[row][alive[row]][:1]
        for a, b in runs(c.mask[row]):
            own = filled[row, a:b][alive[row, a:b]][:1]
            if len(of_row):
                filled[row, a:b][~alive[row, a:b]] = own if len(own) else of_row
    left = c.mask * alive.any(axis=1, keepdims=True)
    close(padded["advantages"], reference(filled, c.entropy, left) * alive)


def test_rows_that_are_rejected_whole_move_no_statistic():
    c = case(seed=14)
    kept = torch.from_numpy(c.mask).clone()
    kept[3] = 0
    entropy = torch.from_numpy(c.entropy).clone()
    # An outlier, which would flatten the scaling of all others.
    entropy[3] = 50.0
    base = torch.from_numpy(np.where(c.rewards > 0.3, 1.0, -1.0).astype(np.float32))[:, None]
    rows = torch.tensor([row for row in range(len(kept)) if row != 3])
    whole = TensorDict(
        {"advantages": base * kept, "entropy": entropy, "response_mask": kept}, batch_size=len(kept)
    )
    without = whole[rows].clone()
    # Empty rows before: there are more rows than tokens then.
    ragged = TensorDict(
        {
            name: jagged(torch.cat([torch.zeros_like(whole[name])] * 40 + [whole[name]]),
                         [0] * 40 * len(kept) + c.lengths)
            for name in whole.keys()
        },
        batch_size=41 * len(kept),
    )  # fmt: skip
    mask = torch.from_numpy(c.mask)
    copy = jagged(torch.cat([torch.zeros_like(mask)] * 40 + [mask]), [0] * 40 * len(mask) + c.lengths)
    metrics, alone = modulate_batch(whole, mask=mask), modulate_batch(without)
    assert metrics.pop("empg/rejected_tokens") == pytest.approx(c.mask[3].sum() / c.mask.sum())
    alone.pop("empg/rejected_tokens")
    assert metrics == alone
    assert torch.equal(whole["advantages"][rows], without["advantages"])
    assert torch.count_nonzero(whole["advantages"][3]) == 0
    modulate_batch(ragged, mask=copy)
    for row, values in enumerate(ragged["advantages"].unbind()[40 * len(kept) :]):
        assert torch.equal(values, whole["advantages"][row, : c.lengths[row]])


def test_a_batch_of_which_nothing_is_left_gets_zeros():
    c = case(seed=15)
    none = torch.zeros(c.mask.shape, dtype=torch.int64)
    batch = TensorDict(
        {
            "advantages": torch.ones(c.mask.shape),
            "entropy": torch.from_numpy(c.entropy),
            "response_mask": none,
        },
        batch_size=len(none),
    )
    mask, shard = torch.from_numpy(c.mask), batch[:4].clone()
    metrics = modulate_batch(batch, mask=mask)
    assert metrics == {"empg/steps": 0.0, "empg/rejected_tokens": 1.0}
    assert torch.count_nonzero(batch["advantages"]) == 0
    keys = c.keys[:4]
    table = step_table(shard, keys=keys, mask=mask[:4])
    assert modulate_batch(shard, keys=keys, mask=mask[:4], table=table) == metrics
    assert torch.count_nonzero(shard["advantages"]) == 0
    # Padding rows beside it.
    metrics = modulate_batch(shard, keys=keys, table=table)
    assert metrics == {"empg/steps": 0.0, "empg/rejected_tokens": 0.0}


def test_rejected_first_tokens_do_not_hide_a_steps_base():
    mask = torch.tensor([[1, 1, 0, 1, 1], [1, 1, 1, 0, 0]])
    kept = torch.tensor([[0, 1, 0, 0, 0], [1, 1, 1, 0, 0]])
    entropy = torch.tensor([[0.1, 0.2, 0.0, 0.9, 0.8], [0.5, 0.4, 0.3, 0.0, 0.0]])
    base = torch.tensor([[0.0, 2.0, 0.0, 0.0, 0.0], [-1.0, -1.0, -1.0, 0.0, 0.0]])
    batch = TensorDict(
        {"advantages": base, "entropy": entropy, "response_mask": kept}, batch_size=2
    )
    modulate_batch(batch, mask=mask)
    whole = reference(np.array([2.0, -1.0]), entropy.numpy(), mask.numpy())
    close(batch["advantages"], whole * kept.numpy())


def test_outputs_of_a_session_are_one_trajectory():
    c = case(seed=6, outputs=(1, 3, 2))
    data = proto(c)
    # One session's outputs share its outcome, as verl's own trainer shares it.
    base = torch.from_numpy(c.rewards - c.rewards.mean())[:, None] * data.batch["response_mask"]
    data.batch["advantages"] = base
    modulate_batch(data, SOME, keys=c.keys)
    close(data.batch["advantages"], reference(base.numpy(), c.entropy, c.mask, c.keys, **SOME))

    alone = proto(c, base)
    modulate_batch(alone, SOME)
    assert not torch.equal(alone.batch["advantages"], data.batch["advantages"])

    # The same sessions with their outputs laid into one row each, in any order of rows.
    sessions = {}
    for row, key in enumerate(c.keys):
        sessions.setdefault(key.rsplit("_", 1)[0], []).append(row)
    gap = np.zeros(1, dtype=np.int64)

    def joined(array, rows, fill):
        return np.concatenate([np.concatenate((array[row], fill)) for row in rows])

    width = max(map(len, sessions.values())) * (c.mask.shape[1] + 1)
    laid = {name: np.zeros((len(sessions), width), dtype=array.dtype) for name, array in
            (("advantages", base.numpy()), ("entropy", c.entropy), ("response_mask", c.mask))}  # fmt: skip
    for index, rows in enumerate(sessions.values()):
        for name, array in (
            ("advantages", base.numpy()),
            ("entropy", c.entropy),
            ("response_mask", c.mask),
        ):
            values = joined(array, rows, gap.astype(array.dtype))
            laid[name][index, : len(values)] = values
    long = TensorDict(
        {name: torch.from_numpy(array) for name, array in laid.items()}, batch_size=len(sessions)
    )
    modulate_batch(long, SOME, keys=[f"{session}_0" for session in sessions])
    for index, rows in enumerate(sessions.values()):
        for place, row in enumerate(rows):
            start = place * (c.mask.shape[1] + 1)
            part = long["advantages"][index, start : start + c.mask.shape[1]]
            assert torch.equal(part, data.batch["advantages"][row])


def test_the_order_of_rows_does_not_change_a_bit():
    c = case(seed=7, outputs=(2, 1))
    data = proto(c)
    data.batch["advantages"] = estimate("grpo", data)
    order = np.random.default_rng(0).permutation(len(c.keys))
    shuffled = data.select_idxs(order)
    modulate_batch(data, keys=c.keys)
    modulate_batch(shuffled, keys=[c.keys[row] for row in order])
    assert torch.equal(
        shuffled.batch["advantages"], data.batch["advantages"][torch.from_numpy(order)]
    )


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_shards_with_a_gathered_table_give_the_bits_of_the_whole(ranks):
    c = case(seed=8, outputs=(1, 2))
    data = proto(c)
    data.batch["advantages"] = estimate("grpo", data)
    # Outputs of one session land on different ranks.
    shards = [np.arange(rank, len(c.keys), ranks) for rank in range(ranks)]
    parts = [data.select_idxs(rows) for rows in shards]
    keys = [[c.keys[row] for row in rows] for rows in shards]
    tables = [step_table(part, keys=names) for part, names in zip(parts, keys)]
    whole_metrics = modulate_batch(data, SOME, keys=c.keys)
    table = empg.StepTable.gather(tables[::-1])
    for rows, part, names in zip(shards, parts, keys):
        metrics = modulate_batch(part, SOME, keys=names, table=table)
        assert torch.equal(
            part.batch["advantages"], data.batch["advantages"][torch.from_numpy(rows)]
        )
        assert metrics["empg/g_std"] == whole_metrics["empg/g_std"]


def test_a_shard_of_padding_rows_alone_is_legal():
    c = case(seed=13)
    data = proto(c)
    data.batch["advantages"] = estimate("grpo", data)
    width = c.mask.shape[1]
    names = ("advantages", "entropy", "response_mask")
    padding = TensorDict(
        {name: torch.zeros(2, width, dtype=data.batch[name].dtype) for name in names}, batch_size=2
    )
    keys = ["pad_0_0", "pad_1_0"]
    table = empg.StepTable.gather([step_table(padding, keys=keys), step_table(data, keys=c.keys)])
    metrics = modulate_batch(padding, keys=keys, table=table)
    assert torch.count_nonzero(padding["advantages"]) == 0
    assert modulate_batch(data, keys=c.keys, table=table) == metrics
    alone = proto(c, estimate("grpo", proto(c)))
    modulate_batch(alone, keys=c.keys)
    assert torch.equal(alone.batch["advantages"], data.batch["advantages"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_advantages_keep_their_dtype(dtype):
    c = case(seed=9)
    data = proto(c)
    data.batch["advantages"] = estimate("grpo", data).to(dtype)
    modulate_batch(data)
    assert data.batch["advantages"].dtype == dtype
    bound = {torch.float64: 2e-7, torch.float32: 2e-5, torch.bfloat16: 2e-2}[dtype]
    base = estimate("grpo", proto(c)).to(dtype).double().numpy()
    wanted = reference(base, c.entropy, c.mask)
    assert np.abs(data.batch["advantages"].double().numpy() - wanted).max() < bound * max(
        1.0, np.abs(wanted).max()
    )


def test_the_legacy_trainers_name_of_entropies_is_known():
    c = case(seed=10)
    data = proto(c)
    data.batch["advantages"] = estimate("grpo", data)
    other = DataProto(batch=data.batch.clone(), non_tensor_batch=data.non_tensor_batch)
    other.batch["entropys"] = other.batch.pop("entropy")
    modulate_batch(data)
    modulate_batch(other)
    assert torch.equal(data.batch["advantages"], other.batch["advantages"])


def broken(**changes):
    c = case(seed=11)
    data = proto(c)
    data.batch["advantages"] = estimate("grpo", data)
    for name, value in changes.items():
        if value is None:
            data.batch.pop(name)
        else:
            data.batch[name] = value(data.batch[name])
    return c, data


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entropy": None}, "has no entropy"),
        ({"advantages": None}, "has no advantages"),
        ({"response_mask": None}, "has no response_mask"),
        ({"entropy": lambda x: x[:, :-1]}, "entropy: shape"),
        ({"response_mask": lambda x: x * 2}, r"response_mask of shape \(12, 27\): row 0 token 0 is 2, but must"),
        ({"response_mask": lambda x: torch.where(x == 1, float("nan"), 0.0)}, "row 0 token 0 is nan, but must"),
        ({"response_mask": lambda x: x * 0}, "no row has a step"),
        ({"entropy": lambda x: x * float("nan")}, "(?i)entropy.*(nan|finite)"),
        ({"entropy": lambda x: torch.nested.as_nested_tensor(list(x), layout=torch.jagged)}, "entropy jagged"),
    ],
)  # fmt: skip
def test_batches_that_cannot_be_modulated_are_refused(changes, message):
    _, data = broken(**changes)
    before = data.batch["advantages"].clone() if "advantages" in data.batch else None
    with pytest.raises(ValueError, match=message):
        modulate_batch(data)
    if before is not None:
        assert torch.equal(data.batch["advantages"], before)


def test_a_mask_that_is_no_copy_is_refused():
    c, data = broken()
    mask = data.batch["response_mask"].clone()
    row, token = (int(i) for i in mask.nonzero()[3])
    mask[row, token] = 0
    with pytest.raises(ValueError, match=f"row {row} token {token} is 1, but mask is 0"):
        modulate_batch(data, mask=mask)


def test_what_is_no_batch_is_a_type_error():
    with pytest.raises(TypeError, match="DataProto or TensorDict, got int"):
        modulate_batch(3)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["a_0_0", "nokey"], "row 1: 'nokey' is not of the form"),
        (["a_0_x", "a_0_1"], "row 0: 'a_0_x'"),
        (["a_0_0", "a_0_70000"], "row 1: 'a_0_70000'"),
        (["a_0_0", "a_0_1", "a_0_0"], "row 2: 'a_0_0' is also the key of row 0"),
    ],
)
def test_keys_of_another_form_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        session_rows(keys)


def test_rows_must_be_named_once_and_all():
    c, data = broken()
    with pytest.raises(ValueError, match=f"keys: 2 of them for {len(c.keys)} rows"):
        modulate_batch(data, keys=["a_0_0", "a_1_0"])
    with pytest.raises(ValueError, match="either keys or trajectories"):
        modulate_batch(data, keys=c.keys, trajectories=np.arange(len(c.keys)))
    with pytest.raises(ValueError, match="keys or trajectories must name"):
        modulate_batch(data, table=step_table(data))


def test_sessions_are_numbered_by_their_keys_alone():
    trajectories, first = session_rows(["u_1_0", "u_1_2", "u_11_0", "v_1_0"])
    assert trajectories[0] == trajectories[1] and len(set(trajectories.tolist())) == 3
    assert first.tolist()[0] < first.tolist()[1]
    again, _ = session_rows(["v_1_0", "u_1_1"])
    assert again.tolist() == [trajectories[3], trajectories[0]]
    assert all(value >= 0 for value in itertools.chain(trajectories.tolist(), first.tolist()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"zetta": 0.1}, r"algorithm.empg.zetta: no such setting; did you mean zeta\?"),
        ({"k": -1.0}, r"algorithm.empg.k=-1.0"),
        ({"k_f": float("nan")}, r"algorithm.empg.k_f=nan"),
        ({"zeta": "much"}, r"algorithm.empg.zeta='much'"),
        ({"shape": "cubic"}, r"algorithm.empg.shape='cubic'.*exp, linear"),
        ({"normalize": "z"}, r"algorithm.empg.normalize='z'"),
        ({"quantile": (0.9, 0.1)}, r"algorithm.empg.quantile"),
        ({"quantile": 3}, r"algorithm.empg.quantile=3"),
        ({"center": 1}, r"algorithm.empg.center=1"),
        ({"threads": -1}, r"algorithm.empg.threads=-1"),
    ],
)
def test_settings_outside_their_domain_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        EmpgConfig.from_mapping(settings)
