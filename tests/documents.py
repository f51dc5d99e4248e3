"""The documents that users read, and the commands in them."""

import importlib.util
import itertools
import re
import shlex
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Those that are written by hand. What takes longest to run stands first.
DOCUMENTS = (
    "README.md",
    "tasks/segmentation/README.md",
    "tasks/crowd_counting/README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "zoo/README.md",
    "ean_core/README.md",
    "ean_core/runs/README.md",
    "ean_core/search/README.md",
    "ean_core/inference/README.md",
    "configs/README.md",
    "benchmarks/README.md",
)
#: Parts of others, and what commands of ours write.
OTHERS = ("CHANGELOG.md", "zoo/introduction.md", "zoo/cards", "benchmarks/report", "benchmarks/results")
#: What a command in running text begins with.
PROGRAMS = ("ean", "python", "python3", "make", "pip", "torchrun", "tensorboard", "srun")
#: Registered names, which are no placeholders.
NAMES_IN_CAPITALS = {"SE", "SGE", "DIA"}
OPERATORS = {"&&", "||", ";", "|"}


def text_of(document):
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(document), re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """A line of a bash block, or inline code that begins with a program's name."""

    document: str
    number: int  # of the line in the document
    raw: str  # as it stands
    inline: bool = False

    @property
    def text(self):
        """Without the comment."""
        return " ".join(shlex.quote(word) if word not in OPERATORS | {">"} else word for word in self.words)

    @property
    def words(self):
        lexer = shlex.shlex(self.raw, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        return list(lexer)

    @property
    def simple(self):
        """The words of each command between ``&&`` and the like, without redirections, with braces expanded."""
        parts, skip = [[]], False
        for word in self.words:
            if word in OPERATORS:
                parts.append([])
            elif skip or (set(word) <= set("<>&12") and word[-1] in "<>&"):
                skip = not skip
            elif parts[-1] or not re.fullmatch(r"\w+=.*", word):  # settings stand in front
                parts[-1] += braces(word)
        return [part for part in parts if part]

    @property
    def open(self):
        """Whether it has placeholders, such as ``CONFIG`` or ``...``."""
        found = {name for word in self.words for name in re.findall(r"\b[A-Z][A-Z_]*\b", word)}
        return bool(found - NAMES_IN_CAPITALS) or any(sign in self.raw for sign in ("...", "…"))

    def __str__(self):
        return f"{self.document}:{self.number}: {self.raw}"


class WrongUseError(ValueError):
    """Return Typer's message about missing or wrong arguments."""


def braces(word):
    """Bash's expansion.

    Examples:
        >>> braces('resnet50_{se,dia}_voc2012')
        ['resnet50_se_voc2012', 'resnet50_dia_voc2012']
    """
    parts = re.split(r"\{([^{}]*,[^{}]*)\}", word)
    choices = [part.split(",") if n % 2 else [part] for n, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


@cache
def commands(document):
    """Those of bash blocks in their order, then those in running text."""
    lines, inside, found = text_of(document).splitlines(), None, []
    prose, pending = [], ""
    for number, line in enumerate(lines, 1):
        if line.startswith("```"):
            inside = None if inside is not None else line.removeprefix("```").strip()
            prose.append("")
        elif inside == "bash":
            pending += line
            if pending.endswith("\\"):
                pending = pending[:-1]
                continue
            if pending.strip() and not pending.lstrip().startswith("#"):
                found.append(Command(document, number, pending.strip()))
            pending = ""
        prose.append(line if inside is None and not line.startswith("```") else "")
    text, seen = "\n".join(prose), {command.text for command in found}
    for match in re.finditer(r"(?<!`)`([^`]+)`(?!`)", text):
        raw = " ".join(match[1].split())
        if raw.split(" ")[0].removeprefix(".venv/bin/") not in PROGRAMS:
            continue
        command = Command(document, text.count("\n", 0, match.start()) + 1, raw, inline=True)
        if command.text not in seen:
            seen.add(command.text)
            found.append(command)
    return tuple(found)


ALL = tuple(command for document in DOCUMENTS for command in commands(document))


# ---------------------------------------------------------------- what a command says


def is_complete(command):
    """Whether it can be run as it stands: without placeholders, and with all that it needs. Inline code with only the
    words of a command is its name."""
    if not command.inline:
        return True
    if command.open:
        return False
    return all(not _is_name(words) and _parsed(words) is not None for words in command.simple)


def check(command):
    """Fail where a command, an option, a script, a target, an extra or a packaged name does not exist."""
    for words in command.simple:
        if len(words) == 1:
            continue
        program, *rest = words
        name = Path(program).name
        if name == "ean":
            _check_ean(command, words)
        elif name in ("python", "python3"):
            _check_python(command, rest)
        elif name in ("torchrun", "srun"):
            inner = next((n for n, word in enumerate(rest) if word == "ean" or word.endswith(".py")), None)
            if inner is not None:
                started = rest[inner:] if rest[inner] == "ean" else ["python", *rest[inner:]]
                _check_python(command, started[1:]) if started[0] == "python" else _check_ean(command, started)
        elif name == "make":
            targets = re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
            unknown = [word for word in rest if "=" not in word and word not in targets]
            assert unknown == [], f"{command}: no target {unknown[0]}"
        elif name == "pip":
            project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
            known = re.search(r"^\[project\.optional-dependencies\]\n(.*?)^\[", project, re.DOTALL | re.MULTILINE)[1]
            groups = [extra for word in rest for extra in re.findall(r"^(?:\.|ean-zoo)\[(.*)\]$", word)]
            extras = {extra for group in groups for extra in group.split(",")}
            unknown = sorted(extras - set(re.findall(r"^([\w-]+) = \[", known, re.MULTILINE)))
            assert unknown == [], f"{command}: no extra {unknown[0]}"


def _check_python(command, words):
    if words[:1] == ["-m"]:
        assert _found(words[1]), f"{command}: no module {words[1]}"
        return
    script = ROOT / words[0]
    assert script.is_file(), f"{command}: no script {words[0]}"
    source = script.read_text(encoding="utf-8")
    called = re.search(r"main\(\[(.*?), \*sys\.argv", source)  # one that is a command of ours
    if called:
        _check_ean(command, ["ean", *re.findall(r'"(\w+)"', called[1]), *words[1:]])
    else:
        unknown = [word for word in words[1:] if word.startswith("-") and word not in source]
        assert unknown == [], f"{command}: no option {unknown[0]}"


def _found(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _check_ean(command, words):
    import zoo
    from ean_core.common.config import load_config, packaged_configs

    if command.inline and _is_name(words):
        return
    found = _command(words)
    assert found, f"{command}: no command `{' '.join(words[:3])}`; `ean --help` lists them"
    click_command, arguments = found
    options = {text for parameter in click_command.params for text in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [
        word for word in arguments if word.startswith("--") and word.partition("=")[0] not in {*options, "--help"}
    ]
    assert unknown == [], f"{command}: no option {unknown[0]}"
    values = _parsed(words)
    if values is None:
        assert command.inline or command.open, f"{command} is incomplete: {_problem(words)}"
        return

    def there(value, names):
        is_path = any(sign in value for sign in "/$") or value.endswith((".py", ".pth", ".safetensors"))
        return is_path or value in names or Command("", 0, value).open

    configs, models = packaged_configs(), zoo.list_models("*")
    named = [values.get("config"), *(values.get("networks") or ())]
    for value in filter(None, named):
        assert there(value, configs), f"{command}: no packaged config {value}"
        if value in configs:
            load_config(value, values.get("cfg_options") or ())
    given = [*(values.get("model") if isinstance(values.get("model"), (list, tuple)) else [values.get("model")])]
    given += [values.get("name")] if words[1] == "zoo" else []
    for value in filter(None, given):
        assert there(value, models), f"{command}: no model {value}"
    for value in values.get("names") or ():
        assert there(value, models) or zoo.list_models(value), f"{command}: no model {value}"


def _is_name(words):
    """Whether there is nothing but a program, or the name of a command of ours or of a group of them."""
    from tasks.cli import COMMANDS

    if Path(words[0]).name != "ean":
        return len(words) == 1
    said = " ".join(words[1:])
    return said == "" or any(said == name or name.startswith(f"{said} ") for name, *_ in COMMANDS)


@cache
def _click(target):
    import typer

    module, function = target.split(":")
    app = typer.Typer(add_completion=False)
    app.command()(getattr(import_module(module), function))
    return typer.main.get_command(app)


def _command(words):
    """The command of ours that these words call, and its arguments; None where there is none."""
    from tasks.cli import COMMANDS, _spread_cfg_options

    targets = {name: target for name, _, target in COMMANDS}
    for length in (2, 1):
        name = " ".join(words[1 : 1 + length])
        if name in targets:
            return _click(targets[name]), _spread_cfg_options(words[1 + length :])
    return None


def _parse(words):
    found = _command(words)
    if found is None:
        raise WrongUseError("no such command")
    try:
        with found[0].make_context("ean", list(found[1])) as context:
            return context.params
    except Exception as error:  # click's, or that of the copy that newer versions of Typer have in them
        if not hasattr(error, "format_message"):
            raise
        raise WrongUseError(error.format_message()) from error


def _parsed(words):
    """The arguments of a command of ours by their names, or None where it lacks some; nothing for other programs."""
    if Path(words[0]).name != "ean":
        return {}
    try:
        return _parse(words)
    except WrongUseError:
        return None


def _problem(words):
    try:
        _parse(words)
    except WrongUseError as error:
        return str(error)
    return "nothing"
