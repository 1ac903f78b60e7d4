"""EMPG in slime, against its documented data structures (see slime_host.py)."""

import pickle
import sys

import numpy as np
import pytest

import empg
from paper_numpy import paper, runs

torch = pytest.importorskip("torch")

import slime_host  # noqa: E402
import torch.distributed as dist  # noqa: E402
import torch.multiprocessing as multiprocessing  # noqa: E402

from empg.integrations import slime  # noqa: E402


@pytest.fixture(autouse=True)
def no_traces():
    kept = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(kept):
        if name.split(".")[0] in ("megatron", "slime"):
            del sys.modules[name]


def rollout(seed=0, rollouts=6):
    """Samples of a rollout: multi-turn masks, some executions split into several samples."""
    rng = np.random.default_rng(seed)
    samples = []
    for execution in range(rollouts):
        reward = float(rng.normal())
        for _ in range(1 + execution % 3):
            turns = int(rng.integers(1, 5))
            mask = []
            for _ in range(turns):
                mask += [0] * int(rng.integers(0, 4)) + [1] * int(rng.integers(1, 7))
                mask += [0]
            samples.append(
                {
                    "rollout": 100 + execution,
                    "reward": reward,
                    "mask": mask,
                    "total": len(mask) + int(rng.integers(1, 9)),
                    "entropy": torch.tensor(rng.gamma(2.0, 0.4, len(mask)), dtype=torch.float32),
                }
            )
    return samples


def expected(samples, **options):
    return paper(
        [s["reward"] for s in samples],
        [s["entropy"].numpy() for s in samples],
        [s["mask"] for s in samples],
        trajectories=[s["rollout"] for s in samples],
        **options,
    )


def alone(samples, args=None, release=False):
    slime_host.install()
    data = slime_host.shard(samples, range(len(samples)), release=release)
    slime.advantages(args or slime_host.arguments(), data)
    return data


def test_a_rollout_gets_the_papers_advantages():
    samples = rollout()
    data = alone(samples)
    for got, want in zip(data["advantages"], expected(samples), strict=True):
        assert got.dtype == torch.float32
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    for base, sample in zip(data["returns"], samples, strict=True):
        assert torch.equal(base, torch.full((len(sample["mask"]),), sample["reward"]))
    steps = sum(len(runs(s["mask"])) for s in samples)
    assert data["empg/steps"].item() == steps
    assert data["empg/g_min"] < 1 < data["empg/g_max"]


def test_options_come_from_the_custom_config_file():
    samples = rollout(seed=1)
    args = slime_host.arguments(empg_k=2.0, empg_zeta=0.3, empg_center=False)
    want = expected(samples, k=2.0, zeta=0.3, center=False)
    for got, row in zip(alone(samples, args)["advantages"], want, strict=True):
        np.testing.assert_allclose(got, row, rtol=2e-5, atol=2e-5)


def test_options_are_those_of_modulate_as_a_settings_file_has_them():
    samples = rollout(seed=4)
    plain = alone(samples)["advantages"]
    # YAML knows lists only; threads change nothing, and outside steps slime's loss takes nothing.
    args = slime_host.arguments(
        empg_normalize="quantile", empg_quantile=[0.1, 0.9], empg_paper_exact=True, empg_threads=1
    )
    want = alone(samples, slime_host.arguments(empg_normalize="quantile", empg_quantile=(0.1, 0.9)))
    for got, row, sample in zip(alone(samples, args)["advantages"], want["advantages"], samples, strict=True):
        inside = torch.tensor(sample["mask"], dtype=torch.bool)
        assert torch.equal(got[inside], row[inside])
    assert not all(torch.equal(a, b) for a, b in zip(plain, want["advantages"], strict=True))
    for wrong in ({"empg_quantile": [0.1]}, {"empg_quantile": 0.9}, {"empg_k": -1.0}):
        with pytest.raises(ValueError, match="quantile|k"):
            slime.check(slime_host.arguments(**wrong))
    for wrong in ({"empg_kk": 1.0}, {"empg_threads": "many"}):
        with pytest.raises(TypeError):
            slime.check(slime_host.arguments(**wrong))


def test_samples_taken_out_of_the_loss_do_not_count():
    samples = rollout(seed=2)
    samples[1]["mask"] = [0] * len(samples[1]["mask"])
    data = alone(samples)
    assert (data["advantages"][1] == 0).all()
    for got, want in zip(data["advantages"], expected(samples), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    for sample in samples:
        sample["mask"] = [0] * len(sample["mask"])
    data = alone(samples)
    assert all(torch.equal(a, r) for a, r in zip(data["advantages"], data["returns"], strict=True))


# The release 0.3.1 says nothing of the samples' places.


def one_sample_each(samples):
    """The same samples, each from an execution of its own, with ids in another order."""
    return [{**s, "rollout": (7 * i) % len(samples)} for i, s in enumerate(samples)]


def test_without_places_samples_of_their_own_executions_get_the_same_bits():
    samples = one_sample_each(rollout(seed=5)[:11])
    assert len({s["rollout"] for s in samples}) == len(samples)
    data, later = (alone(samples, release=release) for release in (True, False))
    assert "partition" not in data
    for got, want in zip(data["advantages"], later["advantages"], strict=True):
        assert torch.equal(got, want)
    for got, want in zip(data["advantages"], expected(samples), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


def test_without_places_several_samples_of_an_execution_are_refused():
    with pytest.raises(ValueError, match=r"2 samples have the id 101.*slime later than 0\.3\.1"):
        alone(rollout(), release=True)


# Several ranks.


def run_rank(rank, world, context_size, folder, samples, places, poison, release):
    data_rank, context_rank = slime_host.start_rank(rank, world, f"{folder}/store", context_size)
    data = slime_host.shard(samples, places[data_rank], context_rank, context_size, release)
    if rank == poison:
        data["rewards"][0] = float("nan")
    try:
        slime.advantages(slime_host.arguments(), data)
        answer = {
            "advantages": [x.numpy() for x in data["advantages"]],
            "returns": [x.numpy() for x in data["returns"]],
            "steps": data["empg/steps"].item(),
        }
    except ValueError as error:
        answer = {"error": str(error)}
    with open(f"{folder}/{rank}.pickle", "wb") as file:
        pickle.dump((data_rank, context_rank, answer), file)
    # A process that ends with its group's threads alive may be aborted.
    dist.barrier()
    dist.destroy_process_group()


def ranks(tmp_path, world, samples, places, context_size=1, poison=None, release=False):
    arguments = (world, context_size, str(tmp_path), samples, places, poison, release)
    multiprocessing.spawn(run_rank, arguments, nprocs=world)
    return [pickle.loads((tmp_path / f"{rank}.pickle").read_bytes()) for rank in range(world)]


# Samples of one execution lie on both ranks, and not in order.
PLACES = [[0, 3, 4, 8, 11], [10, 1, 2, 9, 5, 7, 6]]


def test_two_ranks_equal_one_to_the_bit(tmp_path):
    samples = rollout(seed=3)
    assert sorted(PLACES[0] + PLACES[1]) == list(range(len(samples)))
    one = alone(samples)
    for data_rank, _, answer in ranks(tmp_path, 2, samples, PLACES):
        assert answer["steps"] == one["empg/steps"].item()
        for place, got in zip(PLACES[data_rank], answer["advantages"], strict=True):
            assert np.array_equal(got, one["advantages"][place].numpy())


def test_two_ranks_without_places_equal_one_to_the_bit(tmp_path):
    samples = one_sample_each(rollout(seed=3))
    one = alone(samples)
    for data_rank, _, answer in ranks(tmp_path, 2, samples, PLACES, release=True):
        for place, got in zip(PLACES[data_rank], answer["advantages"], strict=True):
            assert np.array_equal(got, one["advantages"][place].numpy())


def test_samples_of_an_execution_on_two_ranks_are_refused_without_places(tmp_path):
    samples = one_sample_each(rollout(seed=3))
    samples[3]["rollout"] = samples[1]["rollout"]
    for _, _, answer in ranks(tmp_path, 2, samples, PLACES, release=True):
        assert "2 samples have the id 7" in answer["error"]


def test_context_parallel_ranks_have_their_slices_of_the_same_bits(tmp_path):
    samples = rollout(seed=3)
    one = alone(samples)
    for data_rank, context_rank, answer in ranks(tmp_path, 4, samples, PLACES, context_size=2):
        for place, got in zip(PLACES[data_rank], answer["advantages"], strict=True):
            sample = samples[place]
            at = slime_host.owned(sample["total"], len(sample["mask"]), context_rank, 2)
            assert np.array_equal(got, one["advantages"][place].numpy()[at])


def test_bad_values_on_one_rank_are_an_error_on_all(tmp_path):
    for _, _, answer in ranks(tmp_path, 2, rollout(seed=3), PLACES, poison=1):
        assert "rank 1 of 2" in answer["error"]
        assert "advantage" in answer["error"]


# What is refused.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"advantage_estimator": "ppo"}, "--advantage-estimator ppo"),
        ({"advantage_estimator": "reinforce_plus_plus_baseline"}, "grpo, gspo, cispo"),
        ({"normalize_advantages": True}, "--normalize-advantages"),
        ({"use_rollout_entropy": False}, "--use-rollout-entropy"),
        ({"empg_k": -1.0}, "k"),
    ],
)
def test_arguments_that_cannot_work_are_refused_before_a_model_is_loaded(changes, message):
    args = slime_host.arguments(**changes)
    with pytest.raises(ValueError, match=message):
        slime.check(args)
    with pytest.raises(ValueError, match=message):
        alone(rollout(), args)
    slime.check(slime_host.arguments())


ONE_STEP = {"rollout_batch_size": 8, "n_samples_per_prompt": 4, "global_batch_size": 32}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_rollout_logprobs": True}, "--use-rollout-logprobs leaves out"),
        (ONE_STEP, "--global-batch-size 32 is the whole rollout"),
        # Samples that make no whole step are left out.
        ({**ONE_STEP, "global_batch_size": 17}, "--num-steps-per-rollout"),
        ({**ONE_STEP, "use_routing_replay": True, "use_rollout_routing_replay": True}, "whole rollout"),
    ],
)
def test_arguments_under_which_slime_makes_no_pass_are_refused_too(changes, message):
    with pytest.raises(ValueError, match=message):
        slime.check(slime_host.arguments(**changes))
    # A rollout may have other samples than the arguments say: what counts then are its entropies.
    alone(rollout(), slime_host.arguments(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"use_rollout_logprobs": True, "get_mismatch_metrics": True},
        {"global_batch_size": 16},
        {"global_batch_size": None},
        {"keep_old_actor": True},
        {"kl_coef": 0.01},
        {"use_opd": True},
        {"use_critic": True},
        {"advantage_estimator": "gspo"},
        {"loss_type": "custom_loss"},
        {"get_mismatch_metrics": True},
        {"use_routing_replay": True},
    ],
)
def test_arguments_under_which_slime_makes_its_pass_are_taken(changes):
    slime.check(slime_host.arguments(**{**ONE_STEP, **changes}))


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match="zetta"):
        slime.check(slime_host.arguments(empg_zetta=0.1))


def test_a_rollout_without_entropies_says_how_to_get_them():
    slime_host.install()
    samples = rollout()
    data = slime_host.shard(samples, range(len(samples)))
    del data["entropy"]
    with pytest.raises(ValueError, match="--num-steps-per-rollout"):
        slime.advantages(slime_host.arguments(), data)
    assert "advantages" not in data


def test_a_mask_of_another_length_is_named():
    slime_host.install()
    data = slime_host.shard(rollout(), range(12))
    data["loss_masks"][4] = data["loss_masks"][4][:-1]
    with pytest.raises(ValueError, match="sample 4"):
        slime.advantages(slime_host.arguments(), data)


def test_an_older_slime_is_named():
    slime_host.install()
    data = slime_host.shard(rollout(), range(12))
    del data["rollout_ids"]
    with pytest.raises(ValueError, match="rollout_ids"):
        slime.advantages(slime_host.arguments(), data)


@pytest.mark.parametrize("release", [False, True])
def test_through_slimes_own_advantage_function(release):
    """Where slime's source is importable: its own caller loads and calls the hook by its path."""
    slime_host.install()
    loss = pytest.importorskip(
        "slime.backends.megatron_utils.loss", reason="slime's source is not importable"
    )
    samples = one_sample_each(rollout(seed=4)) if release else rollout(seed=4)
    data = slime_host.shard(samples, range(len(samples)), release=release)
    del data["kl"]
    loss.compute_advantages_and_returns(slime_host.arguments(), data)
    for got, want in zip(data["advantages"], expected(samples), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
