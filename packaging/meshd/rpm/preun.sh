# $1 is 0 when the package is removed. The daemon takes back what it made on this host.
if [ "$1" -eq 0 ] && command -v systemctl >/dev/null; then
    systemctl --no-reload disable meshd.service meshd-join.service meshd-join.path >/dev/null 2>&1 || :
    if [ -d /run/systemd/system ]; then
        systemctl stop meshd-join.path meshd-join.service meshd.service || :
        # A daemon that died left what guards the overlay. With the package goes that, too.
        nft delete table inet mesh 2>/dev/null || :
        for family in -4 -6; do ip $family route flush proto 190 2>/dev/null || :; done
    fi
fi
:
