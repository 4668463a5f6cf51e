"""What is asked: typed records, and bringing flags, environment and files together into one."""
