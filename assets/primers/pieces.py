"""The notes of the primers, in the notation of make_primers.py."""

from typing import Any

BACH_CHORDS = """
c4 e4 g4 c5 e5 | c4 d4 a4 d5 f5 | b3 d4 g4 d5 f5 | c4 e4 g4 c5 e5 | c4 e4 a4 e5 a5 | c4 d4 f#4 a4 d5
| b3 d4 g4 d5 g5 | b3 c4 e4 g4 c5 | a3 c4 e4 g4 c5 | d3 a3 d4 f#4 c5 | g3 b3 d4 g4 b4
"""
CANON = (
    "f#5/2 e5 d5 c#5 | b4/2 a4 b4 c#5",
    "d5/2 c#5 b4 a4 | g4/2 f#4 g4 e4",
    "d5/1 f#5 a5 g5 f#5 d5 f#5 e5 | d5/1 b4 d5 a5 g5 b5 a5 g5",
)
GROUND = "d3/2 a2 b2 f#2 | g2/2 d2 g2 a2"
SILENCE = "r/8 | r/8"
ELISE = "e5/1 d#5 e5 b4 d5 c5 | a4/2 r/1 c4 e4 a4 | b4/2 r/1 e4 g#4 b4 | c5/2 r/1 e4 e5 d#5"
ELISE_AGAIN = "e5/1 d#5 e5 b4 d5 c5 | a4/2 r/1 c4 e4 a4 | b4/2 r/1 e4 c5 b4"
ELISE_LEFT = "a2/1 e3 a3 r/3 | e2/1 e3 g#3 r/3 | a2/1 e3 a3 r/3"
G_CHORD, D_CHORD = "g2/3 | d2/3", "r/1 b3+d4+f#4/2 | r/1 a3+c#4+f#4/2"
RAG = "e4/1 c5/2 e4/1 c5/2 e4/1 c5/1 | c5/5 c6/1 d6 d#6 | e6/1 c6 d6 e6/2 b5/1 d6/2"
RAG_LEFT = "c3/2 e3+g3+c4 bb2 e3+g3+c4 | a2/2 f3+a3+c4 g2 e3+g3+c4 | g2/2 e3+g3+c4 g2 f3+g3+b3"
HOME = "c3/2 e3+g3+c4 g2 e3+g3+c4"


def broken(chords: str) -> tuple[str, str, str]:
    """The upper part, the middle and the bass of Bach's prelude: each bar is one chord, broken twice."""
    bars = [bar.split() for bar in chords.split("|")]
    upper = [f"r/2 {c}/1 {d} {e} {c} {d} {e} " * 2 for _, _, c, d, e in bars]
    middle = [f"r/1 {b}/7 " * 2 for _, b, _, _, _ in bars]
    bass = [f"{a}/8 " * 2 for a, _, _, _, _ in bars]
    return " | ".join(upper), " | ".join(middle), " | ".join(bass)


def join(*bars: str) -> str:
    """Bars one after the other."""
    return " | ".join(bars)


UPPER, MIDDLE, BASS = broken(BACH_CHORDS)

PIECES: tuple[dict[str, Any], ...] = (
    {
        "file": "greensleeves.mid",
        "title": "Greensleeves",
        "composer": "Traditional",
        "year": 1580,
        "style": "Renaissance song",
        "bpm": 84,
        "step": 0.25,
        "bar": 12,
        "phrase": 4,
        "pedal": 12,
        "voices": (
            (
                72,
                join(
                    "r/10 a4/2",
                    "c5/4 d5/2 e5/3 f#5/1 e5/2 | d5/4 b4/2 g4/3 a4/1 b4/2",
                    "c5/4 a4/2 a4/3 g#4/1 a4/2 | b4/4 g#4/2 e4/4 a4/2",
                    "c5/4 d5/2 e5/3 f#5/1 e5/2 | d5/4 b4/2 g4/3 a4/1 b4/2",
                    "c5/3 b4/1 a4/2 g#4/3 f#4/1 g#4/2 | a4/12",
                    "g5/6 g5/3 f#5/1 e5/2 | d5/4 b4/2 g4/3 a4/1 b4/2",
                    "c5/4 a4/2 a4/3 g#4/1 a4/2 | b4/4 g#4/2 e4/6",
                    "g5/6 g5/3 f#5/1 e5/2 | d5/4 b4/2 g4/3 a4/1 b4/2",
                    "c5/3 b4/1 a4/2 g#4/3 f#4/1 g#4/2 | a4/12",
                ),
            ),
            (
                50,
                join(
                    "r/12",
                    "a2/2 e3 a3 c4 a3 e3 | g2/2 d3 g3 b3 g3 d3 | f2/2 c3 f3 a3 f3 c3 | e2/2 b2 e3 g#3 e3 b2",
                    "a2/2 e3 a3 c4 a3 e3 | g2/2 d3 g3 b3 g3 d3 | a2/2 e3 a3 e2 b2 e3 | a2/2 e3 a3 c4 a3 e3",
                    "c3/2 g3 c4 e4 c4 g3 | g2/2 d3 g3 b3 g3 d3 | f2/2 c3 f3 a3 f3 c3 | e2/2 b2 e3 g#3 e3 b2",
                    "c3/2 g3 c4 e4 c4 g3 | g2/2 d3 g3 b3 g3 d3 | a2/2 e3 a3 e2 b2 e3 | a2/2 e3 a3 c4/6",
                ),
            ),
        ),
    },
    {
        "file": "pachelbel-canon.mid",
        "title": "Canon in D",
        "composer": "Johann Pachelbel",
        "year": 1690,
        "style": "Baroque",
        "bpm": 56,
        "step": 0.5,
        "bar": 8,
        "phrase": 2,
        "pedal": 2,
        "voices": (
            (72, join(SILENCE, *CANON, "f#5/8")),
            (60, join(SILENCE, SILENCE, *CANON[:2], "f#4/8")),
            (58, join(SILENCE, SILENCE, SILENCE, CANON[0], "d5/8")),
            (62, join(*[GROUND] * 4, "d3/8")),
        ),
    },
    {
        "file": "bach-prelude.mid",
        "title": "Prelude in C, BWV 846",
        "composer": "Johann Sebastian Bach",
        "year": 1722,
        "style": "Baroque",
        "bpm": 66,
        "step": 0.25,
        "bar": 16,
        "phrase": 4,
        "pedal": 16,
        "voices": ((58, UPPER), (56, MIDDLE), (62, BASS)),
    },
    {
        "file": "petzold-minuet.mid",
        "title": "Minuet in G, BWV Anh. 114",
        "composer": "Christian Petzold",
        "year": 1725,
        "style": "Baroque dance",
        "bpm": 118,
        "step": 0.5,
        "bar": 6,
        "phrase": 8,
        "pedal": 0,
        "voices": (
            (
                74,
                join(
                    "d5/2 g4/1 a4 b4 c5 | d5/2 g4 g4 | e5/2 c5/1 d5 e5 f#5 | g5/2 g4 g4",
                    "c5/2 d5/1 c5 b4 a4 | b4/2 c5/1 b4 a4 g4 | f#4/2 g4/1 a4 b4 g4 | a4/6",
                    "d5/2 g4/1 a4 b4 c5 | d5/2 g4 g4 | e5/2 c5/1 d5 e5 f#5 | g5/2 g4 g4",
                    "c5/2 d5/1 c5 b4 a4 | b4/2 c5/1 b4 a4 g4 | a4/2 b4/1 a4 g4 f#4 | g4/6",
                ),
            ),
            (
                60,
                join(
                    "g3+b3+d4/4 a3/2 | b3/6 | c4/6 | b3/6 | a3/6 | g3/6 | d4/2 b3 g3 | d4/2 d3/1 c4 b3 a3",
                    "b3/4 a3/2 | g3/2 b3 g3 | c4/6 | b3/2 c4/1 b3 a3 g3",
                    "a3/4 f#3/2 | g3/4 b3/2 | c4/2 d4 d3 | g3/4 g2/2",
                ),
            ),
        ),
    },
    {
        "file": "beethoven-elise.mid",
        "title": "Für Elise, WoO 59",
        "composer": "Ludwig van Beethoven",
        "year": 1810,
        "style": "Classical",
        "bpm": 66,
        "step": 0.25,
        "bar": 6,
        "phrase": 4,
        "pedal": 6,
        "voices": (
            (
                68,
                join("r/4 e5/1 d#5", ELISE, ELISE_AGAIN, "a4/4 e5/1 d#5", ELISE, ELISE_AGAIN, "a4/6"),
            ),
            (
                54,
                join("r/6", *["r/6", ELISE_LEFT] * 4),
            ),
        ),
    },
    {
        "file": "satie-gymnopedie.mid",
        "title": "Gymnopédie No. 1",
        "composer": "Erik Satie",
        "year": 1888,
        "style": "Impressionist",
        "bpm": 72,
        "step": 1,
        "bar": 3,
        "phrase": 4,
        "pedal": 3,
        "voices": (
            (
                66,
                join(
                    "r/3 | r/3 | r/3 | r/3",
                    "r/1 f#5 a5 | g5/1 f#5 c#5 | b4/1 c#5 d5 | a4/3",
                    "f#4/3 | f#4/3 | f#4/3 | f#4/3",
                    "r/1 f#5 a5 | g5/1 f#5 c#5 | b4/1 c#5 d5 | a4/3",
                ),
            ),
            (44, join(*[D_CHORD] * 8)),
            (54, join(*[G_CHORD] * 8)),
        ),
    },
    {
        "file": "joplin-entertainer.mid",
        "title": "The Entertainer",
        "composer": "Scott Joplin",
        "year": 1902,
        "style": "Ragtime",
        "bpm": 80,
        "step": 0.25,
        "bar": 8,
        "phrase": 4,
        "pedal": 0,
        "voices": (
            (
                80,
                join(
                    "r/6 d4/1 d#4",
                    RAG,
                    "c6/6 d4/1 d#4",
                    "e4/1 c5/2 e4/1 c5/2 e4/1 c5/1 | c5/6 a4/1 g4",
                    "f#4/1 a4 c5 e5/2 d5/1 c5 a4 | d5/6 d4/1 d#4",
                    RAG,
                    "c6/6 c6/1 d6",
                    "e6/1 c6 d6 c6 e6 c6 d6 c6 | e6/1 c6 d6 e6/2 b5/1 d6/2 | c6/8",
                ),
            ),
            (
                58,
                join(
                    "r/8",
                    RAG_LEFT,
                    HOME,
                    "c3/2 e3+g3+c4 bb2 e3+g3+c4 | a2/2 f3+a3+c4 g2 e3+g3+c4",
                    "d3/2 f#3+a3+c4 a2 f#3+a3+c4 | g2/2 f3+g3+b3 d3 f3+g3+b3",
                    RAG_LEFT,
                    "c3/2 e3+g3+c4 bb2 e3+g3+c4",
                    "a2/2 f3+a3+c4 ab2 f3+ab3+c4 | g2/2 e3+g3+c4 g2 f3+g3+b3",
                    "c3/2 g2 c2/4",
                ),
            ),
        ),
    },
)
