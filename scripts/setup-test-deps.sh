#!/usr/bin/env bash
# Installs what the black-box tests drive: stock clients from Debian, and Python clients in target/venv.
# Quick when everything is there; safe to run again. Starts no service. As root it installs, otherwise it prints the command and fails.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(bsdutils gcc kcat libmpich-dev libopenmpi-dev mpich openmpi-bin python3-venv rsyslog rsyslog-relp)
# What tests/python/fs drives on a mounted filesystem.
packages+=(acl dbench fio fuse3 make rsync samba smbclient)
requirements=tests/python/requirements.txt
venv=${KILN_TEST_VENV:-target/venv}

missing_packages() {
    local package
    for package in "${packages[@]}"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || echo "$package"
    done
}

# Debian starts a service as soon as its package is installed, unless this file says no (invoke-rc.d(8)).
guard=/usr/sbin/policy-rc.d
without_services() {
    local made=
    if [ ! -e "$guard" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$guard"
        chmod 755 "$guard"
        made=yes
    fi
    local status=0
    "$@" || status=$?
    [ -z "$made" ] || rm -f "$guard"
    return "$status"
}

install_packages() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

mapfile -t missing < <(missing_packages)
if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        echo "The tests need these programs, by the names of Debian's packages: ${missing[*]}" >&2
        exit 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        echo "The tests need packages that are not installed. Run:" >&2
        echo "    sudo apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
    echo "installing ${missing[*]}"
    without_services install_packages "${missing[@]}"
fi

# The stamp is the list that was installed, so that a changed list installs again.
stamp=$venv/requirements.installed
if ! cmp -s "$requirements" "$stamp"; then
    echo "installing Python clients into $venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$stamp"
fi
