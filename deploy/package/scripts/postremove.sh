#!/bin/sh
# deb: remove, purge or upgrade; rpm: 0 on removal, 1 on upgrade.
set -e
if [ "$1" = purge ]; then
  # The events that were written stay: they are evidence.
  for state in tetracast-export tetracast-collect; do
    rm -rf "$DPKG_ROOT/var/lib/$state" "$DPKG_ROOT/var/lib/private/$state"
  done
fi
if [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
  systemctl daemon-reload
fi
