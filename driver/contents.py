"""Hashes of what a step reads: files, folders, models, scripts with the modules that they import. For records.py."""

import ast
import hashlib
import json
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What is loaded of a model's folder; not the state of its training, with its times, nor notes and cards.
OF_A_MODEL = (
    "*.safetensors pytorch_model*.bin adapter_model.bin *.json *.model *.tiktoken *.jinja *.py merges.txt vocab.txt"
).split()
RECORDS = (".made.json", ".making.json")
# The project's scripts; a user's own may do without its rules.
STAGES = (
    "sft reward_modeling generation annotation dpo eval data recipes/tiny recipes/smollm2".split()
)
LARGE = 2**26  # bytes; a larger file is not read again while size, inode and both times stay


# Files


def write_json(path, value):
    unfinished = Path(f"{path}.{os.getpid()}.new")  # a dry run may write at the same time
    unfinished.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


class Hashes:
    """SHA-256 of files and folders; of large files they are kept in OUT/.hashes.json."""

    def __init__(self, out):
        self.store = Path(out, ".hashes.json")
        self.large = read_json(self.store) or {}
        self.known = {}

    def of(self, path):
        """The hash of a file, or of a folder's names and files."""
        path = os.path.realpath(path)
        if path not in self.known:
            self.known[path] = self.of_folder(path) if os.path.isdir(path) else self.of_file(path)
        return self.known[path]

    def of_file(self, path):
        stat = os.stat(path)
        if stat.st_size < LARGE:
            return hashlib.sha256(Path(path).read_bytes()).hexdigest()
        identity = [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
        if self.large.get(path, [None])[0] != identity:
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
            self.large[path] = [identity, digest.hexdigest()]
            self.save()
        return self.large[path][1]

    def of_folder(self, path):
        """Of a model only what is loaded counts: a note or a model card in its folder changes nothing."""
        files = sorted(
            file for file in Path(path).rglob("*") if file.is_file() and not is_record(file.name)
        )
        names = {file.name for file in files if file.parent == Path(path)}
        if names & {"config.json", "adapter_config.json"} and any(
            name.startswith("tokenizer") for name in names
        ):
            files = [
                file
                for file in files
                if is_of_model(file) and "checkpoint-" not in str(file.relative_to(path))
            ]
        lines = [f"{file.relative_to(path)} {self.of_file(str(file))}" for file in files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def save(self):
        if self.store.parent.is_dir():
            write_json(self.store, self.large)


def is_record(name):
    return name.endswith(RECORDS)


def is_of_model(file):
    return file.name != "trainer_state.json" and any(file.match(pattern) for pattern in OF_A_MODEL)


# Scripts


def sources(script):
    """The files of this project that a script runs: itself and what it imports, found by reading, not by importing."""
    found, left = [], [Path(os.path.realpath(script))]
    home = left[0].parent
    while left:
        file = left.pop()
        if file in found:
            continue
        found.append(file)
        for module in imported(ast.parse(file.read_bytes())):
            left += [
                path for folder in (home, file.parent, ROOT) for path in places(folder, module)
            ]
    return found


def imported(tree):
    """Every module, and every name that may be one, of the import statements of a tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def places(folder, module):
    stem = folder.joinpath(*module.split("."))
    return [path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()]


def code(source):
    """The lines of a Python file without comments, blank ones and docstrings, which can be edited freely."""
    lines = source.decode("utf-8").splitlines()
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            for number in range(first.lineno, first.end_lineno + 1):
                lines[number - 1] = ""
    return [line.rstrip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def is_ours(script):
    """Is it a numbered script of this project's stages or worlds?"""
    path = os.path.relpath(os.path.realpath(script), ROOT)
    return os.path.dirname(path) in STAGES and os.path.basename(path)[0].isdigit()


def code_hash(script):
    files = sorted(f"{file.name}\n{code(file.read_bytes())}" for file in sources(script))
    return hashlib.sha256("\n".join(files).encode()).hexdigest()
