"""Performance: memory fit, step times, queueing capacity and evidence of replica types, as arrays over all of them.

Only numpy is needed here; the coefficients are fitted in ``calibration``, never at plan time.
"""
