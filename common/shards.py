"""Share rows out over processes, and join their files again.

A script takes its rows by --shard and --num_shards, or by the rank and the number of processes that
torchrun, accelerate or Slurm's srun gives it. Processes that were launched together write
NAME.0-of-2, NAME.1-of-2, and take different GPUs. Row i belongs to shard i modulo num_shards: no
row is lost where they do not divide.

This command joins two complete shards of responses.jsonl, in the order of the prompts:
    python common/shards.py prompts.jsonl responses.jsonl 2
"""

import itertools
import os
import sys

from common import arguments, rows

# The variables of rank, number of processes, and rank on the node. srun's are those of a step: in a
# batch script outside of srun there is a single process.
LAUNCHERS = [
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
]
# What a launcher sets for torch.distributed.
DISTRIBUTED_VARIABLES = [
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
]


# The shard of this process


def parse(parser):
    """Parse the arguments of a script whose processes share rows.

    Adds shard and num_shards. In a process of a launcher these are its rank and the number of
    processes, and output_file gets the shard's name.
    """
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
    args.shard = 0
    args.num_shards = 1
    for names in LAUNCHERS:
        rank, processes, local_rank = launched_process(parser, names)
        if processes > 1:
            args.shard = rank
            args.num_shards = processes
            args.output_file += f".{rank}-of-{processes}"
            parser.check_paths(args)
            take_gpus(local_rank, getattr(args, "tensor_parallel_size", 1))
            break
    return args


def launched_process(parser, names):
    """(rank, number of processes, rank on the node) by a launcher's variables; 0 where not set."""
    values = [os.environ.get(name) or "0" for name in names]
    if not all(value.isascii() and value.isdigit() for value in values):
        parser.error(
            f"{', '.join(names)}: {' '.join(values)} in the environment, whole numbers are needed"
        )
    rank, processes, local_rank = map(int, values)
    if processes > 1 and rank >= processes:
        parser.error(f"{names[0]}={rank}: not one of 0 to {processes - 1}")
    return rank, processes, local_rank


def own_rows(all_rows, args):
    """Those rows that this process's shard has."""
    return itertools.islice(all_rows, args.shard, None, args.num_shards)


def take_gpus(local_rank, count):
    """Let this process see only its own `count` GPUs, and no launcher.

    By the launcher's variables its vLLM engine would wait for the other processes.
    """
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        visible = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    else:
        visible = [str(gpu) for gpu in range((local_rank + 1) * count)]
    # Otherwise the launcher has given each process its own GPUs already.
    if len(visible) > count:
        first = local_rank * count
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible[first : first + count])
    for name in DISTRIBUTED_VARIABLES:
        os.environ.pop(name, None)


# Joining shards


def join(order, file, count):
    """Write `file` from its shards, in the order of the rows of `order`.

    A shard that is missing, cut off or not of these rows ends the program.
    """
    row_ids = [row["id"] for row in rows.read(order, "rows")]
    expected_shards = {row_id: index % count for index, row_id in enumerate(row_ids)}
    parts = [f"{file}.{index}-of-{count}" for index in range(count)]
    shards = {}  # {id: shard that holds the row}; a stage may have dropped rows
    for index, part in enumerate(parts):
        for row_id in ids_of_shard(part):
            if expected_shards.get(row_id) != index:
                sys.exit(f"{part}: id: {row_id!r} not of this shard of {order}")
            if row_id in shards:
                sys.exit(f"{part}: id: {row_id!r} stands twice")
            shards[row_id] = index
    if not shards:
        sys.exit(f"{file}: no shard of it holds a row")
    rows.write(file, joined_rows(row_ids, shards, parts))
    dropped = len(row_ids) - len(shards)
    print(f"{file} rows in: {len(row_ids)}, dropped by a shard: {dropped}, rows out: {len(shards)}")


def ids_of_shard(part):
    """Yield the ids of a shard's rows; one that is not complete ends the program."""
    try:
        if os.path.exists(part) and not os.path.isfile(part):
            sys.exit(f"{part}: not a regular file")
        with open(part, "rb") as file:
            file.seek(max(0, os.path.getsize(part) - 2))
            end = file.read()
    except OSError as error:
        sys.exit(f"{part}: {error.strerror}")
    # A complete shard ends with an empty line; without any row it is that line alone.
    if end not in (b"\n", b"\n\n"):
        sys.exit(f"{part}: cut off, a whole shard ends with an empty line; make it again")
    if end == b"\n":
        return
    for row in rows.read(part, "rows", unique=False):
        yield row["id"]


def joined_rows(row_ids, shards, parts):
    """Yield the rows in the order of row_ids: a second pass over the files, a row at a time."""
    # A reader opens its file when its first row is needed; that of a shard without rows never does.
    readers = [rows.read(part) for part in parts]
    for row_id in row_ids:
        if row_id in shards:
            reader = readers[shards[row_id]]
            yield next(reader)


def main():
    parser = arguments.Parser(__doc__)
    parser.add_argument("order", help="the rows that the shards were made from")
    parser.add_output("file", help="what is written; FILE.0-of-2 and so on are its shards")
    parser.add_argument("count", type=arguments.whole(1), help="shards")
    args = parser.parse_args()
    join(args.order, args.file, args.count)


if __name__ == "__main__":
    main()
