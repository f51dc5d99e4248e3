"""Commands of ``ean`` provided by the core; each module is imported only when its command runs."""
