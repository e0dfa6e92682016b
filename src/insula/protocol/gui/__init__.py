"""The Qubes GUI protocol, version 1.8, between a qube's window agent and its viewer (gui.md).

The agent is the qube's and untrusted; the *daemon* of the specification is our viewer. Modules:
`messages` (bodies), `stream` (headers and framing), `handshake`, `text` (titles and classes as they
may be shown), `geometry` (where windows and pixels may lie), `limits`.
"""
