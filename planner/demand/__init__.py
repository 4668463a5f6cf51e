"""Demand as it really is: lengths, arrivals and rates out of traces, logs, metrics and shipped shapes."""
