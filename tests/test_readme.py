"""What README, docs, docstrings and the driver say can be run as it stands: scripts, flags, files, variables."""

import ast
import functools
import itertools
import os
import re
import shlex
import subprocess
import sys

import pytest

from commands import ROOT, ran, read_jsonl, run, write_jsonl

PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]
PROGRAMS = sorted(
    str(path.relative_to(ROOT))
    for folder in ROOT.iterdir()
    if folder.is_dir() and not folder.name.startswith(".") and folder.name not in ("runs", "tests")
    for path in folder.rglob("[0-9]*_*.py")
)
SPEED = sorted(f"speed/{path.name}" for path in ROOT.glob("speed/*.py"))
UNDERSTOOD = [*PROGRAMS, *SPEED, "preflight/budget.py"]  # their --help lists their flags
ARGPARSE = [script for script in PROGRAMS if "arguments.Parser" in (ROOT / script).read_text()]
EVERY_ANNOTATOR = "reward_model preference_model armorm llm_judge verifier"
OUTPUTS = ("--output_file", "--output_files", "--output_dir", "--held_out_file")
PLACEHOLDERS = ("my", "FILE", "NAME")  # how names begin that stand for a user's files, or for any
UPSTREAM = {"run_loop2.sh", "gen_data.json", "gen_data.jsonl"}  # files of the published code


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
    """The flags in the list of options that --help prints; its description, the docstring, names flags too."""
    told = run(script, "--help")
    assert told.returncode == 0, told.stderr
    options = told.stdout.partition("\noptions:\n")[2]
    return set(
        re.findall(
            r"--\w+", " ".join(line for line in options.splitlines() if re.match(r"  -", line))
        )
    )


@functools.cache
def dry_run(**variables):
    """The commands of the default recipe with those variables."""
    own = [name for name in os.environ if name not in variables_of_the_driver()]
    environment = (
        {name: os.environ[name] for name in own}
        | {"DRY_RUN": "yes", "CHECK": "no", "GPUS": "0"}
        | variables
    )
    command = ["bash", "run_loop.sh"]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout


def all_annotators():
    return dry_run(ITERATIONS="2", ANNOTATOR=EVERY_ANNOTATOR)


@functools.cache
def variables_of_the_driver():
    """{name: (default, kind)} of every `setting` line of driver/variables.sh, outside a job of Slurm."""
    show = 'for n in "${SETTINGS[@]}"; do printf "%s\\t%s\\t%s\\n" "$n" "${default_of[$n]}" "${kind_of[$n]}"; done'
    command = [
        "env",
        "-u",
        "SLURM_JOB_NUM_NODES",
        "bash",
        "-c",
        f"source driver/variables.sh; {show}",
    ]
    lines = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    found = {
        name: (default, kind.split())
        for name, default, kind in (line.split("\t") for line in lines)
    }
    assert list(found) == re.findall(
        r"^setting ([A-Z_0-9]+) ", text_of("driver/variables.sh"), re.MULTILINE
    )
    return found


def fences(page, language=r"\w*"):
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)


def shell_of(page):
    """What a page gives to copy: the shell's fences, in RESULTS.md the indented lines."""
    if page == "RESULTS.md":
        return "\n".join(re.findall(r"^    .*", text_of(page), re.MULTILINE))
    return "\n".join(fences(page, "bash"))


def docstring(script):
    return ast.get_docstring(ast.parse(text_of(script)), clean=False)


ASSIGNMENT = r"""\w+=("[^"]*"|'[^']*'|\S*)"""


def commands(text):
    """({variable: value}, script, its words) of every line that starts a script, however it is continued."""
    for line in text.replace("\\\n", " ").splitlines():
        if not re.match(
            rf"\s*({ASSIGNMENT}\s+)*(python|bash|source|sbatch|torchrun|accelerate launch) (?!-m)",
            line,
        ):
            continue
        words = [word for word in shlex.split(line, comments=True) if word != "&"]
        start = next(i for i, word in enumerate(words) if "=" not in word)
        script = next(
            i for i, word in enumerate(words) if re.search(r"\.(py|sh|sbatch)$", word) and i > start
        )
        yield dict(word.split("=", 1) for word in words[:start]), words[script], words[script + 1 :]


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


@pytest.mark.parametrize(
    "source", [*PAGES, "RESULTS.md", "run_loop.sh", "common/shards.py", *PROGRAMS]
)
def test_commands_name_scripts_and_flags_that_exist(source):
    """What can be copied can be run: from a page, the docstring of a script, the driver's dry run."""
    if source.endswith(".md"):
        text = shell_of(source)
    else:
        text = all_annotators() if source == "run_loop.sh" else docstring(source)
    found = list(commands(text))
    assert found or source.startswith("docs/"), "no command"
    for variables, script, words in found:
        assert (ROOT / script).is_file(), script
        given = {word.split("=")[0] for word in words if word.startswith("--")}
        assert given <= (flags_of(script) if script in UNDERSTOOD else set()), script
        if script == "run_loop.sh":
            assert variables.keys() <= variables_of_the_driver().keys()
        elif script.endswith(".sh"):
            assert all(name in text_of(script) for name in variables), script
    if source in PROGRAMS or source == "common/shards.py":
        assert source in [script for _, script, _ in found], (
            "a docstring shows its own script's command"
        )


def plain(path):
    """A path below a run's directory, whatever the run's name and the iteration."""
    return re.sub(r"iter\d+", "iterN", re.sub(r"^runs/\w+/?", "", path))


def outputs_of(script, words):
    """The paths that a command writes."""
    found, flag = [], ""
    for word in words:
        flag = word if word.startswith("--") else flag
        if flag in OUTPUTS and word != flag:
            found.append(word)
    if script.endswith("1_data.py"):
        found += [
            f"{found[0]}/{name}"
            for name in re.findall(r"^    (\w+\.jsonl)", docstring(script), re.MULTILINE)
        ]
    return found


def made_by(text):
    return {path for _, script, words in commands(text) for path in outputs_of(script, words)}


@pytest.mark.parametrize("source", PROGRAMS)
def test_docstrings_read_files_that_are_made(source):
    """Defect 14: one command wrote a .json file, the next read a .jsonl file. Every path is one of the driver's."""
    made = {"settings", "log", "results.json"}
    made |= {"model", "data"}  # what recipes/smollm2/ makes before its run
    made |= {plain(path) for path in made_by(all_annotators())}
    assert {"world/prompts.jsonl", "sft", "iterN/pairs.jsonl", "eval/iterN/kl.jsonl", ""} <= made
    for _, script, words in commands(docstring(source)):
        paths = {plain(word) for word in words if word.startswith("runs/")}
        assert paths <= made, script


def directory_of(variables):
    """The directory that run_loop.sh writes with those variables."""
    recipe = variables.get("RECIPE", "recipes/tiny.sh").split()[0]
    return variables.get("OUT", f"runs/{os.path.basename(recipe).removesuffix('.sh')}")


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_read_what_is_there_by_then(page):
    """What `bash run_loop.sh` has made, or an earlier command of the page; defect 14 as well."""
    there = made_by(dry_run()) | {"runs/tiny/settings", "runs/tiny/log", "runs/tiny/results.json"}
    folders = set()  # below which anything may be there
    for variables, script, words in commands(shell_of(page)):
        written = outputs_of(script, words)
        paths = [path for path in words if path.startswith("runs/")]
        if script == "common/shards.py":  # joins NAME.0-of-2 and so on
            written = paths[1:2]
        values = " ".join(variables.values()).split()
        for path in [*paths, *(value for value in values if value.startswith("runs/"))]:
            known = path in there or path in written or path == variables.get("OUT")
            assert known or any(path.startswith(f"{folder}/") for folder in folders), (
                f"{script}: {path}"
            )
        there |= set(written)
        folders |= {path for path in written if not os.path.splitext(path)[1]}
        if script == "run_loop.sh" and "DRY_RUN" not in variables:
            folders |= {directory_of(variables)} - {"runs/tiny"}


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_leave_the_default_run_as_it_is(page):
    """Copied one after the other they overwrite nothing below runs/tiny, and leave no variable behind."""
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
    """A run refuses other settings than those that it was made with."""
    found = {}
    for page in PAGES:
        for variables, script, _ in commands(shell_of(page)):
            if script == "run_loop.sh":
                settings = {
                    name: value
                    for name, value in variables.items()
                    if name not in ("FROM", "TO", "DRY_RUN")
                }
                assert found.setdefault(directory_of(variables), settings) == settings, page
    assert len(found) > 5


@pytest.mark.parametrize("page", PAGES)
def test_a_judge_is_started_before_it_is_asked(page):
    started = False
    for line in shell_of(page).replace("\\\n", " ").splitlines():
        started = started or "4_judge.py" in line or "vllm.entrypoints.openai.api_server" in line
        assert started or "--judge_url" not in line, line


def test_recipes_on_the_pages_have_known_variables():
    found = {}
    for page in PAGES:
        for file, text in re.findall(
            r"^cat > (\S+) <<'EOF'\n(.*?)^EOF$", shell_of(page), re.DOTALL | re.MULTILINE
        ):
            names = re.findall(r"^([A-Z_0-9]+)=", text, re.MULTILINE)
            assert names and set(names) <= variables_of_the_driver().keys()
            assert found.setdefault(file, text) == text, "one name, one recipe"
    assert "recipes/my.sh" in found


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
    """A script by its path, or by its name alone; a data file is one that some script speaks of; a user's is my...."""
    text = re.sub(r"\[[^\]]*\]\(([^)]*)\)", r"\1", text_of(page))  # of a link its target
    for path in set(
        re.findall(r"[\w./*?-]+\.(?:py|sh|md|txt|toml|yaml|cff|html|jsonl|json)\b", text)
    ):
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
    (loop,) = re.findall(
        r"^for \(\(t = 1;[^\n]*do\n.*?^done\n", text_of("run_loop.sh"), re.DOTALL | re.MULTILINE
    )
    assert loop in fences("README.md", "bash")


# Variables, optimisers, messages, defects


def test_the_table_of_variables_is_the_drivers():
    """Each has a row of its own, in this order, with its default and all values that it may have."""
    rows = [cells for cells in tables(text_of("docs/variables.md").partition("\n## The run\n")[2])]
    rows = [cells for cells in rows if re.fullmatch(r"`[A-Z_0-9]+`", cells[0])]
    assert [cells[0].strip("`") for cells in rows] == list(variables_of_the_driver())
    for name, default, meaning in rows:
        name = name.strip("`")
        expected, kind = variables_of_the_driver()[name]
        assert default == expected, name
        assert meaning, name
        if kind and kind[0] not in ("whole", "count", "number", "numbers", "real"):
            for value in kind[kind[0] == "some" :]:
                assert re.search(rf"(?<!\w){re.escape(value)}(?!\w)", f"{default} {meaning}"), (
                    f"{name}: {value}"
                )


def test_variables_that_pages_name_are_the_drivers():
    """In the form NAME=value, in the text as well as in commands."""
    known = variables_of_the_driver().keys() | {
        "RECIPE",
        "OPENAI_BASE_URL",
        "JOBS",
        "SEEDS",
        "VLLM_CPU_KVCACHE_SPACE",
    }
    for page in PAGES:
        if page == "docs/variables.md":  # it has the earlier names, too
            continue
        text = re.sub(r"^```python\n.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
        named = set(re.findall(r"(?<![\w$])([A-Z][A-Z_0-9]{2,})=", text)) - {"NAME"}
        assert named <= known, page


def test_the_table_of_optimisers_is_the_drivers():
    rows = {cells[0].strip("`"): " ".join(cells) for cells in tables(text_of("docs/comparison.md"))}
    for file in ROOT.glob("driver/optimisers/*.sh"):
        row = rows[file.stem]
        text = file.read_text()
        ignored = [
            name
            for line in re.findall(r"^ignores (.*)", text, re.MULTILINE)
            for name in line.split()
        ]
        defaults = re.findall(r"^ *default ([A-Z_]+) ", text, re.MULTILINE)
        for name in [*ignored, *(name for name in defaults if name != "PROMPTS_PER_ITERATION")]:
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


def test_the_table_of_memory_and_hours_is_what_the_budget_prints():
    lines = [
        line for line in ran("preflight/budget.py").stdout.splitlines() if line.startswith("|")
    ]
    assert len(lines) > 10
    assert "\n".join(lines) in text_of("docs/scale.md")


@pytest.mark.parametrize("page", [*PAGES, "RESULTS.md"])
def test_the_rows_of_a_table_have_as_many_cells_as_its_head(page):
    """GitHub cuts a row at its head's width; a bar in a cell, in code as well, begins a new one."""
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
    text = text_of("docs/your_own_idea.md")
    found = re.findall(
        r"`(my_\w+\.(?:py|sh))`:\n\n```\w+\n(.*?)^```", text, re.DOTALL | re.MULTILINE
    )
    for name, code in found:
        assert len(code.splitlines()) <= 30
        (tmp_path / name).write_text(code)
    assert len(found) == 3
    return tmp_path


def test_the_examples_make_rows(ideas):
    prompt = [{"role": "user", "content": "?"}]
    texts = ["Long enough.", "So.", "A", "Nobody reads what is cut o"]
    row = {
        "id": "a",
        "prompt": prompt,
        "responses": texts,
        "finish_reasons": ["stop", "stop", "stop", "length"],
    }
    row |= {"temperatures": [1.0] * 4, "policy": "p"}
    write_jsonl(ideas / "responses.jsonl", [row, row | {"id": "b", "responses": ["Same."] * 4}])

    def start(*command):
        subprocess.run([sys.executable, *map(str, command)], cwd=ideas, check=True)

    start("my_scorer.py", "--responses_file", "responses.jsonl", "--output_file", "rewards.jsonl")
    start("my_pairing.py", "--rewards_file", "rewards.jsonl", "--output_file", "pairs.jsonl")
    rewards = read_jsonl(ideas / "rewards.jsonl")
    assert rewards[0]["rewards"] == pytest.approx([0.88, 0.97, -0.01, -0.26])
    (pair,) = read_jsonl(ideas / "pairs.jsonl")
    assert pair["id"] == "a" and pair["prompt"] == prompt
    assert [pair[side][0]["content"] for side in ("chosen", "rejected")] == ["So.", "Long enough."]
    ran(
        "annotation/2_pairs.py",
        "--rewards_file",
        ideas / "rewards.jsonl",
        "--output_file",
        ideas / "others.jsonl",
    )


def test_the_driver_takes_the_examples(ideas):
    own = dry_run(
        OUT="runs/my_ideas",
        ANNOTATOR=f"{ideas}/my_scorer.py",
        PAIRING=f"{ideas}/my_pairing.py",
        OPTIMISER=f"{ideas}/my_schedule.sh",
    )
    assert (
        own.count("my_scorer.py --responses_file") == own.count("my_pairing.py --rewards_file") == 3
    )
    trainings = [words for _, script, words in commands(own) if script == "dpo/1_dpo.py"]
    last_beta = [
        [b for a, b in itertools.pairwise(words) if a == "--beta"][-1] for words in trainings
    ]
    assert last_beta == ["0.3", "0.15", "0.075"]
    with pytest.raises(subprocess.CalledProcessError) as error:
        dry_run(OUT="runs/my_ideas", OPTIMISER=f"{ideas}/my_schedule.sh", ITERATIONS="1")
    assert "one round has no schedule" in error.value.stderr


# --help


@pytest.mark.parametrize("script", ARGPARSE)
def test_help_is_answered_before_anything_heavy_is_imported(script):
    told = ran("-X", "importtime", script, "--help")
    imported = {line.split("|")[-1].strip().split(".")[0] for line in told.stderr.splitlines()}
    assert {"argparse", "common"} <= imported
    heavy = "torch transformers vllm datasets trl numpy pandas matplotlib accelerate"
    assert not imported & set(heavy.split())
    assert docstring(script).splitlines()[0] in told.stdout
