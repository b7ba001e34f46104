#!/bin/sh
# Stands for every program a build runs, by the name it is called with: does as little as the next
# stage needs, in milliseconds. $FAKES is the test's folder:
#   calls        gets a line for each call
#   fail-NAME    makes NAME print it and fail
#   killed-NAME  makes NAME end as if the system had killed it
#   slow-NAME    makes NAME wait, after putting its process id there
set -eu
name=$(basename "$0")
echo "$name $*" >>"$FAKES/calls"
if [ -e "$FAKES/slow-$name" ]; then
    echo $$ >"$FAKES/slow-$name"
    sleep 600
fi
if [ -e "$FAKES/fail-$name" ]; then
    cat "$FAKES/fail-$name" >&2
    exit 1
fi
[ ! -e "$FAKES/killed-$name" ] || [ "${1:-}" = version ] || kill -KILL $$
release=6.1.0-1-cloud-amd64
for last; do :; done

# The value of `--option=value` or `-var name=value` among the arguments.
value() {
    wanted=$1
    shift
    for word; do
        case $word in "$wanted="*) printf '%s\n' "${word#"$wanted="}" ;; esac
    done
}

case $name in
apt-get)
    lists=$(value Dir::State::lists "$@")
    case " $* " in
    *" update "*) cp "$FAKES/state" "$lists/mirror_InRelease" ;;
    *" --print-uris "*)
        for package; do
            case $package in
            *=* | /* | -* | \?* | install) ;;
            *) echo "'http://m/$package.deb' ${package}_$(cat "$FAKES/state")_amd64.deb 4 SHA256:dae45e9c4c5641b0e8a58b6c3f0de0dd946b9ac47502cc45ef451f3119ebacd7" ;;
            esac
        done
        ;;
    *" --download-only "*)
        archives=$(value Dir::Cache::archives "$@")
        for package; do
            case $package in
            *=* | /* | -* | \?* | install) ;;
            *) printf 'deb\n' >"$archives/${package}_$(cat "$FAKES/state")_amd64.deb" ;;
            esac
        done
        ;;
    esac
    ;;
apt-config)
    mkdir -p "$FAKES/sources"
    # Two builds ask at the same time: neither may find the file empty.
    echo "deb file:/nonexistent/debian bookworm main" >"$FAKES/sources/debian.list.$$"
    mv "$FAKES/sources/debian.list.$$" "$FAKES/sources/debian.list"
    printf "LIST='%s'\nPARTS='%s'\n" "$FAKES/sources.list" "$FAKES/sources/"
    ;;
apt-cache) printf 'Package: %s\nDepends: linux-image-%s (= 6.1.1-1)\n' "$last" "$release" ;;
dpkg-deb)
    if [ "$1" = --build ]; then
        # --build --root-owner-group -Znone ROOT FILE
        cp "$4/boot/vmlinuz" "$5"
        exit
    fi
    # -x FILE ROOT
    mkdir -p "$3/usr/src/linux-headers-$release"
    echo "CONFIG_BLOCK=y" >"$3/usr/src/linux-headers-$release/.config"
    ;;
mmdebstrap)
    [ "${1:-}" != --version ] || { echo "mmdebstrap 1.3.5"; exit; }
    echo kernel >/proc/self/fd/97
    root=$(mktemp -d)
    mkdir -p "$root/etc" "$root/var/lib/dpkg/info"
    printf 'Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36\n' \
        >"$root/var/lib/dpkg/status"
    echo base >"$root/etc/made-by"
    echo temporary >"$root/etc/for the build"
    find "$root" -exec touch --no-dereference --date=@1700000000 {} +
    printf 'epoch\t1700000000\nlibc6\t2.36\tamd64\n' >/proc/self/fd/98
    files=$(printf '%s\n' "$@" | sed -n "s,^--setup-hook=[^']*'\([^']*/files\)[/.]*'.*,\1,p")
    cp "$files/boot/grub/grub.cfg" "$FAKES/grub.cfg"
    echo "kernel: $VEXFS_KERNEL" >>"$FAKES/calls"
    E2FSPROGS_FAKE_TIME=1700000000 /sbin/mke2fs -q -t ext4 -d "$root" -U 01234567-89ab-8cde-8f01-23456789abcd \
        -E hash_seed=01234567-89ab-8cde-8f01-23456789abcd,lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0 \
        /proc/self/fd/99
    rm -rf "$root"
    ;;
unshare)
    # mmdebstrap's private mounts: here it is only another program. The builder root comes otherwise.
    [ "$2" != --propagation=private ] || { shift 2; exec "$@"; }
    [ ! -e "$FAKES/fail-module" ] || { cat "$FAKES/fail-module" >&2; exit 1; }
    # …options sh -euc ENTER sh ROOT BUILD /usr/bin/env -i NAME=VALUE… sh -euc SCRIPT sh make vm-build
    while [ "$1" != /usr/bin/env ]; do
        build=$1
        shift
    done
    kver=$(value KVER "$@")
    case $* in
    *scripts/sign-file*)
        [ -s "$SIGNING_KEY" ]
        find "$build/sign/" -name '*.ko' | while read -r module; do
            printf '~Module signature appended~\n' >>"$module"
        done
        exit
        ;;
    *localmodconfig*)
        mkdir "$build/linux"
        cp "$build/distribution.config" "$build/trimmed.config"
        exit
        ;;
    *settled.config*)
        # Every option is had, but for one that the test names.
        lacks=$(cat "$FAKES/kernel-lacks" 2>/dev/null || echo nothing)
        grep -v "$lacks" "$build/merged.config" >"$build/settled.config"
        exit
        ;;
    *bzImage*)
        mkdir -p "$build/tree" "$build/root/boot"
        cp "$build/merged.config" "$build/tree/.config"
        echo "kernel $kver" >"$build/root/boot/vmlinuz"
        printf 'cache_miss\ndirect_cache_hit\n' >"$build/ccache-stats"
        exit
        ;;
    *touch*) exit ;;
    esac
    cat "$build/src/super.c"
    if grep -q BROKEN "$build/src/super.c"; then
        echo "/build/src/super.c:1:1: error: unknown type name 'BROKEN'"
        echo "    1 | BROKEN x;"
        echo "/build/src/super.c:1:9: error: expected ';' before 'x'"
        echo "/build/src/inode.c:7:2: error: 'y' undeclared"
        echo "make[1]: *** [super.o] Error 1"
        echo "make: *** [vm-build] Error 2"
        exit 2
    fi
    printf 'ELF\0version=1.0.0\0vermagic=%s SMP\0' "$kver" >"$build/module.ko"
    cp "$build/module.ko" "$build/debug.ko"
    ;;
cargo)
    if [ "$1" = install ]; then
        # install --locked --target TARGET --root ROOT NAME@VERSION…: the crates stay where cargo keeps them.
        root=$(while [ "$1" != --root ]; do shift; done; echo "$2")
        mkdir -p "$root/bin"
        for crate; do
            case $crate in *@*) ;; *) continue ;; esac
            id=${crate%@*}-${crate#*@}
            mkdir -p "$CARGO_HOME/registry/cache/index" "$CARGO_HOME/registry/src/index/$id"
            echo "$crate" >"$CARGO_HOME/registry/cache/index/$id.crate"
            cp "$FAKES/suite.lock" "$CARGO_HOME/registry/src/index/$id/Cargo.lock"
            echo "$crate" >"$root/bin/${crate%@*}"
        done
        exit
    fi
    target=$(while [ "$1" != --target-dir ]; do shift; done; echo "$2")
    mkdir -p "$target/x86_64-unknown-linux-gnu/release"
    for program in vexfs-agent vexfs-seed vexctl vexfs-proof; do
        echo "$program" >"$target/x86_64-unknown-linux-gnu/release/$program"
    done
    ;;
rustc) printf 'rustc 1.95.0\nrelease: 1.95.0\n' ;;
grub-mkimage)
    [ "${1:-}" != --version ] || { echo "grub-mkimage (GRUB) 2.06"; exit; }
    # Three sectors; the first one's block list says that two follow.
    core=$(value --output "$@")
    head -c 508 /dev/zero >"$core"
    printf '\002\000\040\010' >>"$core"
    head -c 1024 /dev/zero >>"$core"
    ;;
ssh-keygen)
    echo "private" >"$last"
    echo "ssh-ed25519 AAAAPUBLICKEY vexfs-build" >"$last.pub"
    ;;
packer)
    [ "${1:-}" != version ] || { echo "Packer v1.6.6"; exit; }
    output=$(value output_dir "$@")
    if [ -e "$FAKES/console" ]; then
        cat "$FAKES/console" >"$(value console_log "$@")"
        echo "Build 'qemu.vexfs' errored: Timeout waiting for SSH."
        # A host that was busy once.
        [ ! -e "$FAKES/console-once" ] || rm "$FAKES/console"
        exit 1
    fi
    if [ -e "$FAKES/script-fails" ]; then
        echo "    qemu.vexfs: stage: 80-test.sh"
        sed 's/^/    qemu.vexfs: /' "$FAKES/script-fails"
        echo "Build 'qemu.vexfs' errored: Script exited with non-zero exit status: 1."
        exit 1
    fi
    mkdir "$output"
    cp "$(value payload_dir "$@")/files.tar" "$FAKES/files.tar"
    # A machine that ran: a file changed, one gone, one new, at another time and place each run.
    disk=$output/disk.raw
    cp --sparse=always "$(value base_disk "$@")" "$disk"
    ran=$(mktemp -d)
    echo "provisioned" >"$ran/made-by"
    cp "$(value ssh_private_key_file "$@").pub" "$ran/key"
    head -c $((($$ % 7 + 1) * 4096)) /dev/urandom >"$ran/noise"
    {
        echo "cd /var"
        echo "write $ran/noise noise"
        echo "rm /etc/made-by"
        echo "rm \"/etc/for the build\""
        echo "cd /etc"
        echo "write $ran/made-by made-by"
        echo "sif /etc/made-by mode 0100640"
        echo "mkdir /etc/vexfs"
        echo "symlink /etc/vexfs/link ../made-by"
        echo "rm /var/noise"
        [ ! -e "$FAKES/forgets-key" ] || echo "write $ran/key key"
    } >"$ran/script"
    /sbin/debugfs -w -f "$ran/script" "$disk?offset=$((66 << 20))" >"$ran/log" 2>&1
    rm -rf "$ran"
    ;;
qemu-system-x86_64) echo "QEMU emulator version 7.2.22 (Debian)" ;;
zstd)
    [ "${1:-}" != --version ] || { echo "*** zstd v1.5.4 ***"; exit; }
    while [ "$1" != -o ]; do shift; done
    cp "$3" "$2"
    ;;
mke2fs) echo "mke2fs 1.47.0 (5-Feb-2023)" ;;
mkfs.vfat) echo "mkfs.fat 4.2 (2021-01-31)" ;;
mcopy) echo "mcopy (GNU mtools) 4.0.33" ;;
git | mmd) ;;
# Disks are real ones.
debugfs | e2fsck | resize2fs | sgdisk) exec "/sbin/$name" "$@" ;;
qemu-img) exec /usr/bin/qemu-img "$@" ;;
*)
    echo "no fake for $name" >&2
    exit 1
    ;;
esac
