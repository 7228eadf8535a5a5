#!/usr/bin/env bash
# Style, then the tests, which make all that they need. Arguments go to pytest: bash tests/run.sh -k driver
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=setup.sh
source ./setup.sh
ruff check .
ruff format --check .
shellcheck -s bash -x ./*.sh recipes/*.sh recipes/slurm/* tests/*.sh .ci/run
exec python -m pytest -q tests "$@"
