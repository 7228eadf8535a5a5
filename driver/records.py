"""Say which steps of a run are stale, by the content that their files were made from.

Times of files play no part, but for when a large file is hashed again. Beside each file of a step
lies its record, NAME.made.json: the command without paths of the machine, and hashes of the files
that it read and of its script with the modules of this project that it imports. While a step runs,
NAME.making.json lies there instead. A file without a record, from an earlier version or put there
by hand, is taken as it is.

Reads:  the steps on standard input, by driver/steps.sh: for each the number of its files, the
        files, the number of words of its command, the words, each followed by a zero byte; the
        files that the commands name
Writes: states: a line for each step: fresh, missing, or stale, with a colon and the reason
        adopt: records for the files that have none. It needs the run's lock: a dry run uses states
        begin: `resume` if the last try had the same inputs, else `anew`; NAME.making.json
        end: the record of what was made
        code: a line for each step: the hashes of its code and of its --config files

    python driver/records.py begin runs/tiny < one_step
"""

import argparse
import os

from contents import Hashes, read_json, write_json
from listed_steps import Run, Step, read_commands

# Comparing records


def difference(old, new):
    """The first reason why what was made from `old` is not what `new` makes; None without one."""
    if old["command"] != new["command"]:
        return f"command: {first_difference(old['command'], new['command'])}"
    if len(old["inputs"]) != len(new["inputs"]):
        return "it reads other files"
    for before, now in zip(old["inputs"], new["inputs"], strict=True):
        if before["sha256"] != now["sha256"]:
            return f"{now['path']} has changed"
    if old["code"] != new["code"]:
        return f"{new['command'][0]} or a module that it imports has changed"
    return None


def first_difference(old, new):
    """The first flag for which two commands have different values, with both values."""
    before = values_by_flag(old)
    now = values_by_flag(new)
    for flag in [*now, *before]:
        if before.get(flag) != now.get(flag):
            old_values = before.get(flag, "(not given)")
            new_values = now.get(flag, "(not given)")
            return f"{flag or 'script'} {old_values}, now {new_values}"
    return "the order of its flags"


def values_by_flag(words):
    """{flag: its values, with blanks between}; the script has an empty flag."""
    values = {}
    flag = ""
    for word in words:
        if word.startswith("--"):
            flag = word
            values[flag] = ""
        else:
            values[flag] = f"{values.get(flag, '')} {word}".strip()
    return values


# States


def state(step, hashes, remade):
    """fresh, missing or stale, with the reason.

    remade: {file: step that will make it again} of the steps before.
    """
    if not step.exists():
        return "missing"
    new = step.record(hashes)
    if step.is_in_the_making():
        return "fresh" if was_finished(step, new, hashes) else "stale: its last run was cut off"
    records = [read_json(path) for path in step.beside(".made.json")]
    reasons = [difference(record, new) for record in records if record]
    reason = next(filter(None, reasons), None)
    words = [os.path.normpath(word) for _, word in step.flags_and_words()]
    remade_by = next((remade[word] for word in words if word in remade), None)
    # Changed settings are said first, then a step above that will change the inputs.
    if reason and reason.startswith("command: "):
        return f"stale: {reason}"
    if remade_by:
        return f"stale: after {remade_by}"
    if reason:
        return f"stale: {reason}"
    return "fresh" if all(records) else "fresh, without a record"


def was_finished(step, new, hashes):
    """Are the files of a step that was in the making complete?

    This project's scripts give a file its name when it is complete, so a file that is new is. A
    script of the user's own may have written half of it.
    """
    if not step.is_ours:
        return False
    for path, file in zip(step.beside(".making.json"), step.files, strict=True):
        making = read_json(path) or {}
        same_inputs = "record" in making and not difference(making["record"], new)
        if not same_inputs or hashes.hash(file) == making.get("before"):
            return False
    return True


# The commands


def print_states(steps, hashes):
    remade = {}
    for step in steps:
        text = state(step, hashes, remade)
        if text.startswith(("missing", "stale")):
            for file in step.files:
                remade[os.path.normpath(file)] = step.name
        print(" ".join(text.split()))


def adopt(steps, hashes):
    """Write a record of the current inputs for each file without one.

    If a step before them makes its files again, and they differ, these are stale.
    """
    for step in steps:
        if not step.exists():
            continue
        if step.is_in_the_making():
            if was_finished(step, step.record(hashes), hashes):
                end(step)  # the driver was killed before it could
            continue
        for path in step.beside(".made.json"):
            if not path.exists():
                write_json(path, step.record(hashes))


def begin(step, hashes):
    """Replace the records by what is in the making, with the hash of each file as it was."""
    making_files = step.beside(".making.json")
    records = step.beside(".made.json")
    last = read_json(making_files[0])
    new = step.record(hashes)
    for file, making_file, record in zip(step.files, making_files, records, strict=True):
        making_file.parent.mkdir(parents=True, exist_ok=True)
        before = hashes.hash(file) if os.path.exists(file) else None
        write_json(making_file, {"record": new, "before": before})
        record.unlink(missing_ok=True)
    same = last and not difference(last["record"], new)
    print("resume" if same else "anew")


def end(step):
    making_files = step.beside(".making.json")
    for making_file, record in zip(making_files, step.beside(".made.json"), strict=True):
        write_json(record, read_json(making_file)["record"])
        making_file.unlink()


def print_code(steps, hashes):
    """On what the answer of each script's parser depends, beside the command."""
    for step in steps:
        words = [step.code()]
        for flag, word in step.flags_and_words():
            if flag == "--config" and os.path.isfile(word):
                words.append(hashes.hash(word))
        print(*words)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("use", choices=["states", "adopt", "begin", "end", "code"])
    parser.add_argument("out", help="directory of the run")
    parser.add_argument("--judge", help="the script of the made world's judge")
    return parser.parse_args()


def main():
    args = parse_arguments()
    run = Run(os.path.normpath(args.out))
    if args.judge and os.path.exists(args.judge):
        run.judge = args.judge
    steps = []
    for files, command in read_commands():
        run.files.update(os.path.normpath(file) for file in files)
        steps.append(Step(run, files, command))
    hashes = Hashes(args.out)
    if args.use == "states":
        print_states(steps, hashes)
    elif args.use == "adopt":
        adopt(steps, hashes)
    elif args.use == "begin":
        begin(steps[0], hashes)
    elif args.use == "code":
        print_code(steps, hashes)
    else:
        end(steps[0])


if __name__ == "__main__":
    main()
