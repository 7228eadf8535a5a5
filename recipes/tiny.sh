# The tiny world: the whole loop on two CPU cores in minutes, with a true reward that is known.
# Machine: 2 cores, 8 GiB. Expected: see RESULTS.md. The results are the tiny world's, never a published model's.
OUT=runs/tiny
SEED=0

# Data and base model: made by the world's own scripts.
WORLD=recipes/tiny
WORLD_OPTIONS=
BASE_MODEL=$OUT/base
SFT_DATA=$OUT/world/instructions.jsonl
PREFERENCES=$OUT/world/preferences.jsonl
RATINGS=$OUT/world/ratings.jsonl
REWARD_BENCH=$OUT/world/bench.jsonl
PROMPTS=$OUT/world/prompts.jsonl
EVAL_PROMPTS=$OUT/world/evaluation.jsonl
EVAL_QUESTIONS=$OUT/world/benchmarks
DTYPE=float32
JUDGE_MODEL=true_reward
VERIFIER_METHOD=exact
VERIFIER_PATTERN='(?s:.*)\bis ([^.]*)'

# Supervised fine-tuning and reward models. A model of half a million weights wants larger steps than one of 8B.
SFT_LEARNING_RATE=1e-3
SFT_EPOCHS=2
SFT_BATCH_SIZE=4
RM_LEARNING_RATE=5e-4
RM_EPOCHS=2
RM_BATCH_SIZE=16
RM_OPTIONS="--train_sampling_strategy group_by_length --weight_decay 0" # half the time, and a better model
PM_START=${REWARD_MODEL:-$OUT/reward_model} # from the policy it does not find what is right in one epoch
PM_LEARNING_RATE=5e-4
PM_BATCH_SIZE=8
PM_OPTIONS="--packing False --max_length 256 --train_sampling_strategy group_by_length"
ARMORM_OPTIONS="--gate_size 64 --max_steps 500 --per_device_train_batch_size 256"
MEASURE="reward_model preference_model armorm llm_judge"
EVALS="alpaca_eval mt_bench arena_hard academic"
ACADEMIC_OPTIONS="--include_path $EVAL_QUESTIONS/lm_eval --tasks tiny_answers tiny_choices"

# The loop has the paper's shape: 3 rounds, n=8 at two temperatures, best against worst, reference pi_0, 2 epochs. Answers
# of 10 tokens want a larger beta than those of 300: with the paper's 0.1 the policy goes farther from pi_0 (RESULTS.md).
ITERATIONS=3
PROMPTS_PER_ITERATION=1300
MAX_NEW_TOKENS=128
SFT_MAX_LENGTH=256
RM_MAX_LENGTH=256
DPO_MAX_LENGTH=256
DPO_BETA=0.3
DPO_LEARNING_RATE=1e-4
DPO_BATCH_SIZE=32
PER_DEVICE_BATCH_SIZE=32
