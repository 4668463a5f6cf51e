"""The independent re-check of a plan: everything is derived again from scenario, catalogue and plan, without the program."""
