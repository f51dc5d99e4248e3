"""Every write goes through ean_core.common.writing, which follows no links; any other is found here."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("ean_core", "zoo", "tasks", "benchmarks", "configs")
HELPER = "ean_core/common/writing.py"
#: Yield a temporary file, which a library or ``open`` may write to.
YIELD = {"replacing", "temporary"}
#: Methods and functions that write to a path, whichever object they belong to.
WRITERS = {
    *("write_text", "write_bytes", "touch", "symlink_to", "hardlink_to", "link_to", "truncate", "dump"),
    *("save", "savez", "savez_compressed", "savetxt", "savefig", "tofile", "to_csv", "to_json", "save_file", "imwrite"),
    *("copy", "copy2", "copyfile", "copytree", "copyfileobj", "move", "link", "symlink", "mkstemp", "extractall"),
    *("urlretrieve", "unpack_archive", "make_archive", "write_image", "write_video", "imsave"),
}
#: Classes and functions that open a file for writing, and those that do so if their mode says it.
OPENERS = {"VideoWriter", "FileHandler", "RotatingFileHandler", "FileLock", "SoftFileLock", "SummaryWriter", "memmap"}
BY_MODE = {"open", "fdopen", "File", "ZipFile", "TarFile", "GzipFile", "TextIOWrapper", "FileIO"}
#: Writers that are also names of harmless methods: functions of these modules only.
OF_MODULES = {"copy": ("shutil",), "move": ("shutil",), "link": ("os",), "symlink": ("os",), "copyfileobj": ("shutil",)}
#: Calls that are no write through a link, and why.
ALLOWED = {
    ("ean_core/search/ledger.py", "self._file.truncate"): "an open file",
    ("ean_core/search/scores.py", "file.truncate"): "an open file",
    ("ean_core/search/bench.py", "times.save"): "BlockTimes.save, which writes a record",
    ("ean_core/commands/compare.py", "bench.plain.block_times(images).save"): "BlockTimes.save, which writes a record",
    ("ean_core/runs/curves.py", "SummaryWriter"): "TensorBoard names its files by time, host and process",
    ("tasks/crowd_counting/prepared_file.py", "h5py.File"): "in memory",
    ("tasks/crowd_counting/video.py", "cv2.VideoWriter"): "to the temporary file that it is given",
    ("tasks/crowd_counting/kept.py", "path.open"): "exclusively, in a new folder under a random name",
    ("tasks/crowd_counting/kept.py", "shutil.copyfileobj"): "to that file",
    ("tasks/crowd_counting/kept.py", "os.open"): "to read",
    ("tasks/crowd_counting/webpage.py", "counted.draw().save"): "in memory",
    ("benchmarks/faults.py", "tally.touch"): "in a new temporary folder",
}


def writes(text):
    """Yield line and function of each call that writes to a file other than the helper's temporary ones."""
    tree = ast.parse(text)
    for function, call in calls(tree, tree):
        if is_write(call) and not is_temporary(call, temporaries(function)):
            yield call.lineno, ast.unparse(call.func)


def calls(node, function):
    """Yield the calls below a node, each with the function around it."""
    for child in ast.iter_child_nodes(node):
        inner = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
        if isinstance(child, ast.Call):
            yield function, child
        yield from calls(child, child if inner else function)


def name_of(function):
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def is_write(call):
    name = name_of(call.func)
    if name in BY_MODE:
        given = [*call.args[:2], *(word.value for word in call.keywords if word.arg == "mode")]
        if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) in ("os", "io"):
            return True
        if isinstance(call.func, ast.Name) and len(call.args) > 1 and not constants(call.args[1]):
            return True  # a mode that is not written out
        modes = [text for each in given for text in constants(each) if set(text) <= set("rwaxbtU+")]
        return any(set(text) & set("wax+") for text in modes)
    if name in OF_MODULES:
        return isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) in OF_MODULES[name]
    return name in OPENERS or (isinstance(call.func, ast.Attribute) and name in WRITERS)


def constants(node):
    return [each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)]


def temporaries(function):
    """The names of temporary files in a function."""
    for node in ast.walk(function):
        if isinstance(node, ast.withitem) and yields(node.context_expr) and isinstance(node.optional_vars, ast.Name):
            yield node.optional_vars.id
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and any(map(yields, node.value.args)):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def yields(node):
    return isinstance(node, ast.Call) and name_of(node.func) in YIELD


def is_temporary(call, names):
    """Whether what a call writes to is a temporary file: as its object, or the argument that the file is."""
    copies = name_of(call.func).startswith("copy")
    given = call.args[1:2] if copies else [getattr(call.func, "value", None), *call.args[:2]]
    forms = {form for name in names for form in (name, f"str({name})")}
    return any(ast.unparse(each) in forms for each in given if each)


def found(root):
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            if name != HELPER:
                yield from ((name, *write) for write in writes(path.read_text(encoding="utf-8")))


def test_every_write_goes_through_the_helper():
    others = [f"{name}:{line}: {call}" for name, line, call in found(ROOT) if (name, call) not in ALLOWED]
    assert others == [], "use ean_core.common.writing"


def test_no_allowance_is_left_over():
    assert {(name, call) for name, _, call in found(ROOT)} == set(ALLOWED)


@pytest.mark.parametrize(
    "line",
    [
        "open(path, 'w')",
        "open(path, mode='a+')",
        "open(path, mode)",
        "path.open('x', encoding='utf-8')",
        "part.open('ab' if have else 'wb')",
        "gzip.open(path, 'wt')",
        "io.open(path, 'w')",
        "os.open(path, flags)",
        "os.truncate(path, 3)",
        "path.write_text(text)",
        "(folder / 'a').write_bytes(b'')",
        "path.touch()",
        "shutil.copy(path, other)",
        "shutil.copyfile(path, other)",
        "shutil.move(path, other)",
        "np.savez(path, a=1)",
        "np.save(path, array)",
        "torch.save(state, path)",
        "image.save(path)",
        "figure.savefig(path)",
        "cv2.imwrite(str(path), image)",
        "cv2.VideoWriter(str(path), code, fps, size)",
        "h5py.File(path, 'w')",
        "config.dump(path)",
        "FileLock(path)",
        "logging.FileHandler(path)",
        "with replacing(path) as partial:\n    other.write_text(text)",
        "with replacing(path) as partial:\n    shutil.copyfile(partial, other)",
        "with opened(path) as partial:\n    partial.write_text(text)",
        "def one():\n    with replacing(path) as partial: pass\ndef other():\n    partial.write_text(text)",
    ],
)
def test_a_write_is_found(tmp_path, line):
    path = tmp_path / "tasks/new.py"
    path.parent.mkdir()
    path.write_text(line)
    assert [name for name, _, _ in found(tmp_path)] == ["tasks/new.py"]


@pytest.mark.parametrize(
    "line",
    [
        "open(path)",
        "path.open('rb')",
        "Image.open(path, formats=('PNG',))",
        "webbrowser.open(url)",
        "write_text(path, text)",
        "copy.copy(config)",
        "values.copy()",
        "json.dumps(record)",
        "h5py.File(path, 'r')",
        "with replacing(path) as partial:\n    partial.write_text(text)",
        "with replacing(path) as partial, partial.open('w') as file: pass",
        "with replacing(path) as partial:\n    torch.save(state, partial)",
        "with replacing(path) as partial:\n    shutil.copyfile(path, partial)",
        "with temporary(path) as partial:\n    figure.savefig(str(partial), format='svg')",
        "partial = stack.enter_context(replacing(path))\ncv2.VideoWriter(str(partial), code, fps, size)",
    ],
)
def test_what_does_not_write_is_not_found(line):
    assert list(writes(line)) == []
