# Prepares the disk and the control groups of a machine, in a mount namespace of its own:
# MACHINE, BASE, DISK and DISK_BYTES say which. Then the process becomes systemd-nspawn.

layers=$DISK
mkdir -p "$DISK/upper" "$DISK/root"
if [ "$DISK_BYTES" != 0 ]; then
    # A disk of a certain size is lost with the power.
    layers=$DISK/small
    mkdir -p "$layers"
    mount -t tmpfs -o "size=$DISK_BYTES,mode=755" disk "$layers"
    cp -a "$DISK/upper" "$layers/"
fi
mkdir -p "$layers/work"
mount -t overlay overlay -o "lowerdir=$BASE,upperdir=$layers/upper,workdir=$layers/work" "$DISK/root"

# Two machines in one group would end each other: each has its own, in every hierarchy there is.
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
    [ -e "$hierarchy/cgroup.procs" ] || continue
    mkdir -p "$hierarchy/$MACHINE"
    echo $$ > "$hierarchy/$MACHINE/cgroup.procs"
done

# systemd makes this where it is process 1, and nspawn relies on it.
mkdir -p /run/systemd/inaccessible
[ -e /run/systemd/inaccessible/reg ] || (umask 777; : > /run/systemd/inaccessible/reg)

export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
export SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
