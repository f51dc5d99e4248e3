"""A run's state in the terminal, from its files alone."""
