"""The questions that make plans: one scenario, by the hour, from own tables; what a plan is compared with; why there is none."""
