"""From catalogue to the program's columns: enumerate what can be deployed, say why the rest cannot, keep what is not dominated."""
