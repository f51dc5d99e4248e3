"""Jobs for other processes, which import them by name."""

import ctypes
import os
import random
import shutil
import threading
import time
from contextlib import redirect_stderr, redirect_stdout
from hashlib import sha256
from pathlib import Path

CONTENT = random.Random(0).randbytes(4_000_000)


def run(function, arguments, log):
    """Run a function in a group of its own, with what it prints in a file."""
    os.setsid()
    with open(log, "a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):  # noqa: PTH123
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            function(*arguments)
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code)
            raise


# Of <linux/sched.h> and <sys/mount.h>; the functions of Python that take them begin with version 3.12.
NEW_USERS, NEW_MOUNTS = 0x10000000, 0x00020000
READ_ONLY, REMOUNT, RECURSIVE, PRIVATE = 1, 32, 16384, 1 << 18


def on_disk(place, kept, disk, function, *arguments):
    """Run a function in the root of a disk of its own, as ``unshare -rm`` and ``mount`` would.

    The disk is one of this process alone, which must have no other thread, and is gone with it.

    Args:
        place: an empty folder, where the disk is.
        kept: a folder that is made, with what was on the disk at its end.
        disk: its ``megabytes``; ``files``, names and contents; ``folders``, names; whether it is ``read_only``; and
            ``settings``, changes of the environment.
        function: what is run, with its arguments.
    """
    users = os.geteuid(), os.getegid()
    _system("unshare", NEW_USERS | NEW_MOUNTS)
    Path("/proc/self/setgroups").write_text("deny")
    for name, number in zip(("uid_map", "gid_map"), users, strict=True):
        Path("/proc/self", name).write_text(f"0 {number} 1")
    _system("mount", b"none", b"/", None, RECURSIVE | PRIVATE, None)
    _system("mount", b"none", bytes(place), b"tmpfs", 0, f"size={disk['megabytes']}M".encode())
    os.chdir(place)
    for name in disk["folders"]:
        Path(name).mkdir()
    for name, content in disk["files"].items():
        Path(name).write_bytes(content)
    if disk["read_only"]:
        _system("mount", None, bytes(place), None, REMOUNT | READ_ONLY, None)
    os.environ.update(disk["settings"])
    try:
        function(*arguments)
    finally:
        for thread in threading.enumerate():  # a pool ends with its thread, which the end of this process would stop
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        shutil.copytree(place, kept)


def _system(name, *arguments):
    library = ctypes.CDLL(None, use_errno=True)
    numbers = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]
    if getattr(library, name)(*numbers):
        raise OSError(ctypes.get_errno(), f"{name} of {arguments}: {os.strerror(ctypes.get_errno())}")


def fetch_content(address, path):
    from zoo.download import fetch

    path.parent.mkdir(exist_ok=True)
    fetch(address, path, size=len(CONTENT), sha256=sha256(CONTENT).hexdigest())


def fetch_while_it_fills(served):
    """Fetch a file while another one takes the room, after the download has looked for it."""
    from zoo.download import fetch

    def fill(done):
        with Path("filler").open("ab") as file:
            file.write(b"x" * 500_000)

    content = served.read_bytes()
    digest = sha256(content).hexdigest()
    try:
        fetch(served.as_uri(), Path("a.bin"), size=len(content), sha256=digest, progress=fill)
    except OSError as error:
        print(error)


def write_in_place(folder):
    """A violation that no job of the package commits."""
    shutil.rmtree(folder, ignore_errors=True)
    Path(folder).mkdir()
    with (Path(folder) / "file").open("w") as file:
        for digit in "0123456789":
            file.write(digit)
            file.flush()
            time.sleep(0.05)


def locate_one(name, settings):
    os.environ.update(settings)
    from zoo.files import resolve

    print(resolve(name))
