"""What plans teach together: frontiers, cost curves, staircases, comparisons, explanations, sensitivities.

Everything here asks ``solve`` many questions (``runs``) and puts the answers side by side; nothing here solves anything itself.
"""
