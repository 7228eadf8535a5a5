"""Name a variable of the environment that is meant for run_loop.sh and that run_loop.sh does not know.

Reads:  the names of run_loop.sh's variables as arguments; the environment
Writes: one line and exit status 1 where a name is nearly one of them

    LENGHT_PENALTY=.05 python driver/misspelt.py LENGTH_PENALTY SEED
"""

import difflib
import os
import sys

SIMILAR = 0.9  # of difflib's ratio: a letter too much or too few, or, in a name of ten, a wrong one
SHORTEST = 7  # letters: PROMPT belongs to some shells


def main():
    known = sys.argv[1:]
    for name in sorted(os.environ.keys() - set(known)):
        meant = difflib.get_close_matches(name, known, n=1, cutoff=SIMILAR)
        if meant and name.isupper() and len(name) >= SHORTEST:
            print(f"{name}: run_loop.sh has no such variable; {meant[0]} is one")
            sys.exit(1)


if __name__ == "__main__":
    main()
