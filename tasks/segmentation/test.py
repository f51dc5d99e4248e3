"""Measure a segmentor: ``python tasks/segmentation/test.py CONFIG CHECKPOINT`` is ``ean seg evaluate`` with these."""

import sys

from tasks.cli import main

if __name__ == "__main__":
    main(["seg", "evaluate", *sys.argv[1:]])
