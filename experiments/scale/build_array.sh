#!/bin/bash
# One set by many machines: a SLURM array makes its parts, and a job that waits for all of them joins them.
#
#   experiments/scale/build_array.sh 64 my_screen --source="$SCRATCH/raw" --layout=imagexpress --data-dir="$SCRATCH/datasets"
#
# Run it in the folder of the repository, on a disk that all nodes share, as the source and --data-dir are. The same line
# again goes on with what was stopped, and is done at once with parts that are finished.
set -euo pipefail
parts=$1
shift
build=$(printf '%q ' .venv/bin/python -m data.build "$@")

# The array is numbered from 1, as parts are, so that no arithmetic is needed; %16 runs 16 tasks at once at most: what
# the file server bears. --requeue: a task that was preempted or whose node failed goes on where it was.
array=$(sbatch --parsable --job-name=build --array="1-$parts%16" \
  --cpus-per-task=8 --mem=16G --time=12:00:00 --requeue --output=build-%A-%a.log \
  --wrap="$build --workers=\$SLURM_CPUS_PER_TASK --part=\$SLURM_ARRAY_TASK_ID/$parts")

# afterok: only when every task of the array has ended well. kill-on-invalid-dep: a join that can never start is removed
# from the queue; the log of the task that failed says why.
sbatch --job-name=join --dependency="afterok:$array" --kill-on-invalid-dep=yes \
  --cpus-per-task=1 --mem=16G --time=2:00:00 --output=build-join-%j.log \
  --wrap="$build --workers=1 --join"
