"""What every stage may import: rows, shards, batches, arguments, outputs, models, judge."""

import sys
from pathlib import Path


def check_checkout(script):
    """A script must not run with the modules of another checkout, whose environment it may use."""
    own = Path(__file__).resolve().parent
    for folder in Path(script).resolve().parents:
        if (folder / "pyvenv.cfg").is_file():  # an installed program, pytest say
            return
        package = folder / "common" / "__init__.py"
        if (folder / "run_loop.sh").is_file() and package.is_file():
            if not package.parent.samefile(own):
                sys.exit(f"{script}: common/ is of {own.parent}: source {folder}/setup.sh first")
            return


check_checkout(sys.argv[0])
