#!/usr/bin/env bash
# README's first command on a fresh machine: a new Debian 12 with git, Rust and Go of this machine, and nothing else, in a mount
# namespace of its own. Runs the demo twice, without and with caches, and leaves its figures beside the folder.
#
#     tests/fresh_machine.sh /var/tmp/fresh      # as root; 18 minutes on two cores, 15 GB; no other cluster may run
#
# Its processes and network namespaces are the machine's, as those of every local cluster; the last step ends them.
set -euo pipefail

if [ "${1-}" = inside ]; then
    cd "$2"
    mkdir old
    pivot_root . old
    cd /
    umount --lazy /old
    # Kubernetes wants to pass mounts on to pods.
    mount --make-rshared /
    export HOME=/root
    export PATH=/usr/local/go/bin:/root/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    cd /work/main
    trap 'cargo xtask cluster down' EXIT
    cargo xtask demo --json /demo_fresh.json
    cargo xtask cluster down
    cargo xtask demo --json /demo_cached.json
    exit
fi

root=${1:?"say in which new folder"}
repository=$(cd "$(dirname "$0")/.." && pwd)
if [ -e "$root" ]; then
    echo "$root exists: choose a new folder" >&2
    exit 2
fi
packages=git,ca-certificates,build-essential,procps,iproute2
echo "Debian 12 into $root (a minute)"
debootstrap --variant=minbase --include=$packages bookworm "$root" http://deb.debian.org/debian > "$root.debootstrap.log"
mkdir -p "$root/root/.cargo" "$root/work"
cp -a "$(go env GOROOT)" "$root/usr/local/go"
cp -a "${RUSTUP_HOME:-$HOME/.rustup}" "$root/root/.rustup"
cp -a "${CARGO_HOME:-$HOME/.cargo}/bin" "$root/root/.cargo/bin"
cp /etc/resolv.conf /etc/hosts "$root/etc/"
# A network that opens TLS has certificates of its own.
cp -a /usr/local/share/ca-certificates/. "$root/usr/local/share/ca-certificates/"
# It warns of files with several certificates, and takes them.
chroot "$root" update-ca-certificates > /dev/null 2>&1 || true
git clone --quiet "$repository" "$root/work/main"
cp "$0" "$root/fresh_machine.sh"
unshare --mount --propagation private bash -euc '
    mount --bind "$0" "$0"
    mount --types proc proc "$0/proc"
    mount --rbind /sys "$0/sys"
    mount --rbind /dev "$0/dev"
    mount --types tmpfs tmpfs "$0/run"
    bash "$0/fresh_machine.sh" inside "$0"' "$root"
mv "$root/demo_fresh.json" "$root/demo_cached.json" "$(dirname "$root")/"
rm -rf --one-file-system "$root"
