"""Train a counter: ``python tasks/crowd_counting/train.py`` takes the arguments of ``ean train``."""

import sys

from tasks.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
