"""Pretrained EAN models: their index, cards and files. Builds on ean_core; no weights are published yet."""
