"""Sound as the stages pass it on: 16 kHz mono 16-bit wav files, numpy arrays in memory."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RATE = 16_000

Samples = NDArray[np.float64]
Spectrum = NDArray[np.complex128]


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


# Short-time Fourier transform and back. ``scipy.signal`` has it too, but takes two seconds to import.


def stft(samples: Samples, window: int, hop: int) -> Spectrum:
    """The spectrum of each Hann window, one column every ``hop`` samples; the first is centred on the first sample."""
    padded = np.pad(samples, (window // 2, window // 2 + -len(samples) % hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    return np.ascontiguousarray(np.fft.rfft(frames * _hann(window), axis=1).T)


def istft(spectrum: Spectrum, window: int, hop: int, length: int) -> Samples:
    """The samples that :func:`stft` was made of: windows added up, each weighted as it was cut out."""
    weights = _hann(window)
    frames = np.fft.irfft(spectrum.T, window, axis=1) * weights
    total = np.zeros(window + hop * (len(frames) - 1))
    scale = np.zeros_like(total)
    for number, frame in enumerate(frames):
        total[number * hop : number * hop + window] += frame
        scale[number * hop : number * hop + window] += weights**2
    return (total / np.maximum(scale, 1e-9))[window // 2 :][:length]


def _hann(window: int) -> Samples:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
