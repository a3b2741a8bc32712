# The fleet stays, as there is no purge: remove /var/lib/mesh/coordinator by hand to forget it.
if [ "$1" -eq 0 ]; then
    rm -f /run/mesh/coordinator.sock
    # The package owns files only. What is not empty is somebody else's, too.
    rmdir /usr/share/doc/mesh-coordinator/examples /usr/share/doc/mesh-coordinator \
        /usr/share/licenses/mesh-coordinator /etc/mesh 2>/dev/null || :
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi
:
