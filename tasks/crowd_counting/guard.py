"""Guard of the web page: all that reaches Gradio goes through here.

Security: the page trusts whoever runs the command, and nobody else. Of a request it trusts the visitor's cookie only,
a random value that scripts and other sites cannot read; it expects the network between the two to be trusted, as HTTP
is not encrypted. Gradio's modules are imported late, because Gradio is optional. The guard answers

- only to the names and addresses of the server, against DNS rebinding (421);
- only to its own page, not to those of other sites or other ports of this machine (403);
- only at the routes that the page uses (404), uploads and files itself, so that Gradio opens, copies and fetches none;
- only for the visitor's own files and sessions (403): a session's name is completed by the visitor's.

It counts what is sent while it is received (413), see :mod:`.kept` for what is kept.
"""

from __future__ import annotations

import asyncio
import html
import ipaddress
import json
import mimetypes
import re
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlencode

from .kept import GONE, Kept, KeptFiles, open_regular

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

API = "/gradio_api"
UPLOAD, FILE, HEARTBEAT = f"{API}/upload", f"{API}/file=", f"{API}/heartbeat/"
#: Routes that the page reads, and beginnings of such routes.
READ = frozenset(
    {"/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", f"{API}/app_id"}
    | {f"{API}/startup-events", f"{API}/queue/data"}
)
READ_BELOW = ("/assets/", "/static/", HEARTBEAT)
#: Routes that the page sends JSON to.
SENT = frozenset({f"{API}/run/predict", f"{API}/queue/join", f"{API}/cancel", f"{API}/reset"})
#: Maximum size of a JSON request, and of what surrounds an uploaded file, in bytes.
SMALL = 2**16
#: Maximum duration of an upload, in seconds.
UPLOAD_S = 600
#: Maximum time for which the body of a refused request is received, in seconds.
DISCARD_S = 5
#: Header that names the visitor to the page's functions; it is never taken from outside.
VISITOR = "x-crowd-visitor"
#: Headers that Gradio would believe. Two of them name the server that the page's scripts and files are loaded from.
DROPPED = frozenset({VISITOR.encode(), b"x-forwarded-host", b"x-gradio-server"})
#: Images that a browser may show; others are sent as downloads, since some, such as SVG, can run scripts.
SHOWN = frozenset({"image/avif", "image/bmp", "image/gif", "image/jpeg", "image/png", "image/tiff", "image/webp"})


class RefusedError(Exception):
    """A request is refused with a status and a message."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Names:
    """Names that a server answers to.

    Args:
        names: host names and addresses, in lower case.
        any_address: whether it also answers to any IP address; DNS rebinding needs a name.
    """

    names: frozenset[str]
    any_address: bool = False

    @classmethod
    def of(cls, host: str, address: str) -> Names:
        """Return the names of a server that listens on a host with this address."""
        number = ipaddress.ip_address(address)
        names = {host.strip("[]").lower(), str(number)}
        if number.is_loopback or number.is_unspecified:
            names |= {"localhost", "127.0.0.1", "::1"}
        if not number.is_loopback:
            machine = socket.gethostname().lower()
            names |= {machine, f"{machine}.local"}
        return cls(frozenset(names), number.is_unspecified)

    def __contains__(self, header: object) -> bool:
        """Whether a ``Host`` header has one of the names; the port may be that of a tunnel."""
        found = re.fullmatch(r"(\[[0-9a-f:.]+\]|[\w.-]+?)(:\d+)?", str(header).lower(), re.ASCII)
        if found is None:
            return False
        name = found[1].strip("[]")
        try:
            number = ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return self.any_address or str(number) in self.names


class Guard:
    """ASGI middleware around Gradio's application.

    Args:
        app: Gradio's application.
        names: names that the server answers to.
        files: files of the visitors.
        upload_bytes: maximum size of an upload.
    """

    def __init__(self, app: ASGIApp, names: Names, files: KeptFiles, upload_bytes: int) -> None:
        self.app = app
        self.names = names
        self.files = files
        self.upload_bytes = upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on to the application."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._guard(scope, receive, send)
        else:  # the page uses no websockets; closing one refuses it
            await send({"type": "websocket.close"})

    async def _guard(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.requests import Request

        body = _Body(receive)
        request = Request(scope, body)
        try:
            self._check_site(request)
            visitor, send = _identify(request, send)
            response = await self._answer(request, visitor)
            if response is None:
                scope, receive = await self._prepare(request, visitor)
        except RefusedError as refusal:
            await body.discard(self.upload_bytes)
            response = _refusal(request, refusal)
        await (response or self.app)(scope, receive, send)

    def _check_site(self, request: Request) -> None:
        """Refuse requests to other names, and those made by other sites' pages.

        Raises:
            RefusedError: with the reason.
        """
        headers = request.headers
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0] not in self.names:
            raise RefusedError(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"this page does not answer to the name {', '.join(hosts)!r}; use its address, or start it with "
                "--host and this name",
            )
        origin = headers.get("origin", f"http://{hosts[0]}").lower()
        foreign = origin not in (f"http://{hosts[0].lower()}", f"https://{hosts[0].lower()}")  # also "null"
        # Links from elsewhere may lead to the page. A server at another port of this machine is on the same "site".
        linked = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        linked = linked and request.method == "GET" and request.scope["path"] == "/"
        if foreign or (headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not linked):
            raise RefusedError(HTTPStatus.FORBIDDEN, "other sites may not use this page")

    async def _answer(self, request: Request, visitor: str) -> Response | None:
        """Answer requests for uploads and files, and return None for those that the application answers.

        Raises:
            RefusedError: with the reason.
        """
        path, method = request.scope["path"], request.method
        if method == "POST" and path == UPLOAD:
            return await self._receive_upload(request, visitor)
        if method == "POST" and path in SENT:
            return None
        if method in ("GET", "HEAD"):
            if path.startswith(FILE):
                return self._send_file(path.removeprefix(FILE), visitor)
            if path in READ or path.startswith(READ_BELOW):
                return None
        raise RefusedError(HTTPStatus.NOT_FOUND, "there is no such page")

    async def _prepare(self, request: Request, visitor: str) -> tuple[Scope, Receive]:
        """Return a request for the application, with what the visitor may send only.

        Raises:
            RefusedError: with the reason.
        """
        scope, receive = dict(request.scope), request.receive
        headers = [(name, value) for name, value in scope["headers"] if name not in DROPPED]
        if request.method == "POST":
            body = await self._read_json(request, visitor)
            headers = [(name, value) for name, value in headers if name != b"content-length"]
            headers.append((b"content-length", str(len(body)).encode()))
            receive = _replay(body, receive)
        if scope["path"].startswith(HEARTBEAT):
            scope["path"] = HEARTBEAT + _own_session(scope["path"].removeprefix(HEARTBEAT), visitor)
        # Gradio reads further parameters, such as names of stored pages; those of the address bar are for scripts.
        session = request.query_params.get("session_hash")
        scope["query_string"] = (
            b"" if session is None else urlencode({"session_hash": _own_session(session, visitor)}).encode()
        )
        scope["headers"] = [*headers, (VISITOR.encode(), visitor.encode())]
        return scope, receive

    async def _read_json(self, request: Request, visitor: str) -> bytes:
        body = b""
        async for chunk in _stream(request):
            body += chunk
            if len(body) > SMALL:
                raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request has at most {SMALL} bytes")
        try:
            sent = json.loads(body)
            if not isinstance(sent, dict):
                raise ValueError("not an object")
            sent = self._check_files(sent, visitor)
        except (ValueError, RecursionError):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "this is not a request of the page") from None
        if isinstance(sent.get("session_hash"), str):
            sent["session_hash"] = _own_session(sent["session_hash"], visitor)
        return json.dumps(sent).encode()

    def _check_files(self, value: Any, visitor: str) -> Any:
        """Reduce references to files to their paths: Gradio opens, copies or fetches only what is marked as a file.

        Raises:
            RefusedError: if one is not the visitor's.
        """
        if isinstance(value, list):
            return [self._check_files(one, visitor) for one in value]
        if not isinstance(value, dict):
            return value
        if value.keys() & {"path", "url", "meta"}:
            path = value.get("path")
            if not self.files.readable(path, visitor):
                raise RefusedError(HTTPStatus.FORBIDDEN, GONE)
            return {"path": path}
        return {name: self._check_files(one, visitor) for name, one in value.items()}

    def _send_file(self, path: str, visitor: str) -> Response:
        from starlette.responses import StreamingResponse

        if not self.files.readable(path, visitor):
            raise RefusedError(HTTPStatus.FORBIDDEN, GONE)
        try:
            file = open_regular(path)
        except FileNotFoundError:
            raise RefusedError(HTTPStatus.FORBIDDEN, GONE) from None
        kind = mimetypes.guess_type(path)[0]
        headers = {"Cache-Control": "private", "X-Content-Type-Options": "nosniff"}
        if kind not in SHOWN:
            kind, headers["Content-Disposition"] = "application/octet-stream", "attachment"
        return StreamingResponse(_blocks(file), headers=headers, media_type=kind)

    async def _receive_upload(self, request: Request, visitor: str) -> Response:
        from anyio import move_on_after, to_thread
        from python_multipart.exceptions import FormParserError
        from starlette.datastructures import UploadFile
        from starlette.exceptions import HTTPException
        from starlette.formparsers import MultiPartException
        from starlette.requests import ClientDisconnect, Request
        from starlette.responses import JSONResponse

        address = request.client.host if request.client else ""
        with move_on_after(UPLOAD_S) as limited:
            stop = partial(asyncio.get_running_loop().call_soon_threadsafe, limited.cancel)
            kept = self.files.begin(visitor, address, stop)
            path = None
            try:
                counted = Request(request.scope, self._count(kept, request.receive))
                # Starlette spools it into a file without a name, which is gone when the request ends, however it ends.
                async with counted.form(max_files=1, max_fields=0) as form:
                    sent = form.get("files")
                    if not isinstance(sent, UploadFile):
                        raise RefusedError(HTTPStatus.BAD_REQUEST, "this is not a file upload")
                    if (sent.size or 0) > self.upload_bytes:
                        raise self._too_large()
                    path = await to_thread.run_sync(self.files.finish, kept, sent.filename or "", sent.file)
                return JSONResponse([str(path)])
            except (FormParserError, MultiPartException, HTTPException, ClientDisconnect):
                raise RefusedError(HTTPStatus.BAD_REQUEST, "this is not a file upload") from None
            except OSError:
                pass  # removed to make room, or the disk is full
            finally:
                if path is None:
                    self.files.remove(kept)
        raise RefusedError(
            HTTPStatus.SERVICE_UNAVAILABLE, "the upload took too long, or others needed its space; please try again"
        )

    def _count(self, kept: Kept, receive: Receive) -> Receive:
        """Count an upload while it is received."""

        async def counted() -> Message:
            message = await receive()
            self.files.grow(kept, len(message.get("body", b"")))
            if kept.size > self.upload_bytes + SMALL:
                raise self._too_large()
            return message

        return counted

    def _too_large(self) -> RefusedError:
        return RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"an upload has at most {self.upload_bytes / 2**20:g} MB"
        )


class _Body:
    """The body of a request, which can be discarded: clients that still send it would not see the answer."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._more = True

    async def __call__(self) -> Message:
        message = await self._receive()
        self._more = message.get("more_body", False)
        return message

    async def discard(self, size: int) -> None:
        from anyio import move_on_after

        with move_on_after(DISCARD_S):
            while self._more and size > 0:
                size -= len((await self()).get("body", b""))


def _identify(request: Request, send: Send) -> tuple[str, Send]:
    """Return the visitor of a request, and how to answer: a new one gets a cookie."""
    server = request.scope.get("server") or ("", 0)
    cookie = f"crowd_counter_{server[1]}"  # browsers send cookies to all ports of a host
    visitor = request.cookies.get(cookie, "")
    if re.fullmatch(r"[\w-]{43}", visitor, re.ASCII):
        return visitor, send
    visitor = secrets.token_urlsafe(32)

    async def with_cookie(message: Message) -> None:
        if message["type"] == "http.response.start":
            value = f"{cookie}={visitor}; Path=/; HttpOnly; SameSite=Lax"
            message = {**message, "headers": [*message.get("headers", ()), (b"set-cookie", value.encode())]}
        await send(message)

    return visitor, with_cookie


def _own_session(session: str, visitor: str) -> str:
    """Complete a session's name by the visitor's.

    Raises:
        RefusedError: if the page would not make such a name; Gradio keeps the names, however long they are.
    """
    if not re.fullmatch(r"[\w-]{1,64}", session, re.ASCII):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "this is not a session of the page")
    return f"{session}-{visitor}"


async def _stream(request: Request) -> AsyncIterator[bytes]:
    from starlette.requests import ClientDisconnect

    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "the request is incomplete") from None


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while block := file.read(2**16):
            yield block


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives this body first."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed


def _refusal(request: Request, refusal: RefusedError) -> Response:
    from starlette.responses import JSONResponse, PlainTextResponse

    if request.scope["path"] in SENT:  # the page shows the detail, as HTML
        return JSONResponse({"detail": html.escape(str(refusal), quote=False)}, refusal.status)
    return PlainTextResponse(f"{refusal}\n", refusal.status)
