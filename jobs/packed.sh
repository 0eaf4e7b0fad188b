#!/usr/bin/env bash
# packed.sh PROGRAM WORDS…: what each rank starts instead of PROGRAM where BNN_PACKED names an archive
# of jobs/pack_environment.sh: PROGRAM of this node's own copy of the environment.
#
# Whichever rank of the node comes first unpacks the archive to the folder BNN_NODE_DISK, the others
# wait. A copy counts once it is whole, and its name is the archive's checksum, so that an older one is
# never taken for it. Jobs on one node share it: each rank holds a lock on it for as long as it runs,
# and `packed.sh --remove`, once a node at a job's end, removes it unless a rank of another job has it.
set -euo pipefail

die() {
  echo "$(hostname): $*" >&2
  exit 1
}
archive=${BNN_PACKED:?the archive of jobs/pack_environment.sh}
[ -f "$archive.sum" ] || die "BNN_PACKED=$archive: no $archive.sum; jobs/pack_environment.sh makes both."
{ read -r sum size unpacked && read -r env && read -r base && read -r python; } <"$archive.sum"
disk=${BNN_NODE_DISK:-${TMPDIR:-/tmp}}
mine=$disk/bnn-$(id -u)
copy=$mine/$sum-$size

if ! mkdir -m 700 "$mine" 2>/dev/null && [ ! -d "$mine" ]; then
  die "BNN_NODE_DISK=$disk: this node has no such folder that you may write to."
fi
# Others may write to /tmp, and must not choose what runs here.
if [ ! -O "$mine" ] || [ -L "$mine" ]; then
  die "$mine is not your own folder; name another BNN_NODE_DISK."
fi
# A number that nothing has: MPI's launcher has given the rank open files of its own, on PMI_FD.
exec {lock}>"$copy.lock"

if [ "$1" = --remove ]; then
  # The lock's file stays: another job may be waiting for it.
  ! flock --exclusive --nonblock "$lock" || rm -rf "$copy" "$copy.new"
  exit 0
fi

whole() { [ "$(cat "$copy/stamp" 2>/dev/null)" = "$sum $size" ]; }

unpack() {
  local got free name expand=(cat) new=$copy.new
  [ "${archive%.zst}" = "$archive" ] || expand=(zstd -dcq)
  command -v "${expand[0]}" >/dev/null || die "$archive: no zstd on this node; pack it as .tar."
  [ "$(stat -c %s "$archive")" = "$size" ] ||
    die "$archive is not the file of $size bytes that $archive.sum tells of: copy or pack it again."
  rm -rf "$copy" "$new"
  free=$(df --output=avail --block-size=1 "$disk" | tail -n 1)
  [ "$free" -gt "$unpacked" ] || full "$free bytes are free"
  mkdir "$new"
  # The archive is read once, for tar and for the checksum.
  got=$({ tee /dev/fd/3 <"$archive" | "${expand[@]}" | tar -x -C "$new"; } 3>&1 1>&2 | cksum) ||
    full "unpacking failed there, for the reason above"
  if [ "$got" != "$sum $size" ]; then
    rm -rf "$new"
    die "$archive is not what its $archive.sum was made of: copy or pack it again."
  fi

  # A virtual environment names its interpreter by absolute paths, and the interpreter its library.
  if [ -f "$new$env/pyvenv.cfg" ]; then
    for name in python python3 "$(basename "$python")"; do
      ln -sfn "${base:+$copy}$python" "$new$env/bin/$name"
    done
    sed -i "s|^home = .*|home = ${base:+$copy}$(dirname "$python")|" "$new$env/pyvenv.cfg"
  fi
  mkdir "$new/lib"
  [ -z "$base" ] || find "$new$base" -maxdepth 2 -name 'libpython*.so*' -exec cp -P {} "$new/lib" \;
  echo "$sum $size" >"$new/stamp"
  mv "$new" "$copy"
}

full() {
  local have
  rm -rf "$copy.new"
  have=$(du -sh "$mine"/*/ 2>/dev/null | tr '\t\n' '  ' || true)
  die "BNN_NODE_DISK=$disk: $1, and the environment needs $unpacked. Name another folder, or remove" \
    "the copies of your jobs that have ended: ${have:-there is none}."
}

# The lock is the rank's own from here to its end: PROGRAM inherits it.
flock --shared "$lock"
until whole; do
  # Never wait for all others to let go: one that has begun may wait, in MPI_Init, for this rank.
  if flock --exclusive --nonblock "$lock"; then
    whole || unpack
  else
    flock --unlock "$lock"
    sleep 0.2
  fi
  flock --shared "$lock" # waits for whoever unpacks; another job's --remove may come between
done

export PATH=$copy$env/bin:$PATH
# After the site's own MPI. Horovod names the folder of MPI's library by its absolute path; of a conda
# environment's many libraries none may take a system's place, and those find each other.
libraries=$copy/lib
[ ! -f "$copy$env/pyvenv.cfg" ] || libraries+=:$copy$env/lib
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$libraries
program=$1
shift
# A script of the environment names the interpreter that it was installed by: the copy's takes it.
script=$copy$env/bin/$program
if [ -f "$script" ] && [[ $(head -n 2 "$script" | tr -d "\0") == "#!"*python* ]]; then
  exec "$copy$env/bin/python" "$script" "$@"
fi
exec "$program" "$@"
