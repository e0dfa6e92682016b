"""Updates: the proxy of a net qube, and what looks for and installs them in any qube."""
