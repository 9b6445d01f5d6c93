# Sourced by the scripts here: where things are, and whether the set-up is up to date. Starts no process.
here=${BASH_SOURCE[0]%/*}
case $here in /*) ;; *) here=$PWD/$here ;; esac
top=${here%/scripts}
case $top in */./*|*/../*|*/.|*/..) top=$(cd "$top" && pwd -P) ;; esac
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fusecas
cargo_target=$cache/target
venv=$cache/venv${top//\//-}

# up_to_date STAMP: whether nothing that the set-up builds from is newer than the last set-up.
up_to_date() {
  local stamp=$venv/$1 source
  [ -e "$stamp" ] && [ -x "$venv/bin/fusecas" ] || return 1
  shopt -s globstar nullglob
  for source in "$top"/pyproject.toml "$top"/scripts/setup "$top"/native "$top"/native/*.toml "$top"/native/Cargo.lock "$top"/native/src/**; do
    [ "$source" -nt "$stamp" ] && return 1
  done
  return 0
}
