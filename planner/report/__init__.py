"""Puts plans and lists into words and tables: one set of sections, rendered for the terminal, Markdown, CSV and notebooks."""
