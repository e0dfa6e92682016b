#!/bin/sh
exec /usr/lib/qubes/qubes-sync-appmenus
