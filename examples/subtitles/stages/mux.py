"""12 mux: the film with its subtitles as a track of its own, ``<title>.mkv``, with PyAV.

In: the film and the ``.srt`` of subtitle_generation. Picture and sound are copied as they are, not encoded again.
Matroska, because it takes SubRip text as it is. The file is opened again and counted, for a file that was written is
not yet a film.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import av
import srt

from otel_stageio import StageIO


class Contents(NamedTuple):
    kinds: list[str]
    cues: int


def run_stage(io: StageIO, media: Path, subtitles: Path) -> Path:
    log = io.get_stage_logger()
    io.track_input(media, "media")
    io.track_input(subtitles, "subtitles")
    cues = len(list(srt.parse(subtitles.read_text(encoding="utf-8"))))
    if not cues:
        io.add_warning("there are no cues: the film gets no subtitle track")
    language = subtitles.suffixes[-2].lstrip(".")
    film = io.get_output_path(f"{subtitles.name.split('.')[0]}.mkv")
    io.set_config({"container": "matroska", "pyav": av.__version__})
    if io.up_to_date(code=__file__):
        return film

    with io.span("remux") as span:
        packets = remux(media, subtitles if cues else None, film, language)
        span.set_attribute("demo.packets", packets)
    with io.span("verify"):
        contents = contents_of(film)
        check(contents, cues)
    io.track_output(film, "media", streams=contents.kinds, cues=contents.cues)
    log.info("%d packets, streams: %s", packets, ", ".join(contents.kinds))
    return film


def remux(media: Path, subtitles: Path | None, film: Path, language: str) -> int:
    """Copy the packets of picture and sound, and the cues. Returns how many packets there were."""
    packets = 0
    # Without that every film has a random number in it, and is never the same as the one before.
    exact = {"fflags": "bitexact"}
    with av.open(str(media)) as source, av.open(str(film), "w", options=exact) as target:
        target.metadata.update(source.metadata)
        copied = [*source.streams.video[:1], *source.streams.audio[:1]]
        streams = {stream.index: target.add_stream_from_template(stream) for stream in copied}
        if subtitles is not None:
            with av.open(str(subtitles)) as text:
                track = target.add_stream_from_template(text.streams.subtitles[0])
                track.metadata["language"] = language
                # All of them first: there are few, and the muxer puts them between the others by their times.
                for packet in text.demux():
                    if packet.size:
                        packet.stream = track
                        target.mux(packet)
                        packets += 1
        for packet in source.demux(copied):
            if packet.dts is not None:  # the last one of a stream is empty and only says that it is over
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
                packets += 1
    return packets


def contents_of(film: Path) -> Contents:
    """The kinds of streams of a film, and the cues on its subtitle track."""
    with av.open(str(film)) as container:
        kinds = [stream.type for stream in container.streams]
        cues = sum(1 for packet in container.demux(subtitles=0) if packet.size) if "subtitle" in kinds else 0
    return Contents(kinds, cues)


def check(contents: Contents, cues: int) -> None:
    """Raises ValueError if a stream or a cue is missing."""
    wanted = {"video", "audio", *(["subtitle"] if cues else [])}
    missing = wanted - set(contents.kinds)
    if missing:
        raise ValueError(f"the muxed film has no {' and no '.join(sorted(missing))} stream")
    if contents.cues != cues:
        raise ValueError(f"the muxed film has {contents.cues} cues, not {cues}")
