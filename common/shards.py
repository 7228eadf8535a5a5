"""Rows shared out over processes, and their files joined again.

A script takes its rows by --shard and --num_shards, or by the rank and the number of processes that torchrun,
accelerate or Slurm's srun gives it; then the processes that were launched together write NAME.0-of-2, NAME.1-of-2, and
each takes GPUs of its own. Row i is of shard i modulo num_shards: no row is lost where they do not divide.

Joins two shards of responses.jsonl in the order of the rows that they were made from, if all of them are whole:
    python common/shards.py prompts.jsonl responses.jsonl 2
"""

import itertools
import os
import sys

from common import arguments, rows

LAUNCHERS = [  # variables of rank, processes, rank on the node; srun's only inside a step, not in a batch script
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
]


def parse(parser):
    """Parse the arguments of a script whose processes share rows: adds shard, num_shards, and, for the processes of a
    launcher, the shard to the name of output_file."""
    parser.add_argument(
        "--shard",
        type=arguments.whole(0),
        help="which share of the rows: 0 to num_shards - 1 (default: the rank)",
    )
    parser.add_argument(
        "--num_shards",
        type=arguments.whole(1),
        help="shares, no row is lost (default: processes of the launcher)",
    )
    args = parser.parse_args()
    if (args.shard is None) != (args.num_shards is None):
        parser.error("--shard and --num_shards: give both or none")
    if args.shard is not None:
        if args.shard >= args.num_shards:
            parser.error(f"--shard {args.shard}: not one of 0 to {args.num_shards - 1}")
        return args
    args.shard, args.num_shards = 0, 1
    for names in LAUNCHERS:
        found = [os.environ.get(name) or "0" for name in names]
        if not all(number.isascii() and number.isdigit() for number in found):
            parser.error(
                f"{', '.join(names)}: {' '.join(found)} in the environment, whole numbers are needed"
            )
        rank, processes, local = map(int, found)
        if processes > 1:
            if rank >= processes:
                parser.error(f"{names[0]}={rank}: not one of 0 to {processes - 1}")
            args.shard, args.num_shards = rank, processes
            args.output_file += f".{rank}-of-{processes}"
            parser.check_paths(args)
            take_gpus(local, getattr(args, "tensor_parallel_size", 1))
            break
    return args


def own_rows(all_rows, args):
    """Those rows that this process's shard has."""
    return itertools.islice(all_rows, args.shard, None, args.num_shards)


def take_gpus(local_rank, count):
    """Leave this process its own GPUs; its engine shall not wait for the other processes either."""
    several = list(map(str, range((local_rank + 1) * count)))
    visible = (
        os.environ["CUDA_VISIBLE_DEVICES"].split(",")
        if "CUDA_VISIBLE_DEVICES" in os.environ
        else several
    )
    if len(visible) > count:  # else the launcher has given each its own
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible[local_rank * count :][:count])
    for name in (
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
    ):
        os.environ.pop(name, None)


def join(order, file, count):
    """Write `file` from its shards; one that is missing, cut off or not of these rows ends the program."""
    place, parts = {}, [f"{file}.{i}-of-{count}" for i in range(count)]
    names = [row["id"] for row in rows.read(order, "rows")]
    shard_of = {name: i % count for i, name in enumerate(names)}
    for i, part in enumerate(parts):
        try:
            if os.path.exists(part) and not os.path.isfile(part):
                sys.exit(f"{part}: not a regular file")
            with open(part, "rb") as opened:
                opened.seek(max(0, os.path.getsize(part) - 2))
                end = opened.read()
        except OSError as error:
            sys.exit(f"{part}: {error.strerror}")
        if end not in (b"\n", b"\n\n"):
            sys.exit(f"{part}: cut off, a whole shard ends with an empty line; make it again")
        for row in (
            rows.read(part, "rows", unique=False) if len(end) > 1 else ()
        ):  # a shard may be empty
            if row["id"] in place or shard_of.get(row["id"]) != i:
                told = (
                    f"not of this shard of {order}"
                    if shard_of.get(row["id"]) != i
                    else "stands twice"
                )
                sys.exit(f"{part}: id: {row['id']!r} {told}")
            place[row["id"]] = i
    if not place:
        sys.exit(f"{file}: no shard of it holds a row")
    rest = [rows.read(part) for part in parts]  # a file is opened when its first row is asked for
    rows.write(file, (next(rest[place[name]]) for name in names if name in place))
    print(
        f"{file} rows in: {len(names)}, dropped by a shard: {len(names) - len(place)}, rows out: {len(place)}"
    )


if __name__ == "__main__":
    parser = arguments.Parser(__doc__)
    parser.add_argument("order", help="the rows that the shards were made from")
    parser.add_output("file", help="what is written; FILE.0-of-2 and so on are its shards")
    parser.add_argument("count", type=arguments.whole(1), help="shards")
    args = parser.parse_args()
    join(args.order, args.file, args.count)
