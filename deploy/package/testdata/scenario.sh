# What docs/install.md tells an administrator to do, and an upgrade and a removal.
# The test reads the output.
set -eux
dpkg --install /test/tetracast.deb
if systemctl is-enabled tetracast-export tetracast-collect.socket; then exit 1; fi

tetracast key new /etc/tetracast/fleet.key
for unit in export collect; do
  install -D -m 644 /usr/share/tetracast/key.conf /etc/systemd/system/tetracast-$unit.service.d/key.conf
done
sed -i 's|# udp-destination: .*|udp-destination: [frame://127.0.0.1]|' /etc/tetracast/tetracast.yaml
systemctl daemon-reload
systemctl start tetragon
systemctl enable --now tetracast-collect tetracast-export
for unit in export collect; do
  grep -E '^(Uid|Groups|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/$(systemctl show --value --property MainPID tetracast-$unit)/status
done

# The collector is restarted, and the package replaced, while events come.
received() { until [ -s /var/log/tetracast/events.jsonl ] && [ "$(wc -l </var/log/tetracast/events.jsonl)" -gt "$1" ]; do sleep 0.1; done; }
received 200
systemctl restart tetracast-collect
received 400
before=$(systemctl show --value --property MainPID tetracast-collect)
dpkg --install /test/tetracast.deb
[ "$before" != "$(systemctl show --value --property MainPID tetracast-collect)" ]
received 600
systemctl stop tetracast-export
sleep 1
systemctl stop tetracast-collect
grep -h '"event":"agent_init"' /var/log/tetracast/events.jsonl
ls -l /var/log/tetracast/ /var/lib/tetracast-export/ /var/lib/tetracast-collect/
journalctl --no-pager --output=cat --unit tetracast-export --unit tetracast-collect

systemctl start tetracast-export
dpkg --purge tetracast
if systemctl is-active tetracast-export tetracast-collect.socket; then exit 1; fi
if id tetracast-export; then exit 1; fi
echo FINISHED
