"""Readers of text under a fuzzer that follows which lines of them an input reaches: ``fuzz_guided.py READER SECONDS``.

The input is a file of bytes; what a reader may raise is a ValueError.
"""

import sys
from pathlib import Path

SCRATCH = Path("fuzzed.jsonl")


def readers():
    """By name, what takes bytes."""
    from ean_core.runs.settings import read_settings
    from ean_core.scheme import ConnectionScheme
    from ean_core.search.ledger import read_lines
    from tasks.crowd_counting.annotations import _read_csv, _read_json
    from tasks.matlab import _elements, _Reader
    from zoo.names import ModelName
    from zoo.scrub import find_secrets, scrub

    def text(content):
        return content.decode("utf-8", "replace")

    def scheme(content):
        found = ConnectionScheme.parse(text(content))
        assert ConnectionScheme.parse(str(found)) == found

    def ledger(content):
        SCRATCH.write_bytes(content)
        read_lines(SCRATCH)

    def matlab(content):
        reader = _Reader("<")
        for kind, part in _elements(memoryview(content), "<"):
            reader.array(kind, part)

    return {
        "scheme": scheme,
        "settings": lambda content: read_settings(text(content)),
        "csv": lambda content: _read_csv(Path("a.csv"), text(content)),
        "json": lambda content: _read_json(Path("a.json"), text(content)),
        "ledger": ledger,
        "matlab": matlab,
        "model name": lambda content: ModelName.parse(text(content)),
        "scrub": lambda content: list(find_secrets(scrub(text(content)))),
    }


#: Modules whose lines are followed.
FOLLOWED = (
    *("ean_core.common.config", "ean_core.scheme", "ean_core.search.ledger", "tasks.crowd_counting.annotations"),
    *("tasks.matlab", "zoo.names", "zoo.scrub"),
)


def main():
    import atheris

    with atheris.instrument_imports(include=list(FOLLOWED)):
        reader = readers()[sys.argv[1]]

    def one(content):
        try:
            reader(content)
        except ValueError:
            return

    options = [f"-max_total_time={sys.argv[2]}", "-max_len=2000", "-rss_limit_mb=4000", "corpus"]
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
