# $1 is 0 when the package is removed.
if [ "$1" -eq 0 ] && command -v systemctl >/dev/null; then
    systemctl --no-reload disable mesh-coordinator.service >/dev/null 2>&1 || :
    if [ -d /run/systemd/system ]; then
        systemctl stop mesh-coordinator.service || :
    fi
fi
:
