#!/bin/bash
# submit.sh LIST [AT_ONCE]: film subtitles for every job directory in LIST, one a line, as arrays chained task by task.
#
# Task 7 of each array works in the eighth directory. The directory is all that a task needs to be told of its run.
set -euo pipefail
list=$(realpath -- "$1")
here=$(dirname -- "$(realpath -- "$0")") # not the working directory, in which the tasks run as well

mapfile -t jobs <"$list"
mkdir -p logs # Slurm makes no directories
array=--array=0-$((${#jobs[@]} - 1))%${2:-20}

submit() { sbatch --parsable "$@" | cut -d';' -f1; } # with several clusters it prints "id;cluster"

xargs -d '\n' -a "$list" otel-stageio begin --name subtitles --stages demux,asr,mux

# Without --kill-on-invalid-dep a task whose stage before it has failed waits for ever, and the end with it.
demux=$(submit "$array" "$here/demux.sbatch" "$list")
asr=$(submit "$array" --dependency="aftercorr:$demux" --kill-on-invalid-dep=yes "$here/asr.sbatch" "$list")
mux=$(submit "$array" --dependency="aftercorr:$asr" --kill-on-invalid-dep=yes "$here/mux.sbatch" "$list")
end=$(submit --dependency="afterany:$demux:$asr:$mux" "$here/end.sbatch" "$list" "$demux" "$asr" "$mux")
echo "demux $demux, asr $asr, mux $mux, end $end"
