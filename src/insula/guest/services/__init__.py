"""Services that a qube has for others."""
