"""Metrics: the catalogue of names, and the recorder that counts."""
