"""Weights files: reading them safely, loading them into networks or refusing to, ``ean://`` addresses."""
