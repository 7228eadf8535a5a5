"""Hash what a step reads: files, folders, models, and scripts with the modules that they import.

For records.py.
"""

import ast
import contextlib
import functools
import hashlib
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Files of a model's folder that are loaded. The state of its training, which holds times, notes and
# model cards are not among them.
MODEL_FILES = (
    "*.safetensors",
    "pytorch_model*.bin",
    "adapter_model.bin",
    "*.json",
    "*.model",
    "*.tiktoken",
    "*.jinja",
    "*.py",
    "merges.txt",
    "vocab.txt",
)
RECORDS = (".made.json", ".making.json")
# Folders of the project's scripts. A script of the user's own may break the project's rules.
STAGES = (
    "sft",
    "reward_modeling",
    "generation",
    "annotation",
    "dpo",
    "eval",
    "data",
    "recipes/tiny",
    "recipes/tiny_tools",
    "recipes/smollm2",
)
WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
LARGE = 2**26  # bytes; a larger file is hashed again only if its size, inode or times change


# Files


def write_json(path, value):
    """Write a file atomically; where that fails, the program ends."""
    try:
        replace_json(path, value)
    except OSError as error:
        sys.exit(f"run_loop.sh: {path}: {error.strerror}")


def replace_json(path, value):
    unfinished = Path(f"{path}.{os.getpid()}.new")  # a dry run may write at the same time
    try:
        unfinished.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


class Hashes:
    """SHA-256 of files and folders; OUT/.hashes.json keeps those of large files."""

    def __init__(self, out):
        self.store = Path(out, ".hashes.json")
        self.large_files = read_json(self.store) or {}  # {path: [identity, hash]}
        self.cache = {}

    def hash(self, path):
        """The hash of a file, or of a folder's names and files; if unreadable, the program ends."""
        real_path = os.path.realpath(path)
        if real_path not in self.cache:
            hash_content = self.hash_folder if os.path.isdir(real_path) else self.hash_file
            try:
                self.cache[real_path] = hash_content(real_path)
            except OSError as error:
                sys.exit(f"run_loop.sh: {path}: {error.strerror}")
        return self.cache[real_path]

    def hash_file(self, path):
        stat = os.stat(path)
        if stat.st_size < LARGE:
            return hashlib.sha256(Path(path).read_bytes()).hexdigest()
        identity = [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
        stored_identity, _ = self.large_files.get(path, [None, None])
        if stored_identity != identity:
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
            self.large_files[path] = [identity, digest.hexdigest()]
            self.save()
        return self.large_files[path][1]

    def hash_folder(self, path):
        """Of a model only the files that are loaded count; a note in its folder changes nothing."""
        files = []
        for file in sorted(Path(path).rglob("*")):
            if file.is_file() and not file.name.endswith(RECORDS):
                files.append(file)
        only_loaded = is_model(path, files)
        lines = []
        for file in files:
            name = file.relative_to(path)
            if is_loaded(name) or not only_loaded:
                lines.append(f"{name} {self.hash_file(str(file))}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def save(self):
        # Where nothing can be written, in another's run say, they are computed again.
        with contextlib.suppress(OSError):
            replace_json(self.store, self.large_files)


def is_model(folder, files):
    """Does a folder hold a model, with its configuration and tokenizer at the top?"""
    has_config = has_tokenizer = False
    for file in files:
        if file.parent == Path(folder):
            has_config |= file.name in ("config.json", "adapter_config.json")
            has_tokenizer |= file.name.startswith("tokenizer")
    return has_config and has_tokenizer


def is_loaded(file):
    """Is a file of a model's folder, by its path from there, read when the model is loaded?"""
    if file.name == "trainer_state.json" or "checkpoint-" in str(file):
        return False
    return any(file.match(pattern) for pattern in MODEL_FILES)


# Scripts


def is_ours(script):
    """Is it a numbered script of this project's stages or worlds?"""
    path = os.path.relpath(os.path.realpath(script), ROOT)
    return os.path.dirname(path) in STAGES and os.path.basename(path)[0].isdigit()


@functools.cache
def code_hash(script):
    """The hash of a script's code with that of the modules of this project that it imports.

    Files beside them that they name count as well: the judge's prompts, say.
    """
    sources = []
    for file in source_files(script):
        content = file.read_bytes()
        sources.append(f"{file.name}\n{code(content)}")
        for path in named_files(file.parent, parsed(file)):
            # A script has been followed to here, as a module is.
            if path.suffix == ".py":
                continue
            sources.append(f"{path.name}\n{hashlib.sha256(path.read_bytes()).hexdigest()}")
    return hashlib.sha256("\n".join(sorted(sources)).encode()).hexdigest()


def source_files(script):
    """The files of this project that a script runs: itself and, without importing, its imports.

    A Python file beside it that it names counts as imported.
    """
    script = Path(os.path.realpath(script))
    files = []
    remaining = [script]
    while remaining:
        file = remaining.pop()
        if file in files:
            continue
        files.append(file)
        tree = parsed(file)
        remaining += [path for path in named_files(file.parent, tree) if path.suffix == ".py"]
        for level, module in imported_modules(tree):
            folders = (script.parent, file.parent, ROOT)
            if level:  # dots before the name
                folders = file.parents[level - 1 : level]
            for folder in folders:
                remaining += module_files(folder, module)
    return files


def parsed(file):
    """The tree of a Python file; one that is missing or has a wrong line ends the program."""
    try:
        return ast.parse(file.read_bytes())
    except OSError as error:
        sys.exit(f"run_loop.sh: {file}: {error.strerror}")
    except SyntaxError as error:
        sys.exit(f"run_loop.sh: {file}:{error.lineno}: {error.msg}")


def imported_modules(tree):
    """Yield (leading dots, name) of every module, or what may be one, that a tree imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield 0, name.name
        elif isinstance(node, ast.ImportFrom):
            package = f"{node.module}." if node.module else ""
            for name in node.names:
                yield node.level, f"{package}{name.name}"


def named_files(folder, tree):
    """The files of a folder whose names stand as texts in a tree."""
    names = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return [path for path in folder.iterdir() if path.is_file() and path.name in names]


def module_files(folder, module):
    """Yield the files of a module and of the packages that hold it, those that are in a folder."""
    stem = folder
    for part in module.split("."):
        stem = stem / part
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path.is_file():
                yield path


def code(source):
    """The lines of a Python file that change what it does.

    Lines of comment, blank lines and docstrings can be edited freely.
    """
    tree = ast.parse(source)
    lines = source.splitlines()  # as bytes, which end where Python ends a line
    docstrings = docstring_lines(tree, lines)
    in_text = lines_in_texts(tree)
    kept = []
    for number, line in enumerate(lines):
        is_code = line.strip() and not line.lstrip().startswith(b"#")
        if number in docstrings or not (is_code or number in in_text):
            continue
        # Blanks at the end of a line belong to a text that goes on.
        whole = line if number + 1 in in_text else line.rstrip()
        kept.append(whole.decode("utf-8", "surrogateescape"))
    return kept


def lines_in_texts(tree):
    """The lines, from 0, that begin inside of a text, where # begins no comment."""
    numbers = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Constant, ast.JoinedStr)):
            numbers.update(range(node.lineno, node.end_lineno))
    return numbers


def docstring_lines(tree, lines):
    """The lines, from 0, of the docstrings that have their lines for themselves."""
    numbers = set()
    for node in ast.walk(tree):
        if not isinstance(node, WITH_DOCSTRING) or ast.get_docstring(node) is None:
            continue
        docstring = node.body[0]
        before = lines[docstring.lineno - 1][: docstring.col_offset]
        after = lines[docstring.end_lineno - 1][docstring.end_col_offset :]
        if not before.strip() and not after.strip():
            numbers.update(range(docstring.lineno - 1, docstring.end_lineno))
    return numbers
