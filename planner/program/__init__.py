"""The mixed-integer program: plain problem records in, plain solution records out. Only this folder knows Pyomo."""
