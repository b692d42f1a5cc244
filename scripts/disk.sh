# Sourced by scripts that write gigabytes, so that a full disk is told before the work, and not in the middle of it.

# need_disk GIB WHAT FOLDER...: returns 1, with a message, if a folder's file system has less than GIB GiB free. A folder
# that does not exist yet is looked up by the nearest one above it.
need_disk() {
  local gib=$1 what=$2 folder free
  shift 2
  for folder in "$@"; do
    while [ ! -e "$folder" ]; do folder=$(dirname "$folder"); done
    free=$(($(df --output=avail --block-size=1 "$folder" | tail -n 1) >> 30))
    if [ "$free" -lt "$gib" ]; then
      echo "$what needs $gib GiB of free disk in $folder; $free GiB are free. Free some, or set RFT_DISK_GIB=0 to try anyway." >&2
      return 1
    fi
  done
}
