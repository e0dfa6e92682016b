"""Insula: security by isolation for one person's computer."""
