# Removes a lab when its owner is gone: guardian.sh ID DIRECTORY
#
# Waits on standard input, whose other end only the owner holds: end of file means that the owner
# is done or dead, however it died. The one word "keep" means that the lab stays.

id=$1
directory=$2
trap '' INT TERM HUP PIPE
word=
read -r word
[ "$word" = keep ] && exit 0

problems=0
for path in /run/netns/"$id"-*; do
    [ -e "$path" ] || continue
    name=${path##*/}
    # Whoever lives in the namespace goes with it, also what its programs left in the background.
    rounds=0
    while pids=$(ip netns pids "$name" 2>/dev/null) && [ -n "$pids" ]; do
        kill -9 $pids 2>/dev/null
        rounds=$((rounds + 1))
        if [ "$rounds" -gt 500 ]; then
            echo "processes that cannot be killed in $name: $pids" >&2
            problems=1
            break
        fi
        sleep 0.01
    done
    # Interfaces live in namespaces only, so they vanish with them.
    said=$(ip netns del "$name" 2>&1)
    if [ -e "$path" ]; then
        echo "$said" >&2
        problems=1
    fi
done
# Machines that were booted here had control groups of their own, which are empty by now.
for group in /sys/fs/cgroup/"$id"-* /sys/fs/cgroup/*/"$id"-*; do
    rounds=0
    while [ -d "$group" ] && [ "$rounds" -lt 200 ]; do
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.01
        rounds=$((rounds + 1))
    done
done
rm -rf "$directory" || problems=1
exit "$problems"
