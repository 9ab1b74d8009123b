#!/bin/sh
# Builds the root file system of an Odoo 19 image from Debian packages, for machines that reach no image registry.
#
#   build-from-packages.sh OUTPUT.tar      as root; then: docker import OUTPUT.tar NAME (with image.changes)
#
# Everything comes from Debian stable (trixie) with its security updates; one package, odoo-19, is in unstable only and is
# taken from there by pinning (all of unstable brings a Python that Odoo 19 does not run on). Signatures are always checked.
# It needs no Docker: debootstrap, unshare, flock, tar. The output appears by one rename, so it is whole or absent. Killed at
# any moment it leaves OUTPUT.tar.building behind, which the next run removes; its mounts end with it, since it works in
# namespaces of its own.
#
# PDF reports: Debian trixie has no wkhtmltopdf and no rtlcss. Odoo runs without (it shows reports as web pages, and
# right-to-left languages in a left-to-right layout); where both matter use the official image.
set -eu

release=trixie
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
# Beyond what odoo-19 depends on: names of processes, LDAP sign-in, phone numbers, text of PDFs, Google's mail sign-in, slugs.
extra="python3-setproctitle python3-ldap python3-phonenumbers python3-pdfminer python3-google-auth python3-slugify tzdata"

say() { printf '%s %s\n' "$(date +%H:%M:%S)" "$*" >&2; }
die() { printf 'build-from-packages: %s\n' "$*" >&2; exit 1; }

# The Debian mirror that this machine itself uses, or Debian's own.
mirror_of() { # LABEL DEFAULT
    found=
    if command -v apt-get >/dev/null 2>&1; then
        # The format is apt's: it names its own fields with a dollar sign.
        # shellcheck disable=SC2016
        found=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
            awk -v label="$1" '$1 == label && $2 ~ /^https?:/ { print $2; exit }')
    fi
    printf '%s\n' "${found:-$2}"
}

# debootstrap fetches with wget and apt inside the root knows nothing of this machine's configuration: hand the proxy on.
export_proxy() {
    command -v apt-config >/dev/null 2>&1 || return 0
    APT_HTTP=
    APT_HTTPS=
    eval "$(apt-config shell APT_HTTP Acquire::http::Proxy APT_HTTPS Acquire::https::Proxy)"
    case "$APT_HTTP" in http*) http_proxy=$APT_HTTP; export http_proxy ;; esac
    case "$APT_HTTPS" in http*) https_proxy=$APT_HTTPS; export https_proxy ;; esac
}

write_apt_sources() { # ROOT MIRROR SECURITY_MIRROR
    rm -f "$1/etc/apt/sources.list"
    cat > "$1/etc/apt/sources.list.d/debian.sources" <<SOURCES
Types: deb
URIs: $2
Suites: $release $release-updates
Components: main
Signed-By: $keyring

Types: deb
URIs: $3
Suites: $release-security
Components: main
Signed-By: $keyring
SOURCES
}

write_unstable() { # ROOT MIRROR
    # A mirror may lag behind unstable's short validity; the signature is checked all the same.
    cat > "$1/etc/apt/sources.list.d/unstable.sources" <<SOURCES
Types: deb
URIs: $2
Suites: unstable
Components: main
Check-Valid-Until: no
Signed-By: $keyring
SOURCES
    cat > "$1/etc/apt/preferences.d/odoo-alone-from-unstable" <<PINS
Package: *
Pin: release n=sid
Pin-Priority: -1

Package: odoo-19
Pin: release n=sid
Pin-Priority: 500
PINS
}

# What no pool reads. Odoo's own translations (*.po) stay: a tenant may choose any language at any time.
# dist-packages/addons, doc and setup are strays of the package: a second copy of the addons' code without their data,
# which Odoo would put on its addons path.
write_excludes() { # ROOT
    cat > "$1/etc/dpkg/dpkg.cfg.d/platform-slim" <<'EXCLUDES'
force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/doc-base/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/lintian/*
path-exclude=/usr/share/linda/*
path-exclude=/usr/share/bug/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/bash-completion/*
path-exclude=/usr/share/zsh/*
path-exclude=/lib/systemd/*
path-exclude=/usr/lib/systemd/*
path-exclude=/usr/lib/python3/dist-packages/addons/*
path-exclude=/usr/lib/python3/dist-packages/doc/*
path-exclude=/usr/lib/python3/dist-packages/setup/*
path-exclude=/usr/lib/python3/dist-packages/odoo/addons/*/tests/*
path-include=/usr/lib/python3/dist-packages/odoo/addons/*/static/*
path-exclude=/usr/lib/python3/dist-packages/odoo/addons/test_*
path-exclude=/usr/lib/python3/dist-packages/odoo/addons/*.pot
EXCLUDES
}

# The second half, in namespaces of its own: whatever ends its first process ends all its children and its mounts.
build() { # OUTPUT WORK
    output=$1
    root=$2/root
    mirror=$(mirror_of Debian http://deb.debian.org/debian)
    security=$(mirror_of Debian-Security http://deb.debian.org/debian-security)
    export_proxy

    say "bootstrap of Debian $release"
    debootstrap --variant=minbase --keyring="$keyring" --include=ca-certificates "$release" "$root" "$mirror" > "$2/debootstrap.log" 2>&1 || {
        tail -n 20 "$2/debootstrap.log" >&2
        die "debootstrap failed"
    }

    printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
    chmod 0755 "$root/usr/sbin/policy-rc.d"
    write_excludes "$root"
    write_apt_sources "$root" "$mirror" "$security"
    write_unstable "$root" "$mirror"
    mount -t proc proc "$root/proc"

    say "packages"
    in_root() { DEBIAN_FRONTEND=noninteractive LC_ALL=C chroot "$root" "$@"; }
    # shellcheck disable=SC2086 # $extra is a list of names, split on purpose
    install_odoo() { in_root apt-get -o Acquire::Retries=3 -y --no-install-recommends install odoo-19 $extra; }
    {
        in_root apt-get -o Acquire::Retries=3 -o Acquire::Languages=none -o APT::Update::Error-Mode=any update &&
            in_root apt-get -o Acquire::Retries=3 -y --no-install-recommends upgrade &&
            install_odoo
    } > "$2/apt.log" 2>&1 || {
        tail -n 30 "$2/apt.log" >&2
        die "installing the packages failed"
    }
    in_root python3 -c 'import odoo.release, gevent, psycopg2, passlib, sass, lxml_html_clean, setproctitle' ||
        die "a library that a pool needs is missing"

    say "clean up"
    # shellcheck disable=SC2016 # dpkg-query's own fields
    in_root dpkg-query -W -f '${Package}\t${Version}\n' > "$root/etc/platform-image.versions"
    umount "$root/proc"
    rm -f "$root/usr/sbin/policy-rc.d" "$root/etc/apt/sources.list.d/unstable.sources" \
        "$root/etc/apt/preferences.d/odoo-alone-from-unstable"
    write_apt_sources "$root" http://deb.debian.org/debian http://deb.debian.org/debian-security
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/cache/debconf/* "$root"/var/log/* \
        "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/info/* "$root"/usr/share/locale/* \
        "$root"/tmp/* "$root"/var/tmp/* "$root"/etc/machine-id "${root:?}"/dev/*
    : > "$root/etc/resolv.conf"

    say "tar"
    tar --numeric-owner --one-file-system --sort=name -C "$root" -cf "$output.tmp" .
    mv -f "$output.tmp" "$output"
    version=$(awk '$1 == "odoo-19" { print $2 }' "$root/etc/platform-image.versions")
    printf '%s: %s MiB, odoo-19 %s\n' "$output" "$(($(wc -c < "$output") / 1048576))" "$version"
}

if [ "${1:-}" = --in-namespaces ]; then
    build "$2" "$3"
    exit 0
fi

[ $# -eq 1 ] || die "usage: build-from-packages.sh OUTPUT.tar"
[ "$(id -u)" -eq 0 ] || die "must run as root (debootstrap and chroot)"
for tool in debootstrap unshare flock tar; do
    command -v "$tool" >/dev/null 2>&1 || die "$tool is missing: apt-get install debootstrap util-linux tar"
done
[ -r "$keyring" ] || die "$keyring is missing: apt-get install debian-archive-keyring"

mkdir -p "$(dirname "$1")"
output=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
work=$output.building
# One build of an output at a time. The lock is held by whatever still builds: after a kill of this script alone, its
# children may go on and finish, and the next run waits for them.
exec 9> "$output.lock"
flock -n 9 || { say "another build of $output runs: waiting for it"; flock 9; }
rm -rf --one-file-system "$work" "$output.tmp"
if [ -s "$output" ]; then
    printf '%s: built already\n' "$output"
    exit 0
fi
mkdir -p "$work"
child=
trap 'rm -rf --one-file-system "$work" "$output.tmp"' EXIT
trap '[ -z "$child" ] || { kill -KILL "$child"; wait "$child"; } 2>/dev/null; exit 143' INT TERM HUP
unshare --mount --pid --fork --kill-child --propagation private sh "$0" --in-namespaces "$output" "$work" &
child=$!
wait "$child"
