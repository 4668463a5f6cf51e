"""From a saved plan to what starts it: manifests of each target, and the benchmark that tests them. Nothing here applies anything."""
