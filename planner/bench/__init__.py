"""Benchmarks: files of many tools as points in one form, with what each lacks told, not guessed."""
