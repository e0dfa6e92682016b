"""The applications of all qubes: what they told of them, kept, and shown in the host's menu."""
