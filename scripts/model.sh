#!/usr/bin/env bash
# usage: scripts/model.sh [CASE]...
#
# Checks docs/publish.pml, the model of the protocol of publish, with spin: every
# interleaving of every case below, which must hold or fail as it says. A mutant
# that does not fail is an error like a case that does not hold: it would mean
# that the check cannot see what it is there to see.
#
# MODEL_N is the number of publishers: 2 by default, which takes half a minute; 3
# takes long, and gigabytes where somebody removes. MODEL_ALL=1 adds the largest
# case, of 38 million states. Cases
# by their numbers, all by default. Needs spin and a C compiler
# (scripts/ci-packages.sh model).
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

n=${MODEL_N:-2}
jobs=$(nproc)

# expectation | what | flags
cases() {
	cat <<-'CASES'
		holds | nobody crashes |
		holds | one crashes, one pass later | CRASH=1 HEAL
		holds | all may crash, one pass later | CRASH=9 HEAL
		fails | one crashes and nobody heals | CRASH=1 ALWAYS
		fails | mutant: nothing is read again | NOREREAD
		fails | mutant: the tag after the index | TAGLATE
		holds | the list before the index, and looking for tags | LISTFIRST
		fails | mutant: the list before the index, without looking | LISTFIRST NOLOOK
		holds | two publish the same flavour | SAME
		holds | ... and crash, one pass later | SAME CRASH=1 HEAL
		fails | an entry of one that has ended goes away for a moment | STEADY
		holds | a flavour is removed | REMOVE GONE
		holds | ... with a crash, one pass later | REMOVE GONE CRASH=1 HEAL
		fails | a tag is deleted: the entry may come back | DELETE GONE
		holds | ... but not if nothing is adopted | DELETE GONE NOADOPT
		holds | an index of podman was there before, untagged | PODMAN EARLY KEPT
		holds | ... with crashes, one pass later | PODMAN EARLY KEPT CRASH=9 HEAL
		fails | mutant: it is not adopted | PODMAN EARLY KEPT NOADOPT
		fails | podman writes its index meanwhile, untagged | PODMAN KEPT HEAL
		fails | ... tagged, and nobody heals | PODMAN PODTAG KEPT
		holds | ... tagged, one pass later | PODMAN PODTAG KEPT HEAL
		holds | ... with a crash | PODMAN PODTAG KEPT HEAL CRASH=1
		fails | the list of tags lags | LAG NOLAGWAIT
		holds | ... and the lag is waited for | LAG
		holds | ... with a crash, one pass later | LAG CRASH=1 HEAL
		holds | a PUT of the index lands late | ZOMBIE=1
		holds | two of them | ZOMBIE=2
		fails | mutant: nobody waits for it | ZOMBIE=1 NOWAIT
		holds | ... but one pass later | ZOMBIE=1 NOWAIT HEAL
		holds | a PUT of a flavour tag lands late | TAGZOMBIE=1
		holds | ... while the flavour is removed | TAGZOMBIE=1 REMOVE
		fails | mutant: nobody waits for that | TAGZOMBIE=1 NOWAIT REMOVE
		holds | one fails and rolls back | FAIL
		holds | ... with a crash, one pass later | FAIL CRASH=1 HEAL
		fails | mutant: the old index is put back | FAIL PUTBACK
		fails | mutant: the own tag stays | FAIL NOTOMB
		holds | an alias tag | ALIAS
		holds | ... with a crash, one pass later | ALIAS CRASH=1 HEAL
		fails | mutant: the alias is not read again | ALIAS NOALIAS
		holds | crash, removal, late PUT, one pass later | CRASH=1 REMOVE GONE ZOMBIE=1 HEAL
	CASES
	if [ "${MODEL_ALL-}" = 1 ]; then
		printf 'holds | crash, removal, tagged podman, one pass later | CRASH=1 REMOVE GONE PODMAN PODTAG KEPT HEAL\n'
	fi
	case $n in # how often the index is read when nobody crashes
	2) printf 'holds | at most 3 reads of the index | ROUNDS=3\nfails | 2 are not enough | ROUNDS=2\n' ;;
	3) printf 'holds | at most 5 reads of the index | ROUNDS=5\nfails | 4 are not enough | ROUNDS=4\n' ;;
	esac
}

# check NUMBER EXPECTATION WHAT FLAGS: one line of the table; fails if it is other
# than expected.
check() {
	local number=$1 want=$2 what=$3 flags=(-DN="$n") f dir out got states
	for f in $4; do flags+=("-D$f"); done
	dir=$work/$number
	mkdir "$dir"
	cd "$dir"
	if ! spin -a "${flags[@]}" "$model" >spin.log 2>&1 || ! cc -w -O1 -DSAFETY -DCOLLAPSE -DVECTORSZ=4096 -o pan pan.c >>spin.log 2>&1; then
		printf 'model.sh: case %s (%s) does not build:\n' "$number" "$4" >&2
		cat spin.log >&2
		return 1
	fi
	out=$(./pan -m10000000 2>&1)
	if grep -q -e 'errors: 0' <<<"$out" && ! grep -q -i -e 'max search depth too small' -e 'out of memory' -e 'error:' <<<"$out"; then
		got=holds
	elif grep -q -e 'assertion violated' <<<"$out"; then
		got=fails # an invalid end state is no failure that a mutant may have
	else
		got=broken
	fi
	states=$(awk '/states, stored/ {print $1}' <<<"$out")
	printf '%3d  %-6s %10s  %-62s %s\n' "$number" "$got" "${states:--}" "$what" "$4" >"$work/line.$number"
	cd "$work"
	rm -rf "$dir"
	if [ "$got" != "$want" ]; then
		printf 'model.sh: case %s (%s): %s, want %s\n' "$number" "$4" "$got" "$want" >&2
		grep -e 'pan:' -e errors <<<"$out" >&2 || true
		return 1
	fi
}

for tool in spin cc; do
	command -v "$tool" >/dev/null || {
		printf 'model.sh: %s is not installed: scripts/ci-packages.sh model\n' "$tool" >&2
		exit 1
	}
done
model=$PWD/docs/publish.pml
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mapfile -t all < <(cases)
failed=0 running=0 number=0
for line in "${all[@]}"; do
	number=$((number + 1))
	if [ $# -gt 0 ] && [[ " $* " != *" $number "* ]]; then continue; fi
	IFS='|' read -r want what flags <<<"$line"
	check "$number" "${want// /}" "$(sed 's/^ *//; s/ *$//' <<<"$what")" "${flags# }" &
	running=$((running + 1))
	if [ "$running" -ge "$jobs" ]; then
		wait -n || failed=1
		running=$((running - 1))
	fi
done
while [ "$running" -gt 0 ]; do
	wait -n || failed=1
	running=$((running - 1))
done
printf 'publishers: %s\n' "$n"
cat "$work"/line.* 2>/dev/null | sort -n
if [ "$failed" != 0 ]; then
	printf 'model.sh: the model is not what it should be\n' >&2
	exit 1
fi
