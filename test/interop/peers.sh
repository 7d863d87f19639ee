#!/usr/bin/env bash
# Installs the peers of the interoperability tests below a folder, without a change
# to the system: peers.sh FOLDER [PEER...], all of them by default.
set -euo pipefail
folder=${1:?usage: peers.sh FOLDER [rsyslog|syslog-ng|telegraf|graygelf|otel]...}
shift
[ $# -gt 0 ] || set -- rsyslog syslog-ng telegraf graygelf otel
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")"

telegraf=v1.37.2

# debian unpacks packages of Debian. They are not installed: rsyslog and syslog-ng
# refuse to be on one system.
debian() {
  mkdir -p "$folder/debian/deb"
  (cd "$folder/debian/deb" && apt-get -qq -o APT::Sandbox::User=root download "$@")
  for deb in "$folder"/debian/deb/*.deb; do dpkg -x "$deb" "$folder/debian"; done
}

for peer in "$@"; do
  case $peer in
    rsyslog)
      [ -x "$folder/debian/usr/sbin/rsyslogd" ] ||
        debian rsyslog libestr0 libfastjson4 liblognorm5 libsystemd0 libuuid1 libzstd1 zlib1g
      ;;
    syslog-ng)
      [ -x "$folder/debian/usr/sbin/syslog-ng" ] ||
        debian syslog-ng-core libglib2.0-0 libivykis0 libjson-c5 libnet1 libpcre3 libwrap0 libcap2
      ;;
    telegraf)
      [ -x "$folder/telegraf/telegraf" ] || (
        mkdir -p "$folder/telegraf" && cd "$folder/telegraf"
        printf 'module telegraf\n' >go.mod
        go get "github.com/influxdata/telegraf/cmd/telegraf@$telegraf"
        tags=custom,inputs.socket_listener,inputs.syslog,inputs.tail,outputs.file,outputs.socket_writer
        go build -o telegraf -tags "$tags,parsers.value,parsers.json,serializers.json" github.com/influxdata/telegraf/cmd/telegraf
      )
      ;;
    graygelf)
      [ -d "$folder/graygelf/node_modules/graygelf" ] ||
        npm install --silent --ignore-scripts --prefix "$folder/graygelf" graygelf@2.0.0
      ;;
    otel)
      [ -x "$folder/otel/otel" ] || (mkdir -p "$folder/otel" && cd otelcol && go build -o "$folder/otel/otel" .)
      ;;
    *)
      echo "peers.sh: unknown peer $peer" >&2
      exit 2
      ;;
  esac
done
