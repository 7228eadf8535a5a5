"""The commands on all pages and in all docstrings can be run: scripts, flags, files, variables."""

import ast
import atexit
import functools
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import record_dry_runs
from commands import ROOT, ran, read_jsonl, run, write_jsonl

PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]
PROGRAMS = sorted(
    str(path.relative_to(ROOT))
    for folder in ROOT.iterdir()
    if folder.is_dir() and not folder.name.startswith(".") and folder.name not in ("runs", "tests")
    for path in folder.rglob("[0-9]*_*.py")
)
SPEED = sorted(f"speed/{path.name}" for path in ROOT.glob("speed/*.py"))
# The --help of these lists their flags.
UNDERSTOOD = [*PROGRAMS, *SPEED, "preflight/budget.py"]
ARGPARSE = [script for script in PROGRAMS if "arguments.Parser" in (ROOT / script).read_text()]
EVERY_ANNOTATOR = "reward_model preference_model armorm llm_judge verifier"
OUTPUTS = ("--output_file", "--output_files", "--output_dir", "--held_out_file")
# Names that begin so stand for a user's files, or for any file.
PLACEHOLDERS = ("my", "FILE", "NAME")
# files of the published code
UPSTREAM = {"run_loop2.sh", "gen_data.json", "gen_data.jsonl"}


def text_of(name):
    return (ROOT / name).read_text()


def sources():
    """All code of the project, but tests and environment."""
    folders = [path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]
    folders = [path for path in folders if path.name not in ("runs", "tests", "docs")]
    files = [*ROOT.glob("*.py"), *ROOT.glob("*.sh")]
    for folder in folders:
        files += [*folder.rglob("*.py"), *folder.rglob("*.sh")]
    return "\n".join(file.read_text() for file in sorted(files))


SOURCES = sources()


@functools.cache
def flags_of(script):
    """The flags in the list of options of --help, not those in its description, the docstring."""
    done = run(script, "--help")
    assert done.returncode == 0, done.stderr
    _, _, options = done.stdout.partition("\noptions:\n")
    flags = set()
    for line in options.splitlines():
        if line.startswith("  -"):
            flags |= set(re.findall(r"--\w+", line))
    return flags


@functools.cache
def fresh_checkout():
    """Here a run of the default recipe, with other settings, may lie in runs/tiny."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    return record_dry_runs.copy_checkout(folder)


@functools.cache
def dry_run(**variables):
    """The commands of the default recipe with those variables."""
    variables = {"GPUS": "0", "OUT": "runs/tiny", **variables}
    done = record_dry_runs.dry_run(fresh_checkout(), **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def all_annotators():
    return dry_run(ITERATIONS="2", ANNOTATOR=EVERY_ANNOTATOR)


@functools.cache
def variables_of_the_driver():
    """{name: (default, kind)} of every `setting` line of driver/variables.sh, outside Slurm."""
    script = """\
unset SLURM_JOB_NUM_NODES
source driver/variables.sh
for name in "${SETTINGS[@]}"; do
  printf "%s\\t%s\\t%s\\n" "$name" "${default_of[$name]}" "${kind_of[$name]}"
done
"""
    command = ["bash", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    variables = {}
    for line in done.stdout.splitlines():
        name, default, kind = line.split("\t")
        variables[name] = (default, kind.split())
    text = text_of("driver/variables.sh")
    assert list(variables) == re.findall(r"^setting ([A-Z_0-9]+) ", text, re.MULTILINE)
    return variables


def fences(page, language=r"\w*"):
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)


def shell_of(page):
    """The commands of a page: the shell's fences, in RESULTS.md the indented lines."""
    if page == "RESULTS.md":
        return "\n".join(re.findall(r"^    .*", text_of(page), re.MULTILINE))
    return "\n".join(fences(page, "bash"))


def docstring(script):
    return ast.get_docstring(ast.parse(text_of(script)), clean=False)


ASSIGNMENT = r"""\w+=("[^"]*"|'[^']*'|\S*)"""
COMMAND = re.compile(
    rf"\s*({ASSIGNMENT}\s+)*(python|bash|source|sbatch|torchrun|accelerate launch) (?!-m)"
)


def commands(text):
    """({variable: value}, script, its words) of every command that runs a script."""
    for line in text.replace("\\\n", " ").splitlines():
        if not COMMAND.match(line):
            continue
        words = [word for word in shlex.split(line, comments=True) if word != "&"]
        variables = {}
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            variables[name] = value
        # The first word is the program, such as python.
        script = 1
        while not words[script].endswith((".py", ".sh", ".sbatch")):
            script += 1
        yield variables, words[script], words[script + 1 :]


def tables(text):
    """The cells of every row of a page's tables."""
    for line in re.findall(r"^\|(.*)\|$", text, re.MULTILINE):
        yield [cell.strip() for cell in line.split("|")]


# Commands


def test_the_pages_have_commands():
    with_commands = {page for page in PAGES if list(commands(shell_of(page)))}
    assert with_commands >= {
        "README.md",
        "docs/stages.md",
        "docs/evaluation.md",
        "docs/comparison.md",
        "docs/scale.md",
    }


SOURCES_OF_COMMANDS = [*PAGES, "RESULTS.md", "run_loop.sh", "common/shards.py", *PROGRAMS]


@pytest.mark.parametrize("source", SOURCES_OF_COMMANDS)
def test_commands_name_scripts_and_flags_that_exist(source):
    """A command can be copied from a page, a script's docstring or the driver's dry run."""
    if source.endswith(".md"):
        text = shell_of(source)
    elif source == "run_loop.sh":
        text = all_annotators()
    else:
        text = docstring(source)
    copied = list(commands(text))
    assert copied or source.startswith("docs/"), "no command"
    for variables, script, words in copied:
        assert (ROOT / script).is_file(), script
        flags = {word.split("=")[0] for word in words if word.startswith("--")}
        assert flags <= (flags_of(script) if script in UNDERSTOOD else set()), script
        if script == "run_loop.sh":
            assert variables.keys() <= variables_of_the_driver().keys()
        elif script.endswith(".sh"):
            assert all(name in text_of(script) for name in variables), script
    if source in PROGRAMS or source == "common/shards.py":
        scripts = [script for _, script, _ in copied]
        assert source in scripts, "a docstring shows its own script's command"


def plain(path):
    """A path below a run's directory, without the run's name and the number of the iteration."""
    return re.sub(r"iter\d+", "iterN", re.sub(r"^runs/\w+/?", "", path))


def outputs_of(script, words):
    """The paths that a command writes."""
    outputs, flag = [], ""
    for word in words:
        if word.startswith("--"):
            flag = word
        elif flag in OUTPUTS:
            outputs.append(word)
    if script.endswith("1_data.py"):
        # It writes into a directory the files that its docstring lists.
        names = re.findall(r"^    (\w+\.jsonl)", docstring(script), re.MULTILINE)
        outputs += [f"{outputs[0]}/{name}" for name in names]
    return outputs


def made_by(text):
    """The paths that all commands of a text write."""
    paths = set()
    for _, script, words in commands(text):
        paths |= set(outputs_of(script, words))
    return paths


@pytest.mark.parametrize("source", PROGRAMS)
def test_docstrings_read_files_that_are_made(source):
    """Defect 14: one command wrote a .json file, the next read a .jsonl file.

    Every path is one of the driver's.
    """
    outputs = {plain(path) for path in made_by(all_annotators())}
    outputs |= {"settings", "log", "results.json"}
    # recipes/smollm2/ makes these before its run.
    outputs |= {"model", "data"}
    assert {"world/prompts.jsonl", "sft", "iterN/pairs.jsonl", "eval/iterN/kl.jsonl", ""} <= outputs
    for _, script, words in commands(docstring(source)):
        paths = {plain(word) for word in words if word.startswith("runs/")}
        assert paths <= outputs, script


def directory_of(variables):
    """The directory that run_loop.sh writes with those variables."""
    recipe = variables.get("RECIPE", "recipes/tiny.sh").split()[0]
    return variables.get("OUT", f"runs/{os.path.basename(recipe).removesuffix('.sh')}")


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_read_what_is_there_by_then(page):
    """They read what `bash run_loop.sh` or an earlier command of the page has made (defect 14)."""
    existing = made_by(dry_run())
    existing |= {"runs/tiny/settings", "runs/tiny/log", "runs/tiny/results.json"}
    # Below these directories every file may exist.
    folders = set()
    for variables, script, words in commands(shell_of(page)):
        paths = [path for path in words if path.startswith("runs/")]
        written = outputs_of(script, words)
        if script == "common/shards.py":
            # It joins NAME.0-of-2 and so on into NAME, its second argument.
            written = paths[1:2]
        values = " ".join(variables.values()).split()
        paths += [value for value in values if value.startswith("runs/")]
        for path in paths:
            if path not in existing and path not in written and path != variables.get("OUT"):
                below = [folder for folder in folders if path.startswith(f"{folder}/")]
                assert below, f"{script}: {path}"
        existing |= set(written)
        folders |= {path for path in written if not os.path.splitext(path)[1]}
        if script == "run_loop.sh" and "DRY_RUN" not in variables:
            folders |= {directory_of(variables)} - {"runs/tiny"}


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_leave_the_default_run_as_it_is(page):
    """Copied one after the other they overwrite nothing below runs/tiny and export no variable."""
    text = shell_of(page)
    assert not re.search(r"^\s*export ", text, re.MULTILINE)
    for variables, script, words in commands(text):
        for path in outputs_of(script, words):
            assert path.startswith(("my_", "runs/my_", "runs/smollm2_start/")), f"{script}: {path}"
        if script == "comparison/compare.sh":
            assert variables["OUT"].startswith("runs/my_")
        if script == "run_loop.sh" and directory_of(variables) == "runs/tiny":
            assert variables.keys() <= {"DRY_RUN"}, variables


def test_one_directory_has_one_experiment_on_all_pages():
    """A run refuses other settings than its first."""
    settings = {}
    for page in PAGES:
        for variables, script, _ in commands(shell_of(page)):
            if script == "run_loop.sh":
                directory = directory_of(variables)
                for name in ("FROM", "TO", "DRY_RUN"):
                    variables.pop(name, None)
                assert settings.setdefault(directory, variables) == variables, page
    assert len(settings) > 5


@pytest.mark.parametrize("page", PAGES)
def test_a_judge_is_started_before_it_is_asked(page):
    started = False
    for line in shell_of(page).replace("\\\n", " ").splitlines():
        started = started or "4_judge.py" in line or "vllm.entrypoints.openai.api_server" in line
        assert started or "--judge_url" not in line, line


def test_recipes_on_the_pages_have_known_variables():
    here_document = re.compile(r"^cat > (\S+) <<'EOF'\n(.*?)^EOF$", re.DOTALL | re.MULTILINE)
    recipes = {}
    for page in PAGES:
        for file, text in here_document.findall(shell_of(page)):
            names = re.findall(r"^([A-Z_0-9]+)=", text, re.MULTILINE)
            assert names
            assert set(names) <= variables_of_the_driver().keys()
            assert recipes.setdefault(file, text) == text, "one name, one recipe"
    assert "recipes/my.sh" in recipes


# Files and links


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, "RESULTS.md"])
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page):
    """A script is named by its path or its name alone; a data file stands in some script.

    A user's file is my....
    """
    # Of a link take its target.
    text = re.sub(r"\[[^\]]*\]\(([^)]*)\)", r"\1", text_of(page))
    files = re.compile(r"[\w./*?-]+\.(?:py|sh|md|txt|toml|yaml|cff|html|jsonl|json)\b")
    for path in set(files.findall(text)):
        path = path.removeprefix("../").removeprefix("./")
        name = path.split("/")[-1]
        if name.startswith(PLACEHOLDERS) or name in UPSTREAM or path.startswith("runs/my_"):
            continue
        if name.endswith(("html", "json", "jsonl", "report.md")) or path.startswith("runs/"):
            assert name in SOURCES, path
        elif not list(ROOT.glob(path)) and not list(ROOT.glob(f"docs/{path}")):
            named_alone = [program for program in PROGRAMS if program.split("/")[-1] == path]
            assert len(named_alone) == 1, f"{path}: {named_alone}"


def test_the_readme_fits_on_a_few_screens():
    lines = text_of("README.md").splitlines()
    assert 150 <= len(lines) <= 180
    assert max(map(len, lines)) < 250


def test_the_readme_leads_to_every_page():
    for page in PAGES[1:]:
        assert f"({page})" in text_of("README.md"), page


def test_the_readme_quotes_the_loop():
    loops = re.compile(r"^for \(\(t = 1;[^\n]*do\n.*?^done\n", re.DOTALL | re.MULTILINE)
    (loop,) = loops.findall(text_of("run_loop.sh"))
    assert loop in fences("README.md", "bash")


# Variables, optimisers, messages, defects


def test_the_table_of_variables_is_the_drivers():
    """Each has a row of its own, in the driver's order, with its default and its allowed values."""
    _, _, text = text_of("docs/variables.md").partition("\n## The run\n")
    rows = [cells for cells in tables(text) if re.fullmatch(r"`[A-Z_0-9]+`", cells[0])]
    assert [cells[0].strip("`") for cells in rows] == list(variables_of_the_driver())
    for name, default, meaning in rows:
        name = name.strip("`")
        expected, kind = variables_of_the_driver()[name]
        assert default == expected, name
        assert meaning, name
        if kind and kind[0] not in ("whole", "count", "number", "numbers", "real"):
            values = kind[1:] if kind[0] == "some" else kind
            for value in values:
                word = rf"(?<!\w){re.escape(value)}(?!\w)"
                assert re.search(word, f"{default} {meaning}"), f"{name}: {value}"


def test_variables_that_pages_name_are_the_drivers():
    """In the form NAME=value, in the text as well as in commands."""
    others = {"RECIPE", "REQUIREMENTS", "OPENAI_BASE_URL", "JOBS", "SEEDS"}
    others.add("VLLM_CPU_KVCACHE_SPACE")
    for page in PAGES:
        # That page has the earlier names, too.
        if page == "docs/variables.md":
            continue
        text = re.sub(r"^```python\n.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
        names = set(re.findall(r"(?<![\w$])([A-Z][A-Z_0-9]{2,})=", text)) - {"NAME"}
        assert names <= variables_of_the_driver().keys() | others, page


def test_the_table_of_optimisers_is_the_drivers():
    rows = {cells[0].strip("`"): " ".join(cells) for cells in tables(text_of("docs/comparison.md"))}
    for file in ROOT.glob("driver/optimisers/*.sh"):
        row = rows[file.stem]
        text = file.read_text()
        ignored = " ".join(re.findall(r"^ignores (.*)", text, re.MULTILINE)).split()
        defaults = re.findall(r"^ *default ([A-Z_]+) ", text, re.MULTILINE)
        for name in [*ignored, *defaults]:
            if name != "PROMPTS_PER_ITERATION" or name in ignored:
                assert name in row, f"{file.stem}: {name}"


def test_the_messages_on_the_page_of_troubles_are_the_scripts():
    """The tables quote what a script says, but for messages that come from elsewhere."""
    elsewhere = (
        "No space left on device",
        "operator torchvision::nms does not exist",
        "available KV cache memory",
    )
    messages = re.findall(r"^\| `([^`]+)`", text_of("docs/troubleshooting.md"), re.MULTILINE)
    assert len(messages) > 30
    for message in messages:
        if message not in elsewhere:
            parts = [part.strip() for part in re.split(r"FILE:|\d+|: |\.\.\.", message)]
            assert all(part in SOURCES for part in parts), message


@pytest.mark.parametrize("flags", [[], ["--sizes"]])
def test_the_tables_of_memory_and_hours_are_what_the_budget_prints(flags):
    printed = ran("preflight/budget.py", *flags).stdout
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(lines) > 10
    assert "\n".join(lines) in text_of("docs/scale.md")


@pytest.mark.parametrize("page", [*PAGES, "RESULTS.md"])
def test_the_rows_of_a_table_have_as_many_cells_as_its_head(page):
    """GitHub cuts a row at its head's width; a bar in a cell, also in code, begins a new cell."""
    for table in re.findall(r"(?:^\|.*\n)+", text_of(page), re.MULTILINE):
        head, rule, *rows = table.splitlines()
        assert re.fullmatch(r"[|\- :]+", rule), head
        assert {row.count("|") for row in [rule, *rows]} == {head.count("|")}, head


def test_every_defect_that_a_test_speaks_of_is_explained():
    explained = {cells[0] for cells in tables(text_of("docs/differences.md"))}
    for file in ROOT.glob("tests/test_*.py"):
        for number in re.findall(r"\b[Dd]efect (\d+)", file.read_text()):
            assert number in explained, f"{file.name}: {number}"


# The examples of docs/your_own_idea.md


@pytest.fixture
def ideas(tmp_path):
    """The files that the page shows."""
    file = re.compile(r"`(my_\w+\.(?:py|sh))`:\n\n```\w+\n(.*?)^```", re.DOTALL | re.MULTILINE)
    files = file.findall(text_of("docs/your_own_idea.md"))
    for name, code in files:
        assert len(code.splitlines()) <= 30
        (tmp_path / name).write_text(code)
    assert len(files) == 4
    return tmp_path


def test_the_examples_make_rows(ideas):
    prompt = [{"role": "user", "content": "?"}]
    texts = ["Long enough.", "So.", "A", "Nobody reads what is cut o"]
    row = {
        "id": "a",
        "prompt": prompt,
        "responses": texts,
        "finish_reasons": ["stop", "stop", "stop", "length"],
        "temperatures": [1.0] * 4,
        "policy": "p",
    }
    write_jsonl(ideas / "responses.jsonl", [row, row | {"id": "b", "responses": ["Same."] * 4}])

    def start(*command):
        subprocess.run([sys.executable, *map(str, command)], cwd=ideas, check=True)

    start("my_scorer.py", "--responses_file", "responses.jsonl", "--output_file", "rewards.jsonl")
    start("my_pairing.py", "--rewards_file", "rewards.jsonl", "--output_file", "pairs.jsonl")
    rewards = read_jsonl(ideas / "rewards.jsonl")
    assert rewards[0]["rewards"] == pytest.approx([0.88, 0.97, -0.01, -0.26])
    (pair,) = read_jsonl(ideas / "pairs.jsonl")
    assert pair["id"] == "a"
    assert pair["prompt"] == prompt
    assert pair["chosen"][0]["content"] == "So."
    assert pair["rejected"][0]["content"] == "Long enough."
    flags = ["--rewards_file", ideas / "rewards.jsonl", "--output_file", ideas / "others.jsonl"]
    ran("annotation/2_pairs.py", *flags)
    polite = row | {"verifier": "my_manners", "responses": ["Please.", "No.", "Now!", ""]}
    file = write_jsonl(ideas / "polite.jsonl", [polite])
    flags = ["--verifier", f"my_manners={ideas}/my_manners.py", "--responses_file", file]
    ran("annotation/1d_verifier.py", *flags, "--output_file", ideas / "verified.jsonl")
    assert read_jsonl(ideas / "verified.jsonl")[0]["rewards"] == [1, 0, 0, 0]


def test_the_driver_takes_the_examples(ideas):
    printed = dry_run(
        OUT="runs/my_ideas",
        ANNOTATOR=f"{ideas}/my_scorer.py verifier",
        VERIFIERS=f"my_manners={ideas}/my_manners.py",
        PAIRING=f"{ideas}/my_pairing.py",
        OPTIMISER=f"{ideas}/my_schedule.sh",
    )
    assert printed.count("my_scorer.py --responses_file") == 3
    assert printed.count("my_pairing.py --rewards_file") == 3
    betas = []
    for _, script, words in commands(printed):
        if script == "dpo/1_dpo.py":
            # Of two equal flags the last counts.
            flags = dict(itertools.pairwise(words))
            betas.append(flags["--beta"])
    assert betas == ["0.3", "0.15", "0.075"]
    variables = {"OPTIMISER": f"{ideas}/my_schedule.sh", "ITERATIONS": "1"}
    refused = record_dry_runs.dry_run(fresh_checkout(), **variables)
    assert refused.returncode == 1 and "one round has no schedule" in refused.stderr


# --help


@pytest.mark.parametrize("script", ARGPARSE)
def test_help_is_answered_before_anything_heavy_is_imported(script):
    done = ran("-X", "importtime", script, "--help")
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert {"argparse", "common"} <= imported
    heavy = "torch transformers vllm datasets trl numpy pandas matplotlib accelerate"
    assert not imported & set(heavy.split())
    assert docstring(script).splitlines()[0] in done.stdout
