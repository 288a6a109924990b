"""Sound as the stages pass it on: 16 kHz mono 16-bit wav files, numpy arrays in memory."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RATE = 16_000

Samples = NDArray[np.float64]


def read_wav(path: Path) -> Samples:
    """The samples of a 16 kHz mono 16-bit wav file, scaled to -1 … 1.

    Raises:
        ValueError: if the file is of another kind.
    """
    with wave.open(str(path), "rb") as wav:
        if (wav.getframerate(), wav.getnchannels(), wav.getsampwidth()) != (RATE, 1, 2):
            raise ValueError(f"{path.name} is not 16 kHz mono 16-bit")
        return np.frombuffer(wav.readframes(wav.getnframes()), dtype="<i2") / 32768.0


def write_wav(path: Path, samples: Samples) -> Path:
    """Write samples of -1 … 1; what is louder is clipped."""
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(RATE)
        wav.writeframes(pcm16(samples))
    return path


def pcm16(samples: Samples) -> bytes:
    """Little-endian 16-bit samples, as the speech engines take them."""
    return np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2").tobytes()


def cut(samples: Samples, start: float, end: float) -> Samples:
    """The samples between two times in seconds, as far as there are any."""
    return samples[max(0, int(start * RATE)) : max(0, int(end * RATE))]


def rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(samples**2))) if samples.size else 0.0
