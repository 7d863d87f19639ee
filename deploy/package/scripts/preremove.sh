#!/bin/sh
# deb: remove or upgrade; rpm: 0 on removal, 1 on upgrade.
set -e
case "$1" in remove|0) ;; *) exit 0 ;; esac
command -v systemctl >/dev/null || exit 0
units="tetracast-export.service tetracast-collect.socket tetracast-collect.service"
if [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
  systemctl stop $units
fi
systemctl --root="${DPKG_ROOT:-/}" --no-reload disable $units
