# The host's keys and its place in the fleet stay, as there is no purge: remove /var/lib/mesh/meshd by
# hand, after `meshctl leave`, to forget them.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi
:
