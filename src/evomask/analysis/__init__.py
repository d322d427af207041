"""Measurements of a model or of a run, one file each."""
