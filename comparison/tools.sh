#!/usr/bin/env bash
# Compare ways to learn from trajectories with a tool, in the tiny world that has one; writes $OUT/TOOLS.md.
#
#   bash comparison/tools.sh                      the rows of the slides' table, at seeds 0 1 2
#   SEEDS=0 bash comparison/tools.sh mdpo raft    some of them, at one seed
#
# For each seed a base is made once: world, base model, fine-tuned policy. Each row goes on from it for three rounds. Give the
# same command again to go on; what is finished is not run again, and the table holds all that is below $OUT.
# shellcheck disable=SC2329 # `start` calls the functions
set -euo pipefail
cd "$(dirname "$0")/.."
{ # read at once, so that an edit does not reach a run under way
: "${OUT:=runs/compare_tools}" "${JOBS:=2}" "${SEEDS:=0 1 2}"
# shellcheck source=setup.sh
source ./setup.sh
rows=(raft dpo kto mdpo_fixed mdpo)
for name in "$@"; do
  [[ " ${rows[*]} " == *" $name "* ]] || {
    echo "tools.sh: $name: some of ${rows[*]}" >&2
    exit 1
  }
done
(($# == 0)) || mapfile -t rows < <(printf '%s\n' "$@" | awk '!seen[$0]++')

loop() { # loop NAME RECIPE VARIABLE=VALUE...: one run of the driver
  local directory=$OUT/seed$seed/$1 recipe=$2
  shift 2
  env "$@" OUT="$directory" SEED="$seed" RECIPE="$recipe recipes/tiny_tools.sh" bash run_loop.sh
}

train_row() { # train_row NAME: three rounds from the base, with the base's evaluation
  local name=$1
  local directory=$OUT/seed$seed/$name base=$OUT/seed$seed/base
  if [[ ! -e $directory/eval ]]; then
    mkdir -p "$directory"
    cp -alf "$base/world" "$base/eval" "$directory" # links, with their records
  fi
  loop "$name" "comparison/tiny_tools/$name.sh" SFT_MODEL="$base/sft"
}

# shellcheck source=comparison/jobs.sh
source comparison/jobs.sh
share_cores "$(wc -w <<<"$SEEDS")"
for seed in $SEEDS; do
  mkdir -p "$OUT/seed$seed"
  start base loop base comparison/tiny_tools/mdpo.sh ITERATIONS=0
done
finished || exit 1
share_cores "$JOBS"
for seed in $SEEDS; do
  for name in "${rows[@]}"; do start "$name" train_row "$name"; done
done
failed=""
finished || failed=1
python comparison/4_tools.py --directory "$OUT"
[[ -z $failed ]] || exit 1
exit
}
