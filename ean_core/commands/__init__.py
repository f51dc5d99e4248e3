"""The commands of ``ean`` that the core provides; each module is imported only when its command runs."""
