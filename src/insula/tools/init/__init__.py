"""`insula init`: the qubes that a new system begins with, by their roles."""
