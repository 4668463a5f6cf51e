"""Performance: memory fit, step times, queueing capacity and evidence of replica types, as arrays over all of them.

Only numpy is needed here; ``fit`` (which also needs scipy) is run by developers, never at plan time.
"""
