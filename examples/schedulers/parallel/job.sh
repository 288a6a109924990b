#!/bin/bash
# job.sh JOB: the stages of one job, until one of them fails.
set -e
otel-stageio run "$1" --stage demux -- extract-audio "$1"
otel-stageio run "$1" --stage asr -- transcribe "$1"
otel-stageio run "$1" --stage mux -- mux-film "$1"
