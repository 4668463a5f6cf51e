"""Facts about models, GPUs, prices and measurements: typed records, loaders, and where each fact comes from."""
