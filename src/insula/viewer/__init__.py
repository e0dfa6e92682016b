"""One qube's windows on the desktop: a jailed process that takes every message for hostile.

It opens no file and no connection: the X server, the qube's channel and its pixels come as
descriptors. Each window of the qube gets a frame in the colour of its label that only this process
draws; the qube's pixels go into a child window inside, so that none can ever land on the frame.
"""
