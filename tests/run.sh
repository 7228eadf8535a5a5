#!/usr/bin/env bash
# Style, then the tests, which make all that they need. Arguments go to pytest: bash tests/run.sh -k driver
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=setup.sh
source ./setup.sh
ruff check .
ruff format --check .
shellcheck -s bash -x ./*.sh recipes/*.sh recipes/{slurm,optimisers}/* recipes/tiny/*.sh tests/*.sh .ci/run
# Two files of tests at a time, one thread each: most of the time is one core's, in imports.
export OMP_NUM_THREADS=1
# The driver's are the longest: they begin first.
exec python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests/test_driver.py tests "$@"
