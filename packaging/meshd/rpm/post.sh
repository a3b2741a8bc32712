# $1 is 1 at the first installation and 2 at an upgrade. An upgrade of a running daemon is a reload:
# it hands its connections over to the new program and cuts none.
if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers meshd.conf
    systemd-tmpfiles --create meshd.conf || :
fi
if [ "$1" -eq 1 ] && command -v systemctl >/dev/null; then
    systemctl --no-reload preset meshd.service meshd-join.service meshd-join.path >/dev/null 2>&1 || :
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    if [ "$1" -ge 2 ] && systemctl --quiet is-active meshd.service; then
        systemctl reload meshd.service || cat >&2 <<MESSAGE
meshd: the running daemon could not hand over to the new program and goes on as it is.
Look at \`journalctl -u meshd\`; \`systemctl restart meshd\` changes over with a short pause.
MESSAGE
    fi
fi
:
