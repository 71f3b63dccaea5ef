#!/usr/bin/env bash
# Makes certificates for encrypted connections, with openssl: an authority, unless the folder has one, and one certificate that it signs.
#
#   deploy/certificates.sh FOLDER NAME HOST...
#
# FOLDER gets ca.crt, which others are given to trust, and ca.key, which signs: keep it off the servers. NAME.crt and NAME.key are for the
# one who is called so: a server with its HOSTs, each a name or an address that it is asked by, or a client, which needs no host.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$1"
cd "$1"
name=$2
shift 2
umask 077
trap 'rm -f "$name.csr" "$name.ext"' EXIT

command -v openssl >/dev/null || { echo "certificates: no openssl found: apt-get install openssl" >&2; exit 1; }

# What openssl says matters only when it fails.
openssl() {
  local said
  said=$(command openssl "$@" 2>&1) || { printf 'certificates: openssl %s: %s\n' "$1" "$said" >&2; exit 1; }
}

key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
[ -e ca.key ] || openssl req -x509 "${key[@]}" -days 3650 -subj /CN=sagitta-ca -keyout ca.key -out ca.crt \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign

{
  echo extendedKeyUsage=serverAuth,clientAuth
  for host in "$@"; do
    case $host in
      *:* | *[0-9].[0-9]*.[0-9]*.[0-9]*) echo "IP:$host" ;;
      *) echo "DNS:$host" ;;
    esac
  done | paste -sd, | sed -n 's/^./subjectAltName=&/p'
} >"$name.ext"
openssl req "${key[@]}" -subj "/CN=$name" -keyout "$name.key" -out "$name.csr"
openssl x509 -req -in "$name.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -extfile "$name.ext" -out "$name.crt"
chmod a+r ca.crt "$name.crt"
