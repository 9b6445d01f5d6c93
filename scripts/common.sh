# Sourced by the scripts here, with `self` set to their own path: where things are, and whether the set-up is up to date.
here=$(cd -P -- "${self%/*}" >/dev/null && pwd -P)
top=${here%/scripts}
: "${HOME:=$(getent passwd "$(id -u)" | cut -d: -f6)}"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fusecas
cargo_target=$cache/target
read -r place _ < <(printf %s "$top" | sha256sum)
venv=$cache/venv-${top##*/}-${place:0:12}

# What the set-up builds from: another file at an old name shows, whatever its time says.
sources() {
  shopt -s globstar nullglob
  stat -c '%n %i %s %Y %Z' "$top"/pyproject.toml "$top"/scripts/setup "$top"/native/*.toml "$top"/native/*.lock "$top"/native/src/**/*.rs
}

# up_to_date STAMP: whether the last set-up of that kind was made of what is here now.
up_to_date() {
  [ -e "$venv/$1" ] && [ -x "$venv/bin/fusecas" ] && [ "$(<"$venv/$1")" = "$(sources)" ]
}
