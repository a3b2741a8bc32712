# The host's keys and its place in the fleet stay, as there is no purge: remove /var/lib/mesh/meshd by
# hand, after `meshctl leave`, to forget them.
if [ "$1" -eq 0 ]; then
    # The package owns files only. What is not empty is somebody else's, too.
    rmdir /usr/share/doc/meshd /usr/share/licenses/meshd /etc/mesh 2>/dev/null || :
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi
:
