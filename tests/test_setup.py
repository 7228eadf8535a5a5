"""setup.sh: whose packages a checkout uses, and whose modules."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from commands import ROOT

ENVIRONMENT = Path(sys.executable).parents[1]


def sourced(checkout, command, **variables):
    """A command in a shell that has sourced a checkout's setup.sh, our environment being active."""
    environment = {
        "PATH": f"{ENVIRONMENT}/bin:/usr/bin:/bin",
        "VIRTUAL_ENV": str(ENVIRONMENT),
        **variables,
    }
    script = f"source ./setup.sh && {command}"
    shell = ["bash", "-c", script]
    return subprocess.run(shell, cwd=checkout, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def requirements(tmp_path_factory):
    """Pins that this environment has, whichever of the two requirements it was made for."""
    file = tmp_path_factory.mktemp("pins") / "requirements.txt"
    file.write_text("pytest==9.2.0\n")
    return str(file)


def test_a_second_checkout_uses_the_environment_of_the_first_with_its_own_modules(
    checkout, requirements
):
    command = "python -c 'import common, sys; print(common.__file__, sys.prefix)'"
    done = sourced(checkout, command, REQUIREMENTS=requirements)
    assert done.stdout.split() == [f"{checkout}/common/__init__.py", str(ENVIRONMENT)], done.stderr
    assert done.stderr == "" and not (checkout / ".venv").exists()


def test_a_script_refuses_the_modules_of_another_checkout(checkout):
    script = checkout / "annotation/2b_best.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, script, "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"{script}: common/ is of {ROOT}: source {checkout}/setup.sh first\n"


def test_an_active_environment_that_lacks_a_package_is_not_used(checkout, tmp_path):
    """It says which; that .venv cannot be made here ends it."""
    file = tmp_path / "requirements.txt"
    file.write_text("pytest==9.2.0\nnumpy==0.1\nno-such-package==2.0  # a comment\n")
    (checkout / ".venv").write_text("a file where the folder would be")
    done = sourced(checkout, "true", REQUIREMENTS=str(file))
    (checkout / ".venv").unlink()
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first.startswith("setup.sh: using .venv, as the active environment lacks numpy==0.1 (")
    assert first.endswith("), no-such-package==2.0 (none)")
    assert second == "setup.sh: cannot write into .venv"


def test_requirements_that_are_not_there_are_named(checkout):
    done = sourced(checkout, "true", REQUIREMENTS="no.txt")
    assert done.returncode == 1
    assert done.stderr == f"setup.sh: no file {checkout}/no.txt\n"


def test_an_environment_that_setup_has_not_made_is_not_emptied(checkout, requirements):
    """Here one of another tool, without pip."""
    own = checkout / ".venv/notes.txt"
    own.parent.mkdir()
    own.write_text("mine")
    done = sourced(
        checkout, "true", REQUIREMENTS=requirements, VIRTUAL_ENV="", PATH="/usr/bin:/bin"
    )
    assert done.returncode == 1
    assert own.read_text() == "mine"
    assert ".venv is not of setup.sh" in done.stderr and len(done.stderr.splitlines()) == 1
    own.unlink()
