#!/bin/bash
# with-parallel.sh LIST: film subtitles for every job directory in LIST, one a line, four at a time, by GNU parallel.
list=$1
here=$(dirname -- "$(realpath -- "$0")")
xargs -d '\n' -a "$list" otel-stageio begin --name subtitles --stages demux,asr,mux || exit
parallel --jobs 4 --joblog joblog.txt --arg-file "$list" "$here/job.sh" {}
xargs -d '\n' -a "$list" otel-stageio end
