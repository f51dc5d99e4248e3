"""Find what must not leave with a publication: paths are shortened, secrets and personal data are refused."""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

#: Absolute paths, including Windows paths and those of other users; not the path part of a URL.
_PATH = re.compile(
    r"(?<![\w./\\~…-])(?:~\w*/|/|[A-Za-z]:[\\/]|\\\\)(?:[^\s'\"=,;()\[\]{}|<>/\\]+[/\\])*[^\s'\"=,;()\[\]{}|<>/\\]+"
)
#: The same in quotes, where any character may occur, as URLs, and on other machines.
_QUOTED = re.compile(r"(?<=['\"])(?:~\w*/|/|[A-Za-z]:[\\/]|\\\\)[^'\"]*(?=['\"])")
_FILE = re.compile(r"file://[^\s'\"]+")
_REMOTE = re.compile(r"(?<![\w.@/:-])[\w.-]{1,64}@[\w.-]{1,255}:(?=…)")
#: A home folder itself, whose last part is the name of its user.
_HOME = re.compile(r"(?:~\w+|/(?:home|Users)/[^/]+|[A-Za-z]:[\\/]Users[\\/][^\\/]+)[\\/]?")

#: Secrets by their shape. Patterns are linear: what repeats is bounded, or cannot begin again inside itself.
_SHAPES = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY"),
    "a JSON web token": re.compile(r"(?<![\w-])eyJ[\w-]{6,}\.eyJ[\w-]{6,}\."),
    "a bearer token": re.compile(
        r"\bbearer\s{1,4}(?=[\w.~+/=-]{20}|[A-Za-z._~+/=-]{0,20}\d[\w.~+/=-]{6})", re.IGNORECASE
    ),
    "a Hugging Face token": re.compile(r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{16}"),
    "an API key": re.compile(r"(?<![A-Za-z0-9])sk-(?=[A-Za-z_-]{0,100}\d)[\w-]{16}|(?<![\w-])AIza[\w-]{30}"),
    "an AWS access key": re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
    "a GitHub or GitLab token": re.compile(
        r"(?<![A-Za-z0-9])(?:gh[oprsu]_[A-Za-z0-9]{20}|github_pat_\w{20}|glpat-[\w-]{16})"
    ),
    "a Slack token": re.compile(r"(?<![A-Za-z0-9])xox[abeoprs]-[\w-]{10}"),
    "a package index token": re.compile(r"(?<![\w-])pypi-AgE[\w-]{16}|(?<![A-Za-z0-9])npm_[A-Za-z0-9]{30}"),
    "a payment key": re.compile(r"(?<![A-Za-z0-9])[rs]k_(?:live|test)_[A-Za-z0-9]{10}"),
    "a password": re.compile(r"\blogin\s{1,4}\S{1,100}\s{1,4}password\s{1,4}\S"),  # of .netrc
    "a URL with a login": re.compile(r"(?i)(?<=://)(?!git@)[^\s/'\"@]+@"),
    "an e-mail address": re.compile(
        r"(?<![\w.+@/-])(?!git@)[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])"
    ),
}

#: Secrets by the last words of the name that they are given.
_NAMES = {
    "a password": ("password", "passwd", "passphrase", "passcode", "pwd"),
    "a token": ("token",),
    "a secret": ("secret", "authorization", "cookie"),
    "credentials": ("credential", "credentials"),
    "a key": ("apikey", "secretkey", "accesskey", "privatekey"),
}
#: Words that make a key secret; other keys are those of mappings.
_KEYS = {"api", "access", "secret", "private", "account", "auth", "encryption", "signing", "storage", "subscription"}
#: Tokens of networks and tokenizers.
_HARMLESS = {
    *("cls", "class", "dist", "mask", "pad", "bos", "eos", "sos", "unk", "sep", "start", "end", "begin", "prompt"),
    *("image", "img", "patch", "query", "register", "special", "per", "stop", "visual", "text", "word"),
}
#: Parameters of URLs that grant access.
_PARAMETERS = {"key", "sig", "signature", "auth", "pass", "pw", "awsaccesskeyid", "jwt", "sas", "code"}
_ASSIGNMENT = re.compile(r"[\"'\\]{0,4}[ \t]{0,4}(?:=|:(?!//))[ \t]{0,4}[\"'\\]{0,4}(?=([^\s\"'&,;}\])\\]{1,200}))")
_OPTION = re.compile(r"(?<![\w-])--?([A-Za-z][\w.-]{0,63})[ \t]{1,4}[\"']?(?=([^\s\"'&,;}\])\\]{1,200}))")
_NAME_BACKWARDS = re.compile(r"[\w.-]{1,64}")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
#: Values that are none: literals, references to variables, placeholders, and beginnings of collections.
_NO_VALUE = re.compile(r"None|null|true|false|True|False|…|\*+|\.{3}|[$<{(\[%].*|dict\(.*", re.DOTALL)

#: Names of users and machines that say nothing, or that are words of configs.
_COMMON = {
    *("root", "user", "admin", "administrator", "ubuntu", "debian", "docker", "runner", "jovyan", "guest", "nobody"),
    *("localhost", "localdomain", "train", "test", "data", "model", "models", "work", "home", "default"),
}


#: Number of findings in a message.
_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """A secret, or personal data, in something to publish.

    Args:
        place: dotted path of the value, such as ``settings.visualizer.init_kwargs.api_key``; empty for a text.
        kind: such as ``an API key``. The secret itself is nowhere in here.
    """

    place: str
    kind: str


def scrub(value: Any) -> Any:
    """Shorten the absolute paths in plain values to their last part; a home folder and other machines disappear.

    Examples:
        >>> scrub('ean train mine.py --work-dir /home/me/runs/first load_from=me@host:/data/b.pth')
        'ean train mine.py --work-dir …/first load_from=…/b.pth'
    """
    if isinstance(value, str):
        for pattern in (_FILE, _QUOTED, _PATH):
            value = pattern.sub(_last_name, value)
        return _REMOTE.sub("", value)
    if isinstance(value, Mapping):
        return {key: scrub(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [scrub(item) for item in value]
    return value


def refuse_secrets(content: Mapping[str, Any]) -> None:
    """Refuse to publish secrets and personal data.

    Found are secrets by the names they are given and by their shape, URLs with logins, e-mail addresses, the values of
    this process's environment variables with names of secrets, and the names of this user and machine (``LOGNAME`` sets
    another user name, for one that is also a word of the records).

    Args:
        content: plain values, or texts, by the name of the file or record that they belong to.

    Raises:
        ValueError: if there are any; the message names their places and kinds, and does not contain them.
    """
    found = [(name, each) for name, value in content.items() for each in find_secrets(value)]
    if found:
        listed = dict.fromkeys(f"{name}{', ' if each.place else ''}{each.place} ({each.kind})" for name, each in found)
        shown = [*listed][:_SHOWN]
        more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
        raise ValueError(
            f"nothing was published, since others would see: {'; '.join(shown)}{more}. Remove it there and from the "
            "config; in a command, replace it by …"
        )


def find_secrets(value: Any) -> Iterator[Finding]:
    """Yield the secrets and personal data in plain values.

    Examples:
        >>> [*find_secrets({'env': ['HF_TOKEN=abc', 'b=1'], 'login': {'password': 'abc'}})]
        [Finding(place='env.0', kind='a token'), Finding(place='login.password', kind='a password')]
    """
    yield from _search(value, "", "", _own())


def _search(value: Any, place: str, named: str, own: Mapping[str, re.Pattern[str]]) -> Iterator[Finding]:
    """Search a value; ``named`` is the kind of secret that its name, or that of what contains it, stands for."""
    if isinstance(value, str):
        kinds = dict.fromkeys(_kinds(value, own))
        if named and value.strip() and not _NO_VALUE.fullmatch(value.strip()):
            kinds = {named: None}
        yield from (Finding(place, kind) for kind in kinds)
    elif isinstance(value, Mapping):
        for number, (key, item) in enumerate(value.items()):
            inside = [*_kinds(str(key), own)]  # a secret used as a key is not printed either
            here = f"{place}.{f'(key {number + 1})' if inside else key}".lstrip(".")
            yield from (Finding(here, kind) for kind in inside)
            yield from _search(item, here, _named(str(key)) or named, own)
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _search(item, f"{place}.{number}".lstrip("."), named, own)
    elif named == "a password" and isinstance(value, (int, float)) and not isinstance(value, bool):
        yield Finding(place, named)


def _kinds(text: str, own: Mapping[str, re.Pattern[str]]) -> Iterator[str]:
    """Yield the kinds of secrets in a text."""
    for patterns in (_SHAPES, own):
        yield from (kind for kind, pattern in patterns.items() if pattern.search(text))
    for match in _ASSIGNMENT.finditer(text):
        start = match.start()
        backwards = _NAME_BACKWARDS.match(text[max(0, start - 64) : start][::-1])
        name = backwards[0][::-1] if backwards else ""
        parameter = text[start - len(name) - 1 : start - len(name)] in ("?", "&") and name.lower() in _PARAMETERS
        kind = "a key in a URL" if parameter else _named(name)
        if kind and _is_value(match[1], kind):
            yield kind
    for match in _OPTION.finditer(text):
        kind = _named(match[1])
        if kind and not match[2].startswith("-") and _is_value(match[2], kind):
            yield kind


def _is_value(text: str, kind: str) -> bool:
    """Whether a text can be a secret; a number is no token: ``num.token=196``."""
    return not _NO_VALUE.fullmatch(text) and (kind in ("a password", "a key in a URL") or not text.isdecimal())


def _named(name: str) -> str:
    """Kind of secret that a name stands for, by its last words; empty for other names.

    Examples:
        >>> _named('init_kwargs.api_key'), _named('hfToken'), _named('cls_token'), _named('num_tokens'), _named('keys')
        ('a key', 'a token', '', '', '')
    """
    words = [part.lower() for part in _PART.findall(name[-64:])]
    if words[-1:] == ["id"]:  # AWS_ACCESS_KEY_ID
        words.pop()
    if not words:
        return ""
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if last == "token" and before in _HARMLESS:
        return ""
    if last == "key" and before in _KEYS:
        return "a key"
    return next((kind for kind, endings in _NAMES.items() if last.endswith(endings)), "")


def _own() -> dict[str, re.Pattern[str]]:
    """Patterns of what is known to be private here: values of the environment, the user's name, the machine's."""
    found: dict[str, re.Pattern[str]] = {}
    for name, value in os.environ.items():
        if _named(name) and len(value) >= 8:
            found[f"the value of the environment variable {name}"] = re.compile(re.escape(value))
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container user without a passwd entry; KeyError before Python 3.13
        user = ""
    for kind, name in (("your user name", user), ("the name of this machine", socket.gethostname().partition(".")[0])):
        if len(name) >= 4 and name.lower() not in _COMMON:
            found[kind] = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)
    return found


def _last_name(match: re.Match[str]) -> str:
    if _HOME.fullmatch(match[0]):
        return "…"
    return f"…/{PurePosixPath(match[0].replace(chr(92), '/')).name}"
