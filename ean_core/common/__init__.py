"""Errors, configs, records, progress, seeding: what every other room may import."""
