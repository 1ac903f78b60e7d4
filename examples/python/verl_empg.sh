#!/usr/bin/env bash
# GRPO with EMPG in verl 0.9, on one node. What EMPG needs are two lines: the wheel, and one override.
#
#   pip install 'empg[verl]' 'verl[vllm]==0.9.1'        # 1: on every node
#   DATA=~/data/gsm8k MODEL=Qwen/Qwen2.5-1.5B-Instruct GPUS=8 bash verl_empg.sh
#
# Any of verl's own launch scripts takes the override alike; multi-turn agents are where EMPG has steps
# to tell apart (actor_rollout_ref.rollout.multi_turn.enable=True, or an agent loop of one's own).
set -euo pipefail
: "${DATA:?folder with train.parquet and test.parquet in the form of verl}"
: "${MODEL:?a Hugging Face model}"
GPUS=${GPUS:-8}

empg=(
    +algorithm.empg.enable=True                         # 2: that is all; the rest are the paper's defaults
    +algorithm.empg.k=1.0 +algorithm.empg.k_f=1.0 +algorithm.empg.zeta=0.1
)

python -m verl.trainer.main_ppo \
    algorithm.adv_estimator=grpo \
    algorithm.filter_groups.enable=True \
    data.train_files="$DATA/train.parquet" \
    data.val_files="$DATA/test.parquet" \
    data.train_batch_size=64 \
    data.max_prompt_length=1024 \
    data.max_response_length=4096 \
    actor_rollout_ref.model.path="$MODEL" \
    actor_rollout_ref.actor.optim.lr=1e-6 \
    actor_rollout_ref.actor.ppo_mini_batch_size=32 \
    actor_rollout_ref.actor.use_dynamic_bsz=True \
    actor_rollout_ref.actor.clip_ratio_low=0.2 \
    actor_rollout_ref.actor.clip_ratio_high=0.28 \
    actor_rollout_ref.rollout.name=vllm \
    actor_rollout_ref.rollout.n=8 \
    actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6 \
    actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True \
    trainer.n_gpus_per_node="$GPUS" \
    trainer.nnodes=1 \
    trainer.logger=console \
    trainer.total_training_steps=100 \
    "${empg[@]}" \
    "$@"
