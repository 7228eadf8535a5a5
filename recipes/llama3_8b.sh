# The paper's run from the base model (3.1 to 3.3, Tables 2 and 7): SFT, Bradley-Terry reward model, three rounds of
# iterative DPO. Machine: 8 GPUs of 80 GB. Not run here; about 12 hours by budget.py. Expected (Table 2): LC AlpacaEval
# 2 31.3, MT-Bench 8.46, Arena-Hard 29.1, by judges that have been withdrawn; for them set EVALS, JUDGE_URL and
# JUDGE_MODEL.
BASE_MODEL=meta-llama/Meta-Llama-3-8B
SFT_DATA=paper
SFT_MAX_LENGTH=8192 # 3.1: packed
SFT_OPTIONS="--chat_template_path meta-llama/Meta-Llama-3-8B-Instruct"
SFT_LEARNING_RATE=2e-5
SFT_EPOCHS=1
SFT_BATCH_SIZE=32
PREFERENCES=mix2 # 2.1, Table 5
RM_START=meta-llama/Meta-Llama-3-8B-Instruct
RM_MAX_LENGTH=4096
RM_LEARNING_RATE=2e-6
RM_BATCH_SIZE=512
PROMPTS=RLHFlow/prompt-collection-v0.1 # 3.3: six sets, 179K in all, of which a round draws 20K
CLEAN="--evaluation_files openai/gsm8k:main/test-00000-of-00001.parquet openai/openai_humaneval"
ITERATIONS=3
PROMPTS_PER_ITERATION=20000
N=8
TEMPERATURES="1.0 0.7"
DPO_BETA=0.1 # 3.3, with the three that follow
DPO_LEARNING_RATE=5e-7
DPO_EPOCHS=2
DPO_BATCH_SIZE=128
PER_DEVICE_BATCH_SIZE=2
DISTRIBUTED=zero3
MEASURE=reward_model
EVALS=academic
