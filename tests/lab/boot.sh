# The first process of a host of the lab (see host.py): makes the host ready, says so, and lives until its input ends.
#
#     boot.sh HOSTNAME BOOT_ID         in new namespaces: mount, pid, net, uts, ipc
#
# Prints two lines: its pid as the controller sees it, then "ready". When it ends the kernel kills everything in its
# pid namespace.
set -eu
read -r pid _ < /proc/self/stat  # /proc is still the controller's: the pid from outside
echo "$pid"
hostname "$1"
mount -t proc proc /proc
for place in /tmp /run /dev/shm; do  # what was mounted in them (folders of the controller, read-only) stays
    find "$place" -xdev -mindepth 1 ! -type d -delete
    find "$place" -xdev -mindepth 1 -depth -type d -empty -delete
done
mkdir -p /run/sshd /run/lock
echo "$2" > /run/boot_id
mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
ip link set lo up
echo ready
# What stays waits for the end of the input. With SIGCHLD ignored the kernel itself buries the orphans that come to pid 1
# (dash can't ignore it: it would take its coming for the end of the input).
exec env --ignore-signal=CHLD cat > /dev/null
