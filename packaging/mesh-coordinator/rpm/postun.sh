# The fleet stays, as there is no purge: remove /var/lib/mesh/coordinator by hand to forget it.
if [ "$1" -eq 0 ]; then
    rm -f /run/mesh/coordinator.sock
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi
:
