"""Every byte format spoken across a boundary: pure, standard library only, no I/O."""
