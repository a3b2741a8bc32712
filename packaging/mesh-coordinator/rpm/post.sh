# $1 is 1 at the first installation and 2 at an upgrade, at whose end the coordinator is restarted.
if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers mesh-coordinator.conf
    systemd-tmpfiles --create mesh-coordinator.conf || :
fi
if [ "$1" -eq 1 ] && command -v systemctl >/dev/null; then
    systemctl --no-reload preset mesh-coordinator.service >/dev/null 2>&1 || :
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    if [ "$1" -ge 2 ]; then
        systemctl try-restart mesh-coordinator.service || :
    fi
fi
:
