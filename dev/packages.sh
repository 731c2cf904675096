# Sourced by dev/up and dev/test: what the machine must have, and getting it.
# shellcheck shell=bash
: "${root:?the script that sources this says where the checkout is}"

say() { printf '%s\n' "$*" >&2; }

# Java 17 or newer, looked for where src/dev/kafka/java.rs looks.
has_java() {
  local java version
  for java in ${JAVA_HOME:+"$JAVA_HOME/bin/java"} java /usr/lib/jvm/*/bin/java; do
    version=$("$java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1) || continue
    if [[ -n $version && $version -ge 17 ]]; then return 0; fi
  done
  return 1
}

# Kafka's jars are fetched with Maven unless they are there already, or another Kafka is named (src/dev/kafka/find.rs).
needs_maven() {
  local version
  if [[ -n ${SLUICE_BOOTSTRAP:-} || -n ${KAFKA_HOME:-} ]]; then return 1; fi
  version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$root/dev/kafka/pom.xml")
  [[ ! -d ${XDG_CACHE_HOME:-$HOME/.cache}/sluice/kafka-$version/libs ]]
}

# The schema registry of the tests, where tests/it/support/registry.rs keeps it.
has_registry() {
  local version
  version=$(sed -n 's/^const VERSION: &str = "\(.*\)";$/\1/p' "$root/tests/it/support/registry.rs")
  [[ -f ${XDG_CACHE_HOME:-$HOME/.cache}/sluice/apicurio-registry-$version/complete ]]
}

# A server's programs, looked for where tests/it/support/postgres.rs looks; Debian keeps them off the path.
has_postgres() {
  local dir dirs
  IFS=: read -r -a dirs <<<"$PATH"
  for dir in /usr/lib/postgresql/*/bin "${dirs[@]}"; do
    if [[ -x $dir/initdb && -x $dir/postgres && -x $dir/pg_isready ]]; then return 0; fi
  done
  return 1
}

# Python with what makes virtual environments; Debian keeps that in a package of its own.
has_python_venv() {
  python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

has_command() { command -v "$1" >/dev/null; }

# Node 18 or newer: what Debian 12 has.
has_node() {
  local version
  version=$(node --version 2>/dev/null | sed -n 's/^v\([0-9]*\).*/\1/p') || return 1
  [[ -n $version && $version -ge 18 ]]
}

# Looked for where tests/it/sdk_browser.rs looks. Ubuntu's package is a stub that only names a snap, and a snap sees no files of the
# tests: both are none.
has_chromium() {
  local name version
  if [[ -n ${CHROMIUM:-} ]]; then return 0; fi
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    version=$("$name" --version 2>/dev/null) || continue
    if [[ $version == *Chrom* && $version != *snap* ]]; then return 0; fi
  done
  return 1
}

# Ubuntu's package only fetches a snap, which does not install in a container and sees no files of the tests.
has_chromium_package() {
  ! grep -qs '^ID=ubuntu' /etc/os-release
}

# need WHAT ELSE PACKAGE…: notes something that is missing: in words, where to get it when there is no package that is new enough, and as
# Debian packages of which the first that exists is taken.
missing_words=()
missing_else=()
missing_packages=()
packages=()
need() {
  missing_words+=("$1")
  missing_else+=("$2")
  missing_packages+=("${*:3}")
}

need_java() {
  need 'a Java runtime, 17 or newer' 'https://adoptium.net' openjdk-17-jre-headless openjdk-21-jre-headless openjdk-25-jre-headless
}

need_maven() {
  need 'Maven (mvn)' 'https://maven.apache.org/download.html' maven
}

# require ASSUME_YES FIND…: looks with each FIND, installs what is missing, and looks again: a release's package may be too old. Ends the
# script with what is still missing then.
require() {
  local assume_yes=$1 at
  shift
  look "$@"
  if [[ ${#missing_words[@]} -eq 0 ]]; then return 0; fi
  install_missing "$assume_yes"
  hash -r
  look "$@"
  if [[ ${#missing_words[@]} -eq 0 ]]; then return 0; fi
  say "The packages of this system were not enough (they may be too old). Please install by hand, so that it comes first on the PATH:"
  for at in "${!missing_words[@]}"; do say "  - ${missing_words[at]}: ${missing_else[at]}"; done
  exit 1
}

# Sets what is missing.
look() {
  local find
  missing_words=()
  missing_else=()
  missing_packages=()
  for find in "$@"; do "$find"; done
}

find_missing_for_build() {
  has_command cc || need 'a C compiler (cc)' 'https://gcc.gnu.org' gcc
  has_command c++ || need 'a C++ compiler (c++)' 'https://gcc.gnu.org' g++
  has_command make || need 'make' 'https://www.gnu.org/software/make' make
}

find_missing_for_kafka() {
  if [[ -z ${SLUICE_BOOTSTRAP:-} ]] && ! has_java; then need_java; fi
  if needs_maven && ! has_command mvn; then need_maven; fi
}

find_missing_for_tests() {
  has_postgres || need 'the PostgreSQL server (initdb, postgres, pg_isready)' 'https://www.postgresql.org/download' postgresql
  has_python_venv || need 'Python, 3.11 or newer, with venv (python3)' 'https://www.python.org/downloads' python3-venv
  has_node || need 'Node, 18 or newer (node)' 'https://nodejs.org/en/download' nodejs
  has_command npm || need 'npm' 'it comes with Node, https://nodejs.org/en/download' npm
  # The schema registry runs whatever Kafka the tests use.
  if ! has_registry && ! needs_maven && ! has_command mvn; then need_maven; fi
  if [[ -n ${SLUICE_BOOTSTRAP:-} ]] && ! has_java; then need_java; fi
  if ! has_chromium && has_chromium_package; then need 'Chromium' 'Google Chrome, or any with CHROMIUM=/path/to/it' chromium; fi
}

# Where no package has it, its absence does not end the script.
warn_without_chromium() {
  local fate='are skipped'
  if has_chromium; then return 0; fi
  if [[ ${CI:-} == true ]]; then fate='fail'; fi
  say "Chromium was not found, and this system has it as a snap only: the tests of sdk_browser $fate. Install Google Chrome,"
  say 'or name another Chromium with CHROMIUM=/path/to/it.'
}

# Installs what was noted. Asks first on a terminal, unless told not to. Ends the script where it may not or cannot.
install_missing() {
  local assume_yes=$1 sudo=() answer
  say 'These are needed and were not found:'
  printf '  - %s\n' "${missing_words[@]}" >&2
  if ! has_command apt-get; then
    say 'This system has no apt-get. Please install them with its own package manager and start again.'
    exit 1
  fi
  choose_packages
  local by_hand="apt-get install ${packages[*]}"
  if [[ $(id -u) -ne 0 ]]; then
    if ! has_command sudo; then
      say "Please run this as root, and start again: $by_hand"
      exit 1
    fi
    sudo=(sudo)
  fi
  if [[ $assume_yes != yes ]]; then
    if [[ ! -t 0 || ! -t 2 ]]; then
      say "Please run: ${sudo[*]:+sudo }$by_hand"
      say 'or start this again with -y (or CI=true) to have it done.'
      exit 1
    fi
    read -r -p 'Install them with apt-get now? [Y/n] ' answer
    case ${answer:-y} in
      [Yy]*) ;;
      *)
        say "Nothing was installed. By hand: ${sudo[*]:+sudo }$by_hand"
        exit 1
        ;;
    esac
  elif [[ ${#sudo[@]} -gt 0 ]] && ! sudo -n true 2>/dev/null && [[ ! -t 0 ]]; then
    say "sudo asks for a password and there is no terminal. Please run: sudo $by_hand"
    exit 1
  fi

  local apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -q)
  say 'Looking up packages (apt-get update)…'
  "${apt[@]}" update >/dev/null || say 'apt-get update failed; going on with what apt knows.'
  choose_packages
  say "Installing ${packages[*]}…"
  if ! "${apt[@]}" install -y --no-install-recommends "${packages[@]}" >&2; then
    say "apt-get could not install them. Please see above; by hand: ${sudo[*]:+sudo }apt-get install ${packages[*]}"
    exit 1
  fi
}

# Sets packages: one for each thing that is missing.
choose_packages() {
  local choices
  packages=()
  for choices in "${missing_packages[@]}"; do packages+=("$(first_available "$choices")"); done
}

# The first of the packages that this release of the system has; Debian 13 has no OpenJDK 17, for example.
first_available() {
  local package
  for package in $1; do
    if apt-cache policy "$package" 2>/dev/null | grep -q '^ *Candidate: [^(]'; then
      printf '%s' "$package"
      return 0
    fi
  done
  printf '%s' "${1%% *}"
}

find_cargo() {
  if ! has_command cargo && [[ -x $HOME/.cargo/bin/cargo ]]; then PATH=$HOME/.cargo/bin:$PATH; fi
  if ! has_command cargo; then
    say 'Rust is needed (cargo was not found). See https://rustup.rs'
    exit 1
  fi
}
