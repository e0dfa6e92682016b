"""Packet filters of a qube: base rules of all, and what clients of a provider may reach."""
