# PID 1 of a node: makes the machine's files the node's own, then reaps. $1: the node's folder.
set -e
own=/run/node
mkdir -p $own /run/cgroup
mount --bind "$1" $own

# Own forms of what is written to; what is there stays readable.
for place in etc var; do
    mount -t overlay -o lowerdir=/$place,upperdir=$own/$place,workdir=$own/$place.work overlay /$place
done
# An overlay cannot lie on another one: containers need the real thing.
for place in containerd kubelet cni; do
    mkdir -p /var/lib/$place
    mount --bind $own/lib/$place /var/lib/$place
done

# The node's own interfaces in /sys, with the machine's cgroups.
mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount --move /run/cgroup /sys/fs/cgroup
mount -t bpf -o nosuid,nodev,noexec bpf /sys/fs/bpf 2>/dev/null || true

# Settings of the whole machine, which the kubelet writes.
for file in $own/sys/*; do
    mount --bind "$file" "/proc/sys/$(basename "$file" | tr . /)"
done

mount --make-rshared /
: >/run/node-ready
sleep infinity &
while :; do wait; done
