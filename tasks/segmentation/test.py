"""Evaluate a segmentor: ``python tasks/segmentation/test.py`` takes the arguments of ``ean seg evaluate``."""

import sys

from tasks.cli import main

if __name__ == "__main__":
    main(["seg", "evaluate", *sys.argv[1:]])
