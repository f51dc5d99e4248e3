"""Measure a counter: ``python tasks/crowd_counting/test.py CONFIG CHECKPOINT`` is ``ean crowd evaluate`` with these."""

import sys

from tasks.cli import main

if __name__ == "__main__":
    main(["crowd", "evaluate", *sys.argv[1:]])
