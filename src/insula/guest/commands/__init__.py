"""Commands that people and programs of a qube have."""
