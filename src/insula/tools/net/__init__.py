"""`insula net`: which qube reaches what, and through whom."""
