"""Parse the output of aerender, the command line of After Effects. Pure.

It is in the language of After Effects, here English:

    PROGRESS:  Start: 0:00:00:00
    PROGRESS:  Duration: 0:00:10:00
    PROGRESS:  Frame Rate: 30.00 (comp)
    PROGRESS:  0:00:04:29 (150): 3 Seconds
"""

from __future__ import annotations

import re
from typing import Final

from jobsvc.runner.event import Event, Timecode
from jobsvc.runner.formats import values

_TIMECODE: Final = r"(\d{1,2})[:;](\d\d)[:;](\d\d)([:;])(\d\d)"
_LABEL: Final = r"\s{0,4}(?:[^\s:]{1,24}\s?:\s{1,4})?"
"""PROGRESS in the language of After Effects."""
_FRAME: Final = re.compile(
    rf"(?:{_LABEL}{_TIMECODE}|\s{{0,4}}PROGRESS:\s{{1,4}}\d{{1,9}})\s{{1,4}}\((?P<frame>\d{{1,9}})\)\s?:\s",
    re.ASCII,
)
_TIME: Final = re.compile(rf"{_LABEL}(?P<word>[^:]{{2,24}}):\s{{1,4}}{_TIMECODE}(?![:;\d])", re.ASCII)
_RATE: Final = re.compile(
    rf"{_LABEL}(?P<word>[^:]{{4,32}}):\s{{1,4}}(?P<rate>\d{{1,4}}(?:[.,]\d{{1,4}})?)(?=\s|\Z)", re.ASCII
)
_OUTPUT: Final = re.compile(
    rf"{_LABEL}(?:output to|ausgabe (?:in|nach|an)|sortie vers|salida a|output su)\s?:\s{{0,4}}(.+)",
    re.IGNORECASE,
)
_ERROR: Final = re.compile(
    r"(?:[^\s:]{1,24}\s?:\s{1,4})?(?:aerender|after effects)[\s-]{0,2}"
    r"(?:error|fehler|erreur|errore|erro|エラー|错误|오류|ошибка)\b",
    re.IGNORECASE,
)
_DURATION: Final = frozenset(
    {
        "duration",
        "dauer",
        "durée",
        "duración",
        "durata",
        "duração",
        "デュレーション",
        "지속 시간",
        "持续时间",
        "длительность",
        "продолжительность",
    }
)
_START: Final = frozenset(
    {"start", "anfang", "début", "inicio", "início", "inizio", "開始", "시작", "开始", "начало"}
)
_FRAME_RATE: Final = frozenset(
    {
        "frame rate",
        "framerate",
        "bildrate",
        "fréquence d'images",
        "cadence",
        "velocidad de fotogramas",
        "frequenza fotogrammi",
        "taxa de quadros",
        "フレームレート",
        "프레임 속도",
        "帧速率",
        "частота кадров",
    }
)


def parse_aerender(line: str) -> Event | None:
    """Parse one line."""
    if match := _FRAME.match(line):
        # Counted from 1; with multi-frame rendering they come in another order.
        return Event(frame=int(match["frame"]), frame_done=True, seconds=_seconds(match))
    if match := _TIME.match(line):
        return _parse_time(match["word"].strip().casefold(), match)
    if (match := _RATE.match(line)) and match["word"].strip().casefold() in _FRAME_RATE:
        rate = values.number(match["rate"])
        return Event(frame_rate=rate) if rate else None
    if match := _OUTPUT.match(line):
        return values.output(match[1])
    if "Total Time Elapsed" in line:
        return Event(ended=True)
    return values.error(line) if _ERROR.match(line.lstrip()) else values.common_error(line)


def _seconds(match: re.Match[str]) -> float | None:
    """Return the time in a match of _TIMECODE, without the frames of its last second."""
    if match[1] is None:
        return None
    return float(int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3]))


def _parse_time(word: str, match: re.Match[str]) -> Event | None:
    seconds = int(match[2]) * 3600 + int(match[3]) * 60 + int(match[4])
    if word in _DURATION:
        timecode = Timecode(seconds, int(match[6]), is_drop_frame=match[5] == ";")
        return Event(duration=float(seconds), timecode=timecode)
    return Event(start=float(seconds)) if word in _START else None
