"""Weights files: safe reading, loading with checks, and ``ean://`` addresses."""
