"""Predictions held against measurements: one replica type asked by name, and files of measured points mapped, predicted and compared."""
