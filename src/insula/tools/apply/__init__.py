"""A system as a file describes it: read the file, look at the system, plan, do; and export."""
