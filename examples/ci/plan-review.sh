#!/usr/bin/env bash
# For a pull request that changes a scenario: writes what the change does to the plan as Markdown, and fails above a budget.
#   plan-review.sh SCENARIO BASE BUDGET REVIEW, such as: plan-review.sh scenario.toml origin/main 20000/month review.md
# Exit status: 0 within the budget, 1 above it or without a plan, 2 for what cannot be read. Post REVIEW with your platform's own command.
set -euo pipefail
scenario=$1 base=$2 budget=$3 review=$4

work=$(mktemp -d)
trap 'git worktree remove --force "$work/base" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT

planned() { # SCENARIO PLAN; status 3 is a plan that is written, but was not proven cheapest in time
  plan -f "$1" -o "$2" || { local status=$?; [ $status = 3 ] || return $status; }
}

failed() { # STATUS TITLE: what the planner said goes to the head of the review
  { printf '### %s\n\n~~~~text\n' "$2"; cat "$work/why"; printf '~~~~\n\n'; cat "$work/review.md" 2>/dev/null || true; } >"$review"
  cat "$work/why" >&2
  exit "$1"
}

# A checkout of the base, so that files that the scenario names are those of then.
git worktree add --quiet --detach "$work/base" "$(git merge-base "$base" HEAD)"
plans=()
if [ -f "$work/base/$scenario" ] && planned "$work/base/$scenario" "$work/before.json"; then plans+=("$work/before.json"); fi
planned "$scenario" "$work/after.json" 2>"$work/why" || failed $? "No plan for $scenario"

plan report "${plans[@]}" "$work/after.json" --of after --without frontier --without sensitivity --what-if none -o "$work/review.md" || [ $? = 3 ]
plan -f "$scenario" --budget "$budget" --no-alternatives >/dev/null 2>"$work/why" || { status=$?; [ $status = 3 ] || failed $status "Above the budget of $budget"; }
cp "$work/review.md" "$review"
