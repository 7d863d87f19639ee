#!/bin/sh
# deb: configure [OLD-VERSION]; rpm: 1 on installation, 2 on upgrade.
set -e
# Nothing to do for an installation into a folder, or where systemd does not run.
if [ -n "$DPKG_ROOT" ] || [ ! -d /run/systemd/system ]; then exit 0; fi
systemctl daemon-reload
case "$1" in
  configure) upgrade=$2 ;;
  1) upgrade= ;;
  *) upgrade=$1 ;;
esac
# Nothing is enabled or started: without a destination there is nothing to do.
# What runs goes on with the new binary; the collector's socket stays open.
if [ -n "$upgrade" ]; then
  systemctl try-restart tetracast-export.service tetracast-collect.service
fi
