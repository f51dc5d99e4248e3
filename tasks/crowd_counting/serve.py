"""``ean crowd serve``: serve the web page of a counter on this machine."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
import time
import webbrowser
from contextlib import suppress

import typer

from .counter import Counter
from .guard import Guard, Names
from .kept import KeptFiles
from .temporary import stop_cleanly, temporary_folder
from .webpage import CSS, Limits, build_page, import_gradio

#: Number of ports to try from the given one on.
PORTS = 100
#: Number of visitors whose last image is kept in memory, each at four bytes per pixel.
VISITORS = 8
#: Visitors' files take as much space as this number of uploads of the maximum size, or this number of bytes.
KEPT_UPLOADS, KEPT_BYTES = 32, 2**26
#: Interval between removals of old files, in seconds.
SWEEP_S = 60


def serve_command(
    model: str,
    host: str,
    port: int,
    max_mb: float,
    max_pixels: float,
    device: str | None,
    open: bool,
) -> None:
    """Do the work of the command; :mod:`tasks.crowd_counting.cli` declares its arguments and options."""
    limits = Limits(max_mb, max_pixels)
    address, local = _resolve(host)
    stop_cleanly()
    with temporary_folder() as temporary:
        # Uploads get a folder of their own, which is deleted when the command ends.
        upload_bytes = round(limits.upload_mb * 2**20)
        files = KeptFiles(temporary / "files", max(KEPT_UPLOADS * upload_bytes, KEPT_BYTES))
        os.environ["GRADIO_TEMP_DIR"] = str(files.folder)
        _bypass_proxies(host, address)
        import_gradio()
        import gradio as gr
        from starlette.middleware import Middleware

        counter = Counter.load(model, device=device)
        page = build_page(counter, limits, files)
        free = free_port(address, port)
        if free != port and port:
            typer.echo(f"port {port} is taken; using {free}", err=True)
        bracketed = f"[{address}]" if ":" in address else address
        page.launch(
            server_name=bracketed,
            server_port=free,
            max_file_size=upload_bytes,  # for the browser; the guard enforces it
            state_session_capacity=VISITORS,
            theme=gr.themes.Base(
                primary_hue="blue",
                neutral_hue="slate",
                font=["system-ui", "sans-serif"],  # the visitor's own; others would be loaded from the internet
                font_mono=["ui-monospace", "monospace"],
            ).set(  # more contrast than Gradio's defaults
                body_text_color_subdued="*neutral_600",
                body_text_color_subdued_dark="*neutral_400",
                button_primary_background_fill="*primary_600",
                button_primary_background_fill_hover="*primary_700",
            ),
            css=CSS,
            footer_links=[],
            share=False,
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            app_kwargs={"middleware": [Middleware(Guard, Names.of(host, address), files, upload_bytes)]},
        )
        try:
            if not local:
                typer.echo(
                    f"warning: {host} can be reached from other machines, and anyone who reaches it can use the page; "
                    "--host 127.0.0.1 restricts it to this machine",
                    err=True,
                )
            everywhere = ipaddress.ip_address(address).is_unspecified
            url = f"http://{'127.0.0.1' if everywhere else bracketed}:{free}"
            typer.echo(f"{counter.name} counts at {url} (Ctrl-C stops it)")
            sys.stdout.flush()
            if open:
                _open_browser(url)
            while True:
                time.sleep(SWEEP_S)
                files.expire()
        except KeyboardInterrupt:
            with suppress(OSError):  # the terminal may be closed
                typer.echo("stopped")
        finally:
            page.close(verbose=False)


def free_port(address: str, port: int) -> int:
    """Find a free port at an address: this one, or the next free one above it; any port for 0.

    Raises:
        OSError: if there is none, or this process may not use it.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    last = min(port + PORTS, 65536)
    for candidate in range(port, last) if port else [0]:
        with socket.socket(family) as probe:
            if os.name == "posix":  # on Windows it would share a port in use
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, candidate))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                hint = "; ports below 1024 are reserved, try --port 7860" if error.errno == errno.EACCES else ""
                raise OSError(f"cannot listen on port {candidate} of {address}: {error.strerror}{hint}") from error
            return int(probe.getsockname()[1])
    raise OSError(f"ports {port} to {last - 1} of {address} are all in use; --port 0 takes any free one")


def _resolve(host: str) -> tuple[str, bool]:
    """Return the numeric address of a host, and whether only this machine can reach it."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ValueError(
            f"--host must be an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all; got {host!r}"
        ) from error
    found.sort(key=lambda one: one[0] != socket.AF_INET)  # localhost may resolve to both families
    address = str(found[0][4][0])
    return address, ipaddress.ip_address(address).is_loopback


def _bypass_proxies(*hosts: str) -> None:
    """Exclude hosts from proxies: Gradio checks its own server by a request, which a proxy could not answer."""
    for name in ("NO_PROXY", "no_proxy"):
        known = os.environ.get(name, "")
        os.environ[name] = ",".join([*filter(None, [known]), "localhost", "127.0.0.1", *hosts])


def _open_browser(url: str) -> None:
    """Open a graphical browser; one in text mode would take over the terminal."""
    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(url)
