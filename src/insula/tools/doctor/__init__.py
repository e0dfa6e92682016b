"""What this host can do for Insula, and the exact lines to run for what it lacks."""
