"""Train a segmentor: ``python tasks/segmentation/train.py`` takes the arguments of ``ean train``."""

import sys

from tasks.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
