"""From operating points to the cheapest solution: the question as it is asked, kept surveys, locations, workloads kept apart."""
