"""The paper's tables and figures out of run records."""
