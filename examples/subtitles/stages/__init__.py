"""The stages, one file each.

Every module has ``run_stage(io, …)``: the work, given an open stage. Those that may run as a program of their own have
``main(argv)`` as well, which opens the stage:

    with StageIO("demux", output_base=job_dir) as io:
        run_stage(io, media)

So one function serves both ways of running it: in the pipeline's process (``with run.stage("tmdb") as io``) and as a
child process (``run.command("demux", [python, "-m", "examples.subtitles.stages.demux", …])``), in its own environment
if need be.
"""
