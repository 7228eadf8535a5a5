#!/usr/bin/env bash
# Online iterative RLHF (arXiv 2405.07863): an initial policy and reward models, then ITERATIONS rounds of
# prompts -> responses -> rewards -> pairs -> DPO, an evaluation of every policy, benchmarks and a report.
#
#   bash run_loop.sh                                    the default recipe, recipes/tiny.sh
#   RECIPE=recipes/my.sh N=4 bash run_loop.sh           another recipe; a variable of the environment wins over it
#   OPTIMISER=kto bash run_loop.sh                      another optimiser: a file of driver/optimisers, or your own
#   FROM=iter2/responses TO=iter2/pairs bash run_loop.sh    only these steps, once more
#   DRY_RUN=1 bash run_loop.sh                          print every command, with what would be run and why
#
# Give the same command again to resume. driver/variables.sh lists the variables, driver/stages.sh and
# driver/evaluation.sh have the command of each stage, driver/steps.sh decides what is run, driver/engine.sh runs it.
set -euf -o pipefail # f: a * in a value stays a *
cd "$(dirname "$0")"
{ # read whole before it runs: an edit does not reach a run under way
source driver/steps.sh
source driver/variables.sh
source driver/settings.sh
source driver/checks.sh
source driver/start.sh
source driver/stages.sh
source driver/evaluation.sh
source driver/engine.sh
read_settings   # environment, recipe, the optimiser's file, defaults
check_variables # which do not go together
start_run

# The stages only list their steps, the command for each file. They read SFT_MODEL and its like, and t, dir, policy,
# previous, seen and training_data from here.
make_world
draw_evaluation_prompts
prepare_pool
fine_tune
train_reward_models
evaluate sft "$SFT_MODEL"
convert_offline_pairs

policy=$SFT_MODEL previous=$SFT_MODEL seen=("$EVAL_PROMPTS") training_data=()
for ((t = 1; t <= ITERATIONS; t++)); do
  dir=$OUT/iter$t
  [[ $HISTORY == all ]] || training_data=() # else the data of this round only
  start=$policy reference=$SFT_MODEL        # the paper's choices (3.3)
  [[ $START == previous ]] || start=$SFT_MODEL
  [[ $REFERENCE == initial ]] || reference=$policy

  draw_prompts "$dir/prompts.jsonl"                              # none of an earlier round
  sample_responses "$dir/prompts.jsonl" "$dir/responses.jsonl"   # N each, by the last policy
  annotate_responses "$dir/responses.jsonl" "$dir/rewards.jsonl" # by ANNOTATOR
  make_pairs "$dir/rewards.jsonl" "$dir/pairs.jsonl"             # best against worst; adds to training_data
  previous=$policy policy=$dir/policy
  optimise "$policy" "$start" "$reference" "${training_data[@]}" "${offline_pairs[@]}"
  evaluate "iter$t" "$policy"
done

measure_annotators
run_benchmarks sft "$SFT_MODEL"
for ((t = 1; t <= ITERATIONS; t++)); do run_benchmarks "iter$t" "$OUT/iter$t/policy"; done
validate
report
run_steps # of those listed, the missing and the stale ones
exit
}
