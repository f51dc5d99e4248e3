import contextlib
import http.server
import io
import itertools
import json
import os
import re
import socket
import stat
import struct
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import pytest
from PIL import Image

from tasks.crowd_counting.guard import FILE, READ, READ_BELOW, SENT, UPLOAD, Names
from tasks.crowd_counting.kept import GONE
from tasks.crowd_counting.serve import KEPT_BYTES

from .drawn import save_crowd as save
from .served import SECONDS, Server, Visitor, direct, multipart, raw

#: Size of the largest upload, and the marker of files that nobody may get.
MAX_MB, SECRET = 1, b"not for visitors"
#: Uploads beside the attacks, and the sessions that make them.
UPLOADS, SESSIONS = 50, 5


@pytest.fixture(scope="module")
def server(counter_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    server = Server(counter_file, folder, "--port", "0", "--max-mb", MAX_MB, "--max-pixels", 1)
    yield server
    server.stop()


@pytest.fixture
def visitor(server):
    return Visitor(server)


@pytest.fixture(scope="module")
def count_function(server):
    """The function that counts in the image: the one with an image and a number."""
    config = json.loads(Visitor(server).ask("/config")[1])
    kinds = {one["id"]: one["type"] for one in config["components"]}
    return next(one["id"] for one in config["dependencies"] if [kinds[i] for i in one["inputs"]] == ["image", "slider"])


@pytest.fixture(scope="module")
def neighbour():
    """A server on this machine, and the requests that reached it."""
    reached = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            reached.append(self.path)
            self.send_error(404)

        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as neighbour:
        threading.Thread(target=neighbour.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{neighbour.server_port}", reached
        neighbour.shutdown()


@pytest.fixture
def hostile(server, neighbour, tmp_path):
    """Paths that no visitor was given."""
    (kept,) = server.folder.glob("ean-crowd-*/files")
    secret = save(tmp_path / "secret.png")
    notes = tmp_path / "notes.txt"
    notes.write_bytes(SECRET)
    for name, target in (("link.png", secret), ("notes", notes)):
        (kept / name).unlink(missing_ok=True)
        (kept / name).symlink_to(target)
    for fifo in (tmp_path / "fifo.png", kept / "fifo.png"):
        if not fifo.exists():
            os.mkfifo(fifo)
    return [
        str(secret),
        str(notes),
        f"{kept}/../../../{secret.relative_to('/')}",
        f"{kept}/examples/../link.png",
        *(str(kept / name) for name in ("link.png", "notes", "fifo.png", "missing.png", "examples", "")),
        *(str(tmp_path / name) for name in ("fifo.png", "missing.png", "")),
        "/dev/zero",
        "/etc/passwd",
        "../" * 20 + str(secret),
        secret.as_uri(),
        f"{neighbour[0]}/a.png",
        "http://[::1]:1/a.png",
        "a\0b",
        "",
    ]


# ---------------------------------------------------------------- paths


def test_no_function_of_the_page_takes_a_path_that_the_visitor_was_not_given(server, visitor, hostile, neighbour):
    config = json.loads(visitor.ask("/config")[1])
    places = [(one, place) for one in config["dependencies"] for place in range(max(1, len(one["inputs"])))]
    assert len(places) >= len(config["dependencies"]) >= 8
    mark = {"meta": {"_type": "gradio.FileData"}}
    for (function, place), path in itertools.product(places, hostile):
        for sent in (
            {"path": path},
            {"path": path, "url": path, **mark},
            {"url": path},
            [[{"a": {"path": path, **mark}}]],
        ):
            data = [None] * max(1, len(function["inputs"]))
            data[place] = sent
            route = "/gradio_api/queue/join" if function["queue"] is not False else "/gradio_api/run/predict"
            answer = visitor.send(route, {"data": data, "fn_index": function["id"], "session_hash": visitor.session})
            assert (answer[0], json.loads(answer[1])) == (403, {"detail": GONE}), (function["id"], sent)
    event = {"index": [1, 1], "value": {"path": hostile[0], **mark}}
    assert visitor.join(0, [None], event_data=event)[0] == 403
    assert neighbour[1] == []


def test_no_component_takes_a_path_in_another_form(server, visitor, hostile, neighbour):
    config = json.loads(visitor.ask("/config")[1])
    (kept,) = server.folder.glob("ean-crowd-*/files")
    before = list(kept.rglob("*"))
    for function in config["dependencies"]:
        for path in (hostile[0], f"{neighbour[0]}/b.png"):
            data = [path for _ in function["inputs"]] or [path]
            if function["queue"] is False:
                status, answer = visitor.send(
                    "/gradio_api/run/predict",
                    {"data": data, "fn_index": function["id"], "session_hash": visitor.session},
                )
                assert status == 500 or function["inputs"] == [], answer
            else:
                status, answer = visitor.join(function["id"], data)
                assert status == 200
                _, output = visitor.result(json.loads(answer)["event_id"])
                assert "image.jpeg" not in json.dumps(output), output
    assert list(kept.rglob("*")) == before
    assert neighbour[1] == []


def flat(router):
    """All routes; new versions of FastAPI nest them."""
    for route in router.routes:
        inner = getattr(route, "original_router", None)
        yield from [route] if inner is None else flat(inner)


def test_no_route_of_gradio_hands_out_a_file_or_fetches_one(server, visitor, hostile, neighbour):
    gradio = pytest.importorskip("gradio")
    from gradio.routes import App

    with gradio.Blocks() as page:
        gradio.Textbox()
    routes = {(route.path, method) for route in flat(App.create_app(page)) for method in route.methods or ()}
    assert len(routes) > 60
    answered = set()
    for path, method in sorted(routes):
        below = re.sub(r"\{[^}]*:path\}$", "", path)
        for filled in hostile if "{" in path else hostile[:1]:
            target = urllib.parse.quote(re.sub(r"\{[^}]*\}", lambda _, filled=filled: filled, path), safe="/=:")
            status, answer = visitor.ask(target, b"{}" if method == "POST" else None, method=method)
            assert SECRET not in answer
            assert b"\x89PNG" not in answer[:8] or not path.startswith(FILE), target
            allowed = (
                (path == UPLOAD or path in SENT)
                if method == "POST"
                else path in READ or path.startswith((*READ_BELOW, FILE))
            )
            if not allowed:
                assert status == 404, (method, target)
            elif below == FILE:
                assert status == 403, target
            else:
                answered.add(path)
    assert answered >= {"/", "/config", "/gradio_api/queue/join", "/gradio_api/queue/data", "/gradio_api/cancel"}
    assert neighbour[1] == []


def test_files_and_sessions_of_another_visitor_are_out_of_reach(server, visitor, count_function, tmp_path):
    config = json.loads(visitor.ask("/config")[1])
    redraw = next(one for one in config["dependencies"] if "state" in kinds_of(config, one) and len(one["inputs"]) == 2)
    status, answer = visitor.upload(save(tmp_path / "a.png").read_bytes())
    assert status == 200
    (path,) = json.loads(answer)
    success, output = visitor.count(path, count_function)
    assert success
    result = output["data"][1]["path"]
    other, nobody = Visitor(server), Visitor(server)
    nobody.opener = direct()
    for who in (other, nobody):
        assert who.count(path, count_function) == (False, {"detail": GONE})
        assert who.count(result, count_function) == (False, {"detail": GONE})
        for file in (path, result):
            assert who.ask(f"{FILE}{file}") == (403, f"{GONE}\n".encode())
    other.session = visitor.session  # as if it were known
    assert other.result(json.loads(other.join(redraw["id"], [1, None])[1])["event_id"])[1]["data"][1] is None
    for file in (path, result):
        assert visitor.ask(f"{FILE}{file}")[0] == 200
    success, output = visitor.result(json.loads(visitor.join(redraw["id"], [1, None])[1])["event_id"])
    assert success
    assert output["data"][1]["path"] != result


def kinds_of(config, function):
    kinds = {one["id"]: one["type"] for one in config["components"]}
    return [kinds[one] for one in function["inputs"]]


def make_link(path, target):
    path.unlink()
    path.symlink_to(target)


def make_folder_link(path, target):
    path.unlink()
    path.parent.rmdir()
    path.parent.symlink_to(target.parent)


def make_fifo(path, target):
    path.unlink()
    os.mkfifo(path)


def make_folder(path, target):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "exchange", [make_link, make_folder_link, make_fifo, make_folder, lambda path, _: path.unlink()]
)
def test_an_upload_exchanged_on_the_disk_is_gone_and_blocks_nobody(visitor, count_function, tmp_path, exchange):
    content = save(tmp_path / "a.png").read_bytes()
    path = Path(json.loads(visitor.upload(content)[1])[0])
    exchange(path, tmp_path / "a.png")
    success, output = visitor.count(str(path), count_function)
    assert not success
    assert output["error"] == GONE
    assert visitor.ask(f"{FILE}{path}") == (403, f"{GONE}\n".encode())
    assert visitor.count(json.loads(visitor.upload(content)[1])[0], count_function)[0]


def test_an_upload_that_could_run_scripts_is_sent_as_a_download(visitor):
    (path,) = json.loads(visitor.upload(b"<svg/>", "a.svg")[1])
    with visitor.opener.open(f"{visitor.server.url}{FILE}{path}", timeout=SECONDS) as answer:
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"] == "attachment"


@pytest.mark.parametrize("header", ["X-Forwarded-Host", "X-Gradio-Server"])
def test_no_header_tells_the_page_where_its_files_are(visitor, header):
    for path in ("/", "/config"):
        status, answer = visitor.ask(path, None, {header: "http://evil.example"})
        assert status == 200
        assert b"evil.example" not in answer


def test_parameters_that_the_page_does_not_use_do_not_reach_gradio(visitor):
    usual = visitor.ask("/config")
    for query in ("page=a", "deep_link=..", "deep_link=" + "a" * 3000):
        assert visitor.ask(f"/?{query}")[0] == 200
        assert visitor.ask(f"/config?{query}") == usual


@pytest.mark.parametrize("session", ["", "a" * 65, "é", "a/b", "\ud800"])
def test_sessions_have_short_and_simple_names(visitor, session):
    join = {"data": [None], "fn_index": 1, "session_hash": session}
    assert visitor.send("/gradio_api/queue/join", join)[0] == 400
    quoted = urllib.parse.quote(session, errors="surrogatepass")
    assert visitor.ask(f"/gradio_api/queue/data?session_hash={quoted}")[0] == 400
    assert visitor.ask(f"/gradio_api/heartbeat/{quoted}")[0] == 400


def test_an_image_whose_decoder_is_not_bounded_is_not_decoded(visitor, count_function):
    """A million pixels of JPEG 2000 in 98 bytes, each a precinct of its own: decoding them takes 1.6 GB."""
    parts = struct.pack(">HIIIIIIIIH", 0, 1000, 1000, 0, 0, 1000, 1000, 0, 0, 3) + b"\x07\x01\x01" * 3
    parts = [(b"\x51", parts), (b"\x52", b"\x01\0\0\x01\0\0\x04\x04\0\x01\0"), (b"\x5c", b"\x40\x40")]
    head = b"\xff\x4f" + b"".join(b"\xff" + mark + struct.pack(">H", len(part) + 2) + part for mark, part in parts)
    content = head + b"\xff\x90" + struct.pack(">HHIBB", 10, 0, 24, 0, 1) + b"\xff\x93" + b"\x80" * 10 + b"\xff\xd9"
    success, output = visitor.count(json.loads(visitor.upload(content, "a.jp2")[1])[0], count_function)
    assert not success
    assert output["error"].startswith("a.jp2 cannot be read as an image: its format is unknown")


# ---------------------------------------------------------------- names and origins


@pytest.mark.parametrize(
    ("host", "address", "good", "bad"),
    [
        (
            "127.0.0.1",
            "127.0.0.1",
            ["127.0.0.1:7860", "LOCALHOST", "localhost:1", "[::1]:9"],
            ["10.0.0.1", "evil.example"],
        ),
        ("::1", "::1", ["[::1]:7860", "[0:0:0:0:0:0:0:1]", "localhost:7860"], ["[::2]", "::1"]),
        ("crowd.lan", "10.0.0.7", ["crowd.lan:80", "10.0.0.7", socket.gethostname()], ["localhost", "lan", "10.0.0.8"]),
        (
            "0.0.0.0",
            "0.0.0.0",
            ["10.0.0.7:7860", "[fe80::1]:7860", "localhost", socket.gethostname()],
            ["evil.example"],
        ),
    ],
)
def test_a_server_answers_to_its_own_names(host, address, good, bad):
    names = Names.of(host, address)
    assert [one for one in good if one not in names] == []
    never = [
        "",
        "evil.example:7860",
        "localhost.evil.example",
        "a@localhost",
        "localhost/",
        "localhost:x",
        "127.0.0.1 ",
    ]
    assert [one for one in [*bad, *never] if one in names] == []


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "10.1.2.3:{port}"])
def test_requests_to_another_name_are_misdirected(server, host):
    for method, path in (("GET", "/"), ("GET", "/config"), ("POST", UPLOAD), ("POST", "/gradio_api/queue/join")):
        status, answer = raw(server, method, path, [("Host", host.format(port=server.port))])
        assert status == 421
        assert "does not answer to the name 'evil.example'" in answer or host != "evil.example" or path in SENT
    assert raw(server, "GET", "/", [("Host", f"localhost:{server.port}")])[0] == 200
    assert raw(server, "GET", "/", [])[0] in (400, 421)
    assert raw(server, "GET", "/", [("Host", "localhost"), ("Host", "evil.example")])[0] in (400, 421)


def foreign_headers(port):
    """Headers of requests that a browser makes for other pages."""
    for origin in ("null", "http://evil.example", "http://127.0.0.1:1", "http://127.0.0.1", f"http://localhost:{port}"):
        yield {"Origin": origin}
    for site in ("cross-site", "same-site"):
        yield {"Sec-Fetch-Site": site}
        yield {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}


def test_pages_of_other_sites_can_neither_send_nor_read(server, visitor):
    body, kind = multipart(b"hello")
    (path,) = json.loads(visitor.upload(b"hello")[1])
    join = json.dumps({"data": [], "fn_index": 1, "session_hash": "a"}).encode()
    for headers in foreign_headers(server.port):
        for route, data in ((UPLOAD, body), ("/gradio_api/queue/join", join), ("/gradio_api/cancel", b"{}")):
            assert visitor.ask(route, data, {"Content-Type": kind, **headers})[0] == 403, headers
        for route in ("/config", f"{FILE}{path}", "/gradio_api/queue/data?session_hash=a", "/gradio_api/heartbeat/a"):
            assert visitor.ask(route, None, headers)[0] == 403, headers
    own = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
    assert visitor.ask(UPLOAD, body, {"Content-Type": kind, **own})[0] == 200
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert visitor.ask("/", None, link)[0] == 200
    assert visitor.ask("/config", None, link)[0] == 403


def test_a_foreign_page_in_a_browser_uploads_nothing(server, browser, neighbour):
    page = browser.new_page()
    page.goto(neighbour[0])
    neighbour[1].clear()
    before = used(server)
    send = """async url => {
        const form = new FormData();
        form.append("files", new Blob(["hello"]), "a.png");
        const answer = await fetch(url, { method: "POST", body: form, mode: "no-cors", credentials: "include" });
        return answer.type;
    }"""
    for host in ("127.0.0.1", "localhost"):
        assert page.evaluate(send, f"http://{host}:{server.port}{UPLOAD}") == "opaque"
    page.close()
    assert used(server) == before


def test_the_cookie_is_for_the_browser_only(server):
    with direct().open(f"{server.url}/", timeout=SECONDS) as answer:
        cookie = answer.headers["Set-Cookie"]
    assert re.fullmatch(rf"crowd_counter_{server.port}=[\w-]{{43}}; Path=/; HttpOnly; SameSite=Lax", cookie)


# ---------------------------------------------------------------- quotas


def used(server):
    """Bytes and number of files that the server keeps, with the open ones that have no name (on Linux)."""
    found = [path for path in server.folder.glob("ean-crowd-*/files/**/*") if path.is_file() and not path.is_symlink()]
    sizes = [path.stat().st_size for path in found]
    for descriptor in Path(f"/proc/{server.process.pid}/fd").glob("*"):
        with contextlib.suppress(FileNotFoundError):
            state = descriptor.stat()
            if stat.S_ISREG(state.st_mode) and state.st_nlink == 0:
                sizes.append(state.st_size)
    return sum(sizes), len(sizes)


def test_the_oldest_uploads_make_room_for_new_ones(server, visitor):
    paths = []
    for number in range(70):
        status, answer = visitor.upload(bytes(2**20 - 300) + bytes([number]))
        assert status == 200
        paths += json.loads(answer)
        assert used(server)[0] < KEPT_BYTES
    assert visitor.ask(f"{FILE}{paths[0]}")[0] == 403
    assert all(visitor.ask(f"{FILE}{path}")[0] == 200 for path in paths[-40:])


def test_many_small_uploads_are_bounded_too(server, visitor):
    for number in range(300):
        assert visitor.upload(b"%d" % number)[0] == 200
    assert used(server)[1] <= 256 + 10  # with the examples


def test_an_endless_upload_is_cut_off_while_it_is_received(server):
    head, kind = multipart(b"", end=False)
    sent = 0
    with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as connection:
        lines = [f"POST {UPLOAD} HTTP/1.1", f"Host: localhost:{server.port}", f"Content-Type: {kind}"]
        connection.sendall("\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode())
        chunk = bytes(2**16)
        try:
            for data in itertools.chain([head], itertools.repeat(chunk)):
                connection.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                sent += len(data)
                assert sent < 2**25
                connection.settimeout(0.01)
                try:
                    answer = connection.recv(1000)
                    break
                except TimeoutError:
                    connection.settimeout(SECONDS)
        except (BrokenPipeError, ConnectionResetError):
            answer = None
    assert answer is None or b" 413 " in answer.partition(b"\r\n")[0]
    assert used(server)[0] < KEPT_BYTES


def test_uploads_that_never_end_make_room_for_one_that_does(server, visitor):
    with contextlib.ExitStack() as stack:
        hanging = [start_upload(server, stack, bytes(MAX_MB * 2**20)) for _ in range(70)]
        status, answer = visitor.upload(bytes(MAX_MB * 2**20 - 300))
        assert status == 200
        assert visitor.ask(f"{FILE}{json.loads(answer)[0]}")[0] == 200
        assert used(server)[0] < KEPT_BYTES
        answer = hanging[0].recv(1000)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"others needed its space; please try again" in answer + hanging[0].recv(1000)
    time.sleep(0.5)
    assert used(server)[0] < KEPT_BYTES


def start_upload(server, stack, content):
    """A connection that announces more than it has sent."""
    body, kind = multipart(content, end=False)
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS))
    lines = [f"POST {UPLOAD} HTTP/1.1", f"Host: localhost:{server.port}", f"Content-Type: {kind}"]
    connection.sendall("\r\n".join([*lines, f"Content-Length: {len(body) + 9}", "", ""]).encode() + body)
    return connection


@pytest.mark.parametrize("how", ["aborted", "no end", "another field", "no multipart", "two files"])
def test_an_upload_that_fails_leaves_nothing(server, visitor, how):
    before = used(server)
    body, kind = multipart(bytes(2**19), end=how == "two files", field="x" if how == "another field" else "files")
    if how == "aborted":
        with contextlib.ExitStack() as stack:
            start_upload(server, stack, bytes(2**19))
            time.sleep(0.5)
    elif how == "no multipart":
        assert visitor.ask(UPLOAD, body, {"Content-Type": "image/png"})[0] == 400
    else:
        if how == "two files":
            body = body.replace(b"--\r\n", b"\r\n") + body
        assert visitor.ask(UPLOAD, body, {"Content-Type": kind})[0] == 400
    time.sleep(0.2)
    assert used(server) == before


def test_a_large_request_and_one_that_is_not_json_are_refused(visitor):
    assert visitor.send("/gradio_api/queue/join", {"data": ["a" * 2**17]})[0] == 413
    for body in (b"", b"{", b"[]", b"[" * 30000, b'{"a": ' * 9000, b"\xff"):
        assert visitor.ask("/gradio_api/queue/join", body, {"Content-Type": "application/json"})[0] == 400


# ---------------------------------------------------------------- all at once


def attack(server, path, stop):
    """Send bad requests one after another; how many there were.

    From an address of its own: uploads push out the oldest of the address that has most, which would be the visitors'.
    """
    attacker, number = Visitor(server, "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"), 0
    body, kind = multipart(bytes(2**20))
    while not stop.is_set():
        number += 1
        case = number % 6
        try:
            if case == 0:
                attacker.upload(bytes(2**20 - 300))
            elif case == 1:
                attacker.count(path, 2)
            elif case == 2:
                attacker.ask(UPLOAD, body, {"Content-Type": kind, "Origin": "http://evil.example"})
            elif case == 3:
                raw(server, "GET", "/", [("Host", "evil.example")])
            elif case == 4:
                attacker.ask(UPLOAD, body[:-30], {"Content-Type": kind})
            else:
                attacker.ask(f"{FILE}/etc/passwd")
        except OSError:  # cut off
            pass
    return number


def test_proper_visitors_are_served_beside_the_attacks(server, count_function, counter, hostile, tmp_path):
    sent = {people: save(tmp_path / f"{people}.png", people).read_bytes() for people in range(1, UPLOADS + 1)}
    expected = {people: counter(Image.open(io.BytesIO(content))).count for people, content in sent.items()}
    stop, numbers, failed = threading.Event(), [], []
    attackers = [
        threading.Thread(target=lambda path=path: numbers.append(attack(server, path, stop))) for path in hostile[:3]
    ]

    def visit(numbers):
        visitor = Visitor(server)
        for people in numbers:
            status, answer = visitor.upload(sent[people], f"{people}.png")
            success, output = visitor.count(json.loads(answer)[0], count_function) if status == 200 else (False, answer)
            text = output["data"][2] if success else ""
            found = re.search(r'class="number">([\d,]+)<', text)
            if not found or int(found[1].replace(",", "")) != round(expected[people]):
                failed.append((people, status, success, output))
            elif visitor.ask(f"{FILE}{output['data'][1]['path']}")[0] != 200:
                failed.append((people, "no result"))

    visitors = [threading.Thread(target=visit, args=[list(sent)[start::SESSIONS]]) for start in range(SESSIONS)]
    start = time.monotonic()
    for thread in [*attackers, *visitors]:
        thread.start()
    for thread in visitors:
        thread.join()
    took = time.monotonic() - start
    stop.set()
    for thread in attackers:
        thread.join()
    assert failed == []
    assert sum(numbers) > UPLOADS, f"only {numbers} attacks in {took:.1f} s"
    assert used(server)[0] < KEPT_BYTES
    assert server.process.poll() is None
