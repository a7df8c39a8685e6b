"""Tuners and assessors: one file each, found by the file's name."""
