# Sourced by ./demo and ./test: installs what they need on Debian, says how to get Rust.

# need COMMAND:PACKAGE…  installs the packages whose command is missing.
need() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    [ "${#missing[@]}" -eq 0 ] && return
    if ! command -v apt-get >/dev/null; then
        echo "$0: install the Debian packages ${missing[*]}, or what they are called here" >&2
        exit 1
    fi
    echo "$0: installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}

# need_unstarted COMMAND:PACKAGE…  the same for packages whose servers would be started at once.
need_unstarted() {
    local policy=/usr/sbin/policy-rc.d
    if [ -e "$policy" ]; then
        need "$@"
        return
    fi
    trap "rm -f $policy" EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    need "$@"
    rm -f "$policy"
    trap - EXIT
}

if [ "$(id -u)" -ne 0 ]; then
    echo "$0: makes network namespaces, so it must be run as root: sudo $0" >&2
    exit 1
fi

[ -d "${HOME:-/root}/.cargo/bin" ] && PATH="${HOME:-/root}/.cargo/bin:$PATH"
if ! command -v cargo >/dev/null; then
    cat >&2 <<MESSAGE
$0: there is no Rust toolchain here. Get one with rustup, then run $0 again:

    apt-get install -y curl ca-certificates
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile default
    . "\$HOME/.cargo/env"
MESSAGE
    exit 1
fi

# What a C compiler needs to link comes with libc6-dev; `ip` and `tc` with iproute2.
need cc:gcc nft:nftables ip:iproute2 ping:iputils-ping nsenter:util-linux curl:curl socat:socat
[ -e /usr/include/stdlib.h ] || need stdlib.h:libc6-dev
[ -e /etc/ssl/certs/ca-certificates.crt ] || need certificates:ca-certificates

if [ ! -c /dev/net/tun ] && ! modprobe tun 2>/dev/null; then
    echo "$0: there is no /dev/net/tun: load the kernel's tun module, or give it to this container" >&2
    exit 1
fi
