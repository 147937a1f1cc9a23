#!/bin/sh
# A source of classic guests whose root file systems are logical volumes: /dev/$VOLUME_GROUP/GUEST, configured in
# /etc/xen/GUEST.cfg. It lies on the classic Xen host and is run there over ssh, for instance as
#     command: [ssh, -i, /root/.ssh/classic, root@xen7, /usr/local/sbin/classic_source_lvm.sh]
# The words are those of celltree_classic.py. rsync reads over the same way: `shell` is "ssh -i /root/.ssh/classic".
set -eu

: "${VOLUME_GROUP:=vg0}" "${SNAPSHOT_SIZE:=4G}" "${TOOL:=xm}" "${SHOWN:=/var/lib/celltree}" "${HOST_NAME:=root@$(hostname)}"
word=${1:?snapshot, final, release or power-on} guest=${2:?the guest}
case $guest in *[!A-Za-z0-9._-]* | .*) echo "no name of a guest: $guest" >&2; exit 2 ;; esac
volume=/dev/$VOLUME_GROUP/$guest snapshot=/dev/$VOLUME_GROUP/$guest-celltree folder=$SHOWN/$guest

runs() { "$TOOL" list "$guest" >/dev/null 2>&1; }

release() {
    if mountpoint -q "$folder"; then umount "$folder"; fi
    if [ -e "$snapshot" ]; then lvremove -f "$snapshot" >/dev/null; fi
}

show() { # DEVICE OPTIONS
    mkdir -p "$folder"
    mount -o "$2" "$1" "$folder"
    echo "$HOST_NAME:$folder"
}

case $word in
    snapshot)
        release
        lvcreate -s -L "$SNAPSHOT_SIZE" -n "$guest-celltree" "$volume" >/dev/null
        # Read and write: the journal of a guest that runs has to be replayed.
        show "$snapshot" rw ;;
    final)
        release
        if runs; then "$TOOL" shutdown -w "$guest" >/dev/null; fi
        show "$volume" ro ;;
    release) release ;;
    power-on)
        release
        runs || "$TOOL" create "/etc/xen/$guest.cfg" >/dev/null ;;
    *) echo "no such word: $word" >&2; exit 2 ;;
esac
