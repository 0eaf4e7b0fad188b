#!/usr/bin/env bash
# Packs the environment into one archive, so that a job's nodes read one file and not some thousands of
# small ones a rank. Once after each change of the environment, from the repository's top folder:
#
#   jobs/pack_environment.sh /lus/PROJECT/bnn.tar      then   qsub -v BNN_PACKED=/lus/PROJECT/bnn.tar …
#
# A name that ends in .tar.zst is compressed, which the nodes need zstd for, too. BNN_ENV is what is
# packed (.venv, else the active conda environment). ARCHIVE.sum, beside it, says how to check it. Of a
# virtual environment the interpreter comes along, unless it is one of the system in /usr, which the
# nodes have. bnnlib stays where it is, so that a run's code is the checkout's.
# jobs/packed.sh unpacks it.
set -euo pipefail

archive=${1:?the archive to write, such as jobs/pack_environment.sh /lus/PROJECT/bnn.tar}
env=${BNN_ENV:-$PWD/.venv}
[ -n "${BNN_ENV:-}" ] || [ -d "$env" ] || env=${CONDA_PREFIX:-$env}
env=$(realpath "$env")
# What no run imports; it is a third of the whole.
unused=(cmake cmake-*.data clang mypy mypyc playwright tensorflow/include)

die() {
  echo "pack_environment.sh: $*" >&2
  exit 1
}
[ -x "$env/bin/python" ] || die "BNN_ENV=$env: no bin/python there; make env, or name your environment."
case $archive in
  *.tar) compress=(cat) ;;
  *.tar.zst) compress=(zstd -q -3 -T0) ;;
  *) die "$archive: expected a name that ends in .tar or .tar.zst." ;;
esac
command -v "${compress[0]}" >/dev/null || die "$archive: no zstd here; choose a name that ends in .tar."

# The interpreter's own files: itself, its library, and what its modules load from its folder.
{ read -r base && read -r python && read -r stdlib; } < <("$env/bin/python" -c 'import os, sys, sysconfig
base = os.path.realpath(sys.base_prefix)
in_system = (base + "/").startswith("/usr/") and not base.startswith("/usr/local")
own = sys.prefix != sys.base_prefix and not in_system
print(base if own else "")
print(os.path.realpath(sys.executable))
print(os.path.realpath(sysconfig.get_path("stdlib")))')
parts=("$env")
if [ -n "$base" ]; then
  parts+=("$python" "$stdlib")
  while read -r library; do
    parts+=("$library" "$(realpath "$library")")
  done < <(ldd "$python" "$stdlib"/lib-dynload/*.so | sed -n "s|.* => \($base/[^ ]*\) .*|\1|p" | sort -u)
fi

excluded=()
for name in "${unused[@]}"; do
  excluded+=(--exclude="lib/python3.*/site-packages/$name")
done
[ -z "$base" ] || excluded+=(--exclude="${stdlib#/}/site-packages" --exclude="${stdlib#/}/test"
  --exclude="${stdlib#/}/config-*")

# Under another name until it is whole.
tar -c --sort=name -C / "${excluded[@]}" "${parts[@]/#\//}" | "${compress[@]}" >"$archive.new"
sum=$(cksum <"$archive.new")
unpacked=$("${compress[0]}" ${compress[1]+-dcq} <"$archive.new" | wc -c)
printf '%s\n' "$sum $unpacked" "$env" "$base" "$python" >"$archive.sum"
mv "$archive.new" "$archive"
echo "$archive: $((${sum#* } / 1000000)) MB, of $env${base:+ and $base}"
