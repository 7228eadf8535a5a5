"""--names of the annotators whose files are given by --rewards_files, in that order."""


def check(parser, args):
    """End the program unless there is one name for each file, and no name twice."""
    if len(args.names) != len(args.rewards_files):
        parser.error(f"--names: {len(args.names)} for {len(args.rewards_files)} files")
    if len(set(args.names)) < len(args.names):
        parser.error("--names: two annotators of one name")
