#!/bin/busybox sh
# The guest's first process: mounts the host's root, read-only below a layer in memory, and hands
# over to the script of that root that the command line names (guest=), with the modules of mods=.
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
$B mount -t devtmpfs dev /dev
for module in $($B cat /modules/order); do $B insmod /modules/$module; done
$B mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose host /host
$B mount -t tmpfs layer /layer
$B mkdir /layer/upper /layer/work
$B mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work root /root
for dir in proc sys dev; do $B mount --move /$dir /root/$dir; done
$B mkdir -p /root/dev/pts /root/dev/shm
$B mount -t devpts pts /root/dev/pts
$B mount -t tmpfs shm /root/dev/shm
$B mount -t tmpfs run /root/run
for word in $($B cat /root/proc/cmdline); do
    case $word in guest=*) script=${word#guest=} ;; mods=*) modules=${word#mods=} ;; esac
done
$B mkdir -p /root/lib/modules
$B mount --bind /root$modules /root/lib/modules
# Not a chroot in a child: the kernel runs modprobe in the first process's root.
exec $B switch_root /root /bin/sh -c "/bin/sh $script </dev/null >/dev/console 2>&1
echo GUEST-STATUS=\$? >/dev/console
exec busybox poweroff -f"
