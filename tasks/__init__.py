"""Tasks built on EAN backbones, and the command line. Imports nothing, so that ``ean --help`` is quick."""
