"""Parallel texts: the same sentences in two languages."""
