"""Evaluate a counter: ``python tasks/crowd_counting/test.py`` takes the arguments of ``ean crowd evaluate``."""

import sys

from tasks.cli import main

if __name__ == "__main__":
    main(["crowd", "evaluate", *sys.argv[1:]])
