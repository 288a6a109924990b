#!/bin/bash
# with-xargs.sh LIST: film subtitles for every job directory in LIST, one a line, four at a time, by xargs.
list=$1
here=$(dirname -- "$(realpath -- "$0")")
xargs -d '\n' -a "$list" otel-stageio begin --name subtitles --stages demux,asr,mux || exit
xargs -d '\n' -a "$list" -P 4 -n 1 "$here/job.sh"
xargs -d '\n' -a "$list" otel-stageio end
