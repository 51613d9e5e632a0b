#!/bin/sh
# Runs as the only service of a container: installs the package, starts it by its unit against the
# embedded management server, looks at user, capabilities and file system of the process, upgrades and
# purges. Called by `cargo xtask package --check`; one line for each thing that was looked at.
#   check.sh OLD.deb NEW.deb RESULTS
old=$1 new=$2 results=$3
: >"$results"
ok() { echo "ok      $*" >>"$results"; }
no() { echo "FAILED  $*" >>"$results"; }
is() { if [ "$2" = "$3" ]; then ok "$1"; else no "$1: $2, not $3"; fi; }
does() { what=$1; shift; if "$@" >>/tmp/out 2>&1; then ok "$what"; else no "$what: $*"; fi; }
not() { ! "$@"; }
until_ok() { for _ in $(seq 100); do "$@" >/dev/null 2>&1 && return 0; sleep 0.2; done; return 1; }
main_pid() { systemctl show -p MainPID --value quickcloud; }
of() { sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status" | cut -f1; }
inside() { nsenter -t "$(main_pid)" -m -- "$@"; }
registered() { [ "$(curl -fs http://127.0.0.1:8251/metrics | grep -c '^quickcloud_link_attached.* 1\(\.0\)\?$')" = 2 ]; }
# The one of the unit: the management server's demo has one, too.
dnsmasq_runs() { for p in $(pgrep -x dnsmasq); do grep -q quickcloud.service "/proc/$p/cgroup" && return 0; done; return 1; }
# What the server knows this host by.
identity() { (cd /var/lib/quickcloud && sha256sum ./*/identity.json ./*/management-ca.pem ./*/own-certificate.pem); }

does "the package installs" dpkg -i "$old"
does "user quickcloud exists" id quickcloud
is "configuration directory" "$(stat -c '%a %U:%G' /etc/quickcloud)" "2750 root:quickcloud"
does "mount root exists" test -d /mnt/SecStorage
is "nothing runs without a configuration" "$(systemctl is-active quickcloud)" inactive
does "manual pages" test -s /usr/share/man/man1/quickcloud-zone-enable.1.gz
does "nothing is missing or changed" sh -c 'cd / && md5sum -c --quiet /var/lib/dpkg/info/quickcloud.md5sums'

homes=/home
touch "$homes/probe"
# A management server of our own, in the container.
quickcloud dev --listen 127.0.0.1:8096 --state /var/tmp/dev >/tmp/dev.log 2>&1 &
dev=$!
until_ok grep -q 'agent protocol' /tmp/dev.log
server=$(sed -n 's/^ *server *\([^ ]*\) .*/\1/p' /tmp/dev.log)

config() {
    cat >/etc/quickcloud/quickcloud.toml <<END
[supervisor]
roles = [$1]
[management]
servers = ["$server"]
[roles.secondary_storage]
name = "s-71-VM"
private_address = "127.0.0.1"
$2
[roles.console_proxy]
name = "v-72-VM"
guid = "Proxy.72"
proxy_vm = 72
private_address = "127.0.0.1"
[roles.dhcp]
interface = "d0"
END
    chmod 640 /etc/quickcloud/quickcloud.toml
}

config '"ss", "cp"' 'store_engine = "nfs"'
is "the configuration has the service's group" "$(stat -c %G /etc/quickcloud/quickcloud.toml)" quickcloud
systemctl daemon-reload
does "the unit starts" systemctl start quickcloud
does "both roles are registered" until_ok registered
pid=$(main_pid)
is "user of the process" "$(of "$pid" Uid)" "$(id -u quickcloud)"
is "its capabilities are the low ports" "$(of "$pid" CapEff)" 0000000000000400
is "and can be no more" "$(of "$pid" CapBnd)" 0000000000000400
is "no new privileges" "$(of "$pid" NoNewPrivs)" 1
does "the system is read-only to it" not inside touch /usr/probe
does "its state is not" inside touch /var/lib/quickcloud/probe
does "homes are hidden" not inside test -e "$homes/probe"
does "devices are hidden" not inside test -e /dev/loop-control
is "state directory" "$(stat -c '%a %U' /var/lib/quickcloud)" "711 quickcloud"
does "reload" systemctl reload quickcloud
does "doctor's report is in the journal" sh -c 'journalctl -u quickcloud | grep -q "checks, "'
id=$(identity)

does "the upgrade installs" dpkg -i "$new"
is "active after it" "$(systemctl is-active quickcloud)" active
does "another process" test "$(main_pid)" != "$pid"
does "both roles are registered again" until_ok registered
does "state is kept" test -e /var/lib/quickcloud/probe
is "identities and certificates are the same" "$(identity)" "$id"

# Roles that need more get it, and systemd is told by the generator.
ip link add d0 type dummy 2>/dev/null || ip link add d0 type bridge
ip addr add 192.0.2.1/24 dev d0 && ip link set d0 up
config '"dhcp"' ''
systemctl daemon-reload
does "a unit with dhcp starts" systemctl restart quickcloud
does "dnsmasq runs" until_ok dnsmasq_runs
is "dhcp needs no root" "$(of "$(main_pid)" Uid)" "$(id -u quickcloud)"
is "its capabilities" "$(of "$(main_pid)" CapEff)" 0000000000003400
config '"ss", "cp", "dhcp"' ''
systemctl daemon-reload
does "a unit that mounts starts" systemctl restart quickcloud
does "dnsmasq runs there" until_ok dnsmasq_runs
is "mounting needs root" "$(of "$(main_pid)" Uid)" 0
is "and ten capabilities" "$(of "$(main_pid)" CapEff)" 00000000002034eb
does "the mount can be made there" inside mount -t tmpfs probe /mnt/SecStorage

systemctl stop quickcloud
does "a stop leaves no dnsmasq" not dnsmasq_runs
does "a wrong configuration fails the start" sh -c 'echo nonsense = 1 >/etc/quickcloud/quickcloud.toml; systemctl daemon-reload; ! systemctl start quickcloud'
is "and is not tried again" "$(systemctl show -p ExecMainStatus --value quickcloud) $(systemctl is-failed quickcloud)" "78 failed"
systemctl reset-failed quickcloud
does "purge" dpkg -P quickcloud
does "state is gone" not test -e /var/lib/quickcloud
does "the configuration stays" test -e /etc/quickcloud/quickcloud.toml
does "the unit is gone" not systemctl cat quickcloud
kill $dev
journalctl -u quickcloud -o cat >"$results.journal"
cat /tmp/out /tmp/dev.log >"$results.output"
