# shellcheck shell=bash
# Every variable of run_loop.sh, a line each:
#
#   setting NAME DEFAULT [KIND]    # what it means (section of the paper)
#
# KIND: allowed values; `some` before values of which several may be given; `whole` (0, 1, 2, ...), `count` (1, 2, ...),
# `number` (not below 0), `real`, `numbers` (several). Defaults are the paper's where it gives one. Precedence: the environment,
# then the recipes, the first that sets a variable, then the optimiser's file, then the default.

SETTINGS=() # all names, in this order
declare -A default_of=() kind_of=()
setting() {
  SETTINGS+=("$1")
  default_of[$1]=$2
  kind_of[$1]="${*:3}"
}

# The run
setting RECIPE recipes/tiny.sh                # an experiment; of several files the first that sets a variable wins
setting SEED 0 whole                          # of every random choice
setting WORLD ""                              # directory of a synthetic world's scripts: data; base model, true reward and judge if it has its own
setting WORLD_OPTIONS ""                      # flags of its 1_data.py
setting BASE_MODEL_OPTIONS ""                 # flags of the training of its base model, by its 2_base_model.py or that of recipes/tiny
setting DTYPE bfloat16 bfloat16 float16 float32 # of generation and scoring; trainings are in float32 with float32, else in bfloat16 mixed precision
setting CHAT_TEMPLATE_KWARGS ""               # JSON, arguments of the policies' chat template, such as {"enable_thinking": false}

# Supervised fine-tuning (3.1)
setting BASE_MODEL ""                         # what it starts from
setting SFT_DATA ""                           # instruction data, one or several; paper: its nine sets
setting CLEAN ""                              # flags of data/1_clean.py, for instructions and prompts
setting SFT_MODEL ""                          # a finished initial policy, in place of training one
setting SFT_LEARNING_RATE 2e-5 number
setting SFT_EPOCHS 1 number
setting SFT_BATCH_SIZE 32 count               # global, as every batch size: the steps of accumulation follow
setting SFT_MAX_LENGTH 2048 count             # tokens of a packed row; paper: 8192
setting SFT_OPTIONS ""                        # more flags of sft/2_finetune.py, which win over the driver's; so do RM_, PM_ and DPO_OPTIONS

# Reward models (2.1)
setting PREFERENCES ""                        # preference data, one or several; mix1, mix2: the paper's
setting REWARD_MODEL ""                       # a finished Bradley-Terry model, in place of training one
setting RM_TRUST_REMOTE_CODE no yes no        # whether REWARD_MODEL may run code of its own
setting RM_REVISION ""                        # a commit of REWARD_MODEL on the hub
setting RM_START ""                           # what its training starts from; empty: the initial policy
setting RM_LEARNING_RATE 2e-6 number
setting RM_EPOCHS 1 number
setting RM_BATCH_SIZE 512 count
setting RM_MAX_LENGTH 2048 count              # longer pairs are dropped
setting RM_OPTIONS ""
setting PREFERENCE_MODEL ""                   # a finished pairwise model, in place of training one
setting PM_START ""                           # what its training starts from; empty: the initial policy
setting PM_LEARNING_RATE 5e-6 number
setting PM_EPOCHS 1 number
setting PM_BATCH_SIZE 128 count
setting PM_OPTIONS ""
setting PM_METHOD tournament tournament all_pairs # how it ranks the N responses
setting ARMORM ""                             # a finished ArmoRM, in place of training one on the reward model
setting ARMORM_TRUST_REMOTE_CODE no yes no    # whether ARMORM may run code of its own
setting ARMORM_REVISION ""                    # a commit of ARMORM on the hub
setting ARMORM_OPTIONS ""
setting RATINGS ""                            # rated responses, for ArmoRM
setting JUDGE_URL ""                          # OpenAI-compatible address; the tiny world serves its own judge
setting JUDGE_MODEL ""
setting JUDGE_METHOD rating rating tournament all_pairs
setting JUDGE_OPTIONS ""                      # flags of every script that asks the judge
setting VERIFIER_METHOD math math exact       # of rows without "verifier"
setting VERIFIER_PATTERN ""                   # regular expression whose group is the final answer, of such rows
setting VERIFIERS ""                          # verifiers of one's own, which rows may name: NAME=FILE.py, one or several
setting RUN_GENERATED_CODE no yes no          # whether the policies' programs may run, in a sandbox: by TOOL, by the verifier unit_tests

# The loop (3.2, 3.3)
setting PROMPTS ""                            # pool of all rounds; paper: its published set
setting PROMPTS_BY_ROUND ""                   # one set a round, in place of PROMPTS
setting EVAL_PROMPTS ""                       # rows with a split, validation or test; empty: a thousand of EVAL_POOL
setting EVAL_POOL ""                          # where they are drawn from; empty: PROMPTS
setting ITERATIONS 3 whole
setting PROMPTS_PER_ITERATION 20000 whole     # 0: all of a round's set
setting N 8 count                             # responses a prompt (Algorithm 2)
setting TEMPERATURES "1.0 0.7" numbers        # shared out over the N
setting MAX_NEW_TOKENS 2048 count
setting MAX_MODEL_LEN "" count                # tokens of prompt and response in generation; empty: what the longest prompt needs
setting TOOL none none python                 # python: programs in a response are run, and their output is its next turn (arXiv 2409.02392)
setting TOOL_OPTIONS ""                       # flags of generation with a tool, such as --tool_format native
setting MAX_TURNS 6 count                     # of the policy in a response with a tool (arXiv 2409.02392)
setting EVAL_MAX_TURNS 4 count                # the same in the answers to the evaluation prompts
setting ENHANCER none none initial previous mixture # who gives half of the N responses (3.2)
setting ANNOTATOR reward_model some reward_model preference_model armorm llm_judge verifier policy FILE.py
setting ANNOTATOR_WEIGHTS ""                  # one each, where ANNOTATOR names several
setting PESSIMISM 0 number                    # standard deviations, over several annotators, off their reward: a lower confidence bound (arXiv 2310.02743)
setting VALIDATION ""                         # who chooses the best policy; empty: the true reward of a synthetic world, the reward model, the first annotator
setting PAIRING best_worst best_worst best_random random_random right_wrong FILE.py
setting MIN_MARGIN 0 number                   # of a pair's rewards
setting LENGTH_PENALTY 0 real                 # off the reward, per character (eq. 9); paper: 0.001
setting OFFLINE_PAIRS ""                      # preference data to mix into every round; empty with OFFLINE_SIZE: PREFERENCES
setting OFFLINE_SIZE 0 whole                  # prompts of OFFLINE_PAIRS; 0: all
setting OPTIMISER dpo                         # how the policy learns: a file of driver/optimisers, or one's own FILE.sh; several may be named
setting DPO_LOSS sigmoid some sigmoid hinge ipo exo_pair nca_pair robust bco_pair sppo_hard aot aot_unpaired apo_zero apo_down discopop sft sigmoid_norm slic rpo
setting DPO_BETA 0.1 number
setting DPO_LEARNING_RATE 5e-7 number
setting DPO_LEARNING_RATES "" numbers         # one a round, in place of DPO_LEARNING_RATE
setting DPO_EPOCHS 2 number
setting DPO_BATCH_SIZE 128 count
setting DPO_MAX_LENGTH 2048 count             # tokens of prompt and response
setting DPO_OPTIONS ""                        # flags of the optimiser's training
setting MIXTURE_COEFFICIENT 0.5 number        # the reference's share of the geometric mixture, for OPTIMISER=ipo_md and nash_md (arXiv 2312.00886)
setting REFERENCE initial initial previous    # the policy that the KL term refers to (3.2)
setting START previous initial previous       # the policy that a round's training starts from (3.3)
setting HISTORY round round all               # pairs of this round, or of all so far
setting ACCEPTED 8 count                      # responses that rejection sampling keeps of the N, for OPTIMISER=rso (arXiv 2309.06657)
setting REJECTION_TEMPERATURE 0.5 number      # its beta, in units of the reward
setting HELPFULNESS ""                        # objectives of ArmoRM that stand for it, for OPTIMISER=dpa
setting VERBOSITY ""
setting DIRECTION_PROMPT ""                   # with {helpfulness} and {verbosity}; empty: the published one

# Measures and benchmarks (2.2, 4)
setting MEASURE none some none reward_model preference_model armorm llm_judge verifier FILE.py
setting REWARD_BENCH allenai/reward-bench     # the benchmark of MEASURE
setting EVAL_QUESTIONS ""                     # directory of other questions than the published, for EVALS
setting ALPACA_EVAL_OPTIONS ""
setting ACADEMIC_OPTIONS ""

# From here on: how a run is run. What comes out does not depend on it, and $OUT/settings does not keep it.
results_depend_on=${#SETTINGS[@]}
setting EVALS none some none alpaca_eval mt_bench arena_hard academic
setting OUT ""                                # directory of the run; empty: runs/ and the first recipe's name
setting GPUS "" whole                         # of a node; empty: those that are there
setting NODES "${SLURM_JOB_NUM_NODES:-1}" count # of a job of Slurm
setting DISTRIBUTED ddp ddp zero2 zero3 zero3_offload fsdp # of a training on several GPUs
setting TENSOR_PARALLEL 1 count               # GPUs that hold one model of vLLM's
setting PER_DEVICE_BATCH_SIZE 1 count         # rows that a GPU takes at once in training, at most
setting GPU_MEMORY "" number                  # GiB of a GPU that is not at hand, for the check
setting CHECK yes yes no                      # look at the hub, the disk and the GPUs before the first step
setting GRACE 60 whole                        # seconds that a training has to save its state when it is stopped
setting FROM ""                               # first step to run again: iter2/responses, or 22
setting TO ""                                 # last one
setting DRY_RUN no yes no steps               # yes: print every command and run none; steps: list the steps and their state

# {old name: new name}
declare -A renamed=(
  [LOSS]="DPO_LOSS, or OPTIMISER for kto, raft, dpa, rloo, xpo, selm and sppo" [BETA]=DPO_BETA [LEARNING_RATE]=DPO_LEARNING_RATE [LEARNING_RATES]=DPO_LEARNING_RATES
  [EPOCHS]=DPO_EPOCHS [BATCH_SIZE]=DPO_BATCH_SIZE [BENCH]=REWARD_BENCH [BENCHMARKS]=EVAL_QUESTIONS
  [MAX_LENGTH]="SFT_MAX_LENGTH, RM_MAX_LENGTH and DPO_MAX_LENGTH"
)
