"""The real command in a process of its own, and visitors that speak HTTP with it."""

import http.client
import http.cookiejar
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid

import pytest

SECONDS = 180


def as_in_a_terminal():
    """For ``preexec_fn``: a command in the background, or after nohup, inherits signals that are ignored."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):  # not on Windows
            signal.signal(getattr(signal, name), signal.SIG_DFL)


class Server:
    """The real command in a process of its own."""

    def __init__(self, counter_file, folder, *words):
        pytest.importorskip("gradio", reason="the page needs Gradio")
        command = [sys.executable, "-m", "tasks.cli", "crowd", "serve", "--model", counter_file, "--no-open", *words]
        self.folder = folder
        self.out, self.err = folder / "stdout.txt", folder / "stderr.txt"
        environment = {**os.environ, "TMPDIR": str(folder)}
        with self.out.open("w") as out, self.err.open("w") as err:
            options = {"stdout": out, "stderr": err, "env": environment, "preexec_fn": as_in_a_terminal}
            self.process = subprocess.Popen([str(word) for word in command], **options)
        until = time.monotonic() + SECONDS
        while not (found := re.search(r"counts at (http://\S+:(\d+)) ", self.out.read_text())):
            if self.process.poll() is not None or time.monotonic() > until:
                self.stop(signal.SIGKILL)
                pytest.fail(f"no page after {SECONDS} s: {self.out.read_text()}{self.err.read_text()}")
            time.sleep(0.1)
        self.url, self.port = found[1], int(found[2])

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        return self.process.wait(SECONDS)

    def get(self, path):
        with direct().open(f"{self.url}{path}", timeout=SECONDS) as answer:
            return answer.read()

    def upload(self, content, name="a.png"):
        """The status of an upload without a cookie, and its answer."""
        body, kind = multipart(content, name)
        request = urllib.request.Request(f"{self.url}/gradio_api/upload", body, {"Content-Type": kind})
        try:
            with direct().open(request, timeout=SECONDS) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


def direct(*handlers):
    """Requests that no proxy of the environment sees."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), *handlers)


class From(urllib.request.HTTPHandler):
    """Requests from this address of the machine; every address of 127.0.0.0/8 is one on Linux."""

    def __init__(self, address):
        super().__init__()
        self.address = address

    def http_open(self, request):
        return self.do_open(http.client.HTTPConnection, request, source_address=(self.address, 0))


class Visitor:
    """A visitor with a cookie, as a browser keeps it, and a session."""

    def __init__(self, server, address="127.0.0.1"):
        self.server, self.session = server, uuid.uuid4().hex
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.opener = direct(jar, From(address))
        self.ask("/")

    def ask(self, path, data=None, headers=(), method=None):
        """The status and the content of an answer; of one that does not end, its first line."""
        request = urllib.request.Request(f"{self.server.url}{path}", data, dict(headers), method=method)
        try:
            with self.opener.open(request, timeout=SECONDS) as answer:
                endless = answer.headers.get_content_type() == "text/event-stream"
                return answer.status, answer.readline() if endless else answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def send(self, path, body):
        return self.ask(path, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def upload(self, content, name="a.png", field="files"):
        body, kind = multipart(content, name, field)
        return self.ask("/gradio_api/upload", body, {"Content-Type": kind})

    def join(self, function, data, **other):
        body = {"data": data, "fn_index": function, "session_hash": self.session, "event_data": None, **other}
        return self.send("/gradio_api/queue/join", body)

    def result(self, event, session=None):
        """The output of a joined event."""
        request = f"{self.server.url}/gradio_api/queue/data?session_hash={session or self.session}"
        with self.opener.open(request, timeout=SECONDS) as answer:
            for line in answer:
                message = json.loads(line.removeprefix(b"data: ") or b"{}") if line.startswith(b"data: ") else {}
                if message.get("msg") == "process_completed" and message["event_id"] == event:
                    return message["success"], message["output"]
        raise AssertionError("no result")

    def count(self, path, function):
        """Join the function that counts in a file; its result, or the refusal."""
        status, answer = self.join(function, [{"path": path, "meta": {"_type": "gradio.FileData"}}, 0.5])
        if status != 200:
            return False, json.loads(answer)
        return self.result(json.loads(answer)["event_id"])


def multipart(content, name="a.png", field="files", end=True):
    """The body of an upload, and its content type."""
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode()
    return head + content + f"\r\n--{boundary}--\r\n".encode() * end, f"multipart/form-data; boundary={boundary}"


def raw(server, method, path, headers, body=b""):
    """The status and the content of an answer to exactly these headers."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in [*headers, ("Content-Length", len(body))]:
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.readline().decode()
    finally:
        connection.close()
