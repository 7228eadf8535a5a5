#!/usr/bin/env bash
# Style, then the tests, which make all that they need. Arguments go to pytest: bash tests/run.sh -k driver
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=setup.sh
source ./setup.sh
ruff check .
ruff format --check .
shellcheck -s bash -x -a -e SC2153 ./*.sh
shellcheck -s bash -x -e SC2154,SC2034,SC2153 driver/optimisers/* comparison/*.sh recipes/slurm/* tests/*.sh .ci/run
# 4-bit weights are tested with a library that the environment without a GPU lacks: see requirements.txt.
BITSANDBYTES=$(python -c 'import sys; print(sys.prefix)')/bitsandbytes # beside its packages, not among them
if [[ ! -d $BITSANDBYTES ]] && ! python -m pip install -q --no-deps --disable-pip-version-check \
  --target "$BITSANDBYTES" "$(grep -o '^bitsandbytes==[0-9.]*' requirements.txt)"; then
  echo "tests/run.sh: no bitsandbytes: the trainings with 4-bit weights are not tested" >&2
  BITSANDBYTES=""
fi
export BITSANDBYTES
# Two files of tests at a time, one thread each: most of the time is one core's, in imports.
export OMP_NUM_THREADS=1
exec python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests "$@"
