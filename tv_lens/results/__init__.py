"""Labelled numbers: a sweep of values per example, its intervals, its file."""
