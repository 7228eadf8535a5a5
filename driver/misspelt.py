"""Name a variable of the environment that is almost one of run_loop.sh's.

Reads:  the names of run_loop.sh's variables as arguments; the environment
Writes: one line and exit status 1 if a name is nearly one of them

    LENGHT_PENALTY=.05 python driver/misspelt.py LENGTH_PENALTY SEED
"""

import difflib
import os
import sys

# difflib's ratio: it allows a letter too many or too few, or a wrong one in a name of ten.
SIMILAR = 0.9
SHORTEST = 7  # letters: a shell may set PROMPT for itself


def main():
    variables = sys.argv[1:]
    for name in sorted(os.environ.keys() - set(variables)):
        similar = difflib.get_close_matches(name, variables, n=1, cutoff=SIMILAR)
        if similar and name.isupper() and len(name) >= SHORTEST:
            print(f"{name}: run_loop.sh has no such variable; {similar[0]} is one")
            sys.exit(1)


if __name__ == "__main__":
    main()
