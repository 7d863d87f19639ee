#!/bin/sh
# Starts systemd as process 1 of its own namespaces, over a copy-on-write view of
# this machine's files in $1, a folder of the test; $2 is the package, $3 what to do
# with it. Nothing of it reaches the machine: no kernel setting can be written, and
# the units of a normal boot are not started.
set -eu
folder=$1 root=$1/root
mount --make-rprivate /
mount -t tmpfs tmpfs "$folder"
mkdir "$folder/upper" "$folder/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$root"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do cp -a "/dev/$device" "$root/dev/"; done
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue" "$root/dev/hugepages"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t mqueue mqueue "$root/dev/mqueue"
: >"$root/dev/console"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir "$root/test"
cp "$2" "$root/test/tetracast.deb"
cp "$3" "$root/test/scenario.sh"

units=$root/etc/systemd/system
for target in sysinit basic shutdown; do
  printf '[Unit]\nDefaultDependencies=no\n' >"$units/$target.target"
done
cat >"$units/test.target" <<'UNIT'
[Unit]
Requires=scenario.service
UNIT
cat >"$units/scenario.service" <<'UNIT'
[Unit]
Wants=systemd-journald.service
After=systemd-journald.service
[Service]
Type=oneshot
ExecStart=/bin/sh /test/scenario.sh
ExecStopPost=/bin/sh -c 'echo ended >/test/ended'
StandardOutput=file:/test/out
StandardError=file:/test/out
UNIT
# In the place of Tetragon, with its socket as Tetragon leaves it.
cat >"$units/tetragon.service" <<'UNIT'
[Service]
RuntimeDirectory=tetragon
ExecStart=/usr/bin/tetracast replay --server-address unix:///var/run/tetragon/tetragon.sock --info-file /run/tetragon/tetragon-info.json --rate 200 --loop
ExecStartPost=/bin/sh -c 'until [ -S /run/tetragon/tetragon.sock ]; do sleep 0.1; done; chmod 0660 /run/tetragon/tetragon.sock'
UNIT
ip link set lo up
cd "$root"
mkdir -p oldroot
pivot_root . oldroot
umount -l /oldroot
mount --make-rshared /
exec chroot . /usr/bin/env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=test.target --show-status=no
