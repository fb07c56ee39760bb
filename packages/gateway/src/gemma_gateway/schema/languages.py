"""Names of languages by their ISO 639-1 codes."""

from typing import Final

_TABLE: Final = (
    "af afrikaans, am amharic, ar arabic, as assamese, az azerbaijani, be belarusian, bg bulgarian, bn "
    "bengali, bo tibetan, br breton, bs bosnian, ca catalan, cs czech, cy welsh, da danish, de german, el "
    "greek, en english, eo esperanto, es spanish, et estonian, eu basque, fa persian, fi finnish, fo "
    "faroese, fr french, fy frisian, ga irish, gd gaelic, gl galician, gu gujarati, ha hausa, he hebrew, "
    "hi hindi, hr croatian, ht haitian, hu hungarian, hy armenian, id indonesian, ig igbo, is icelandic, "
    "it italian, ja japanese, jv javanese, ka georgian, kk kazakh, km khmer, kn kannada, ko korean, ku "
    "kurdish, ky kyrgyz, la latin, lb luxembourgish, ln lingala, lo lao, lt lithuanian, lv latvian, mg "
    "malagasy, mi maori, mk macedonian, ml malayalam, mn mongolian, mr marathi, ms malay, mt maltese, my "
    "burmese, nb norwegian, ne nepali, nl dutch, nn norwegian, no norwegian, oc occitan, or odia, pa "
    "punjabi, pl polish, ps pashto, pt portuguese, qu quechua, ro romanian, ru russian, rw kinyarwanda, "
    "sa sanskrit, sd sindhi, si sinhala, sk slovak, sl slovenian, sm samoan, sn shona, so somali, sq "
    "albanian, sr serbian, st sesotho, su sundanese, sv swedish, sw swahili, ta tamil, te telugu, tg "
    "tajik, th thai, ti tigrinya, tk turkmen, tl tagalog, tr turkish, tt tatar, ug uyghur, uk ukrainian, "
    "ur urdu, uz uzbek, vi vietnamese, wo wolof, xh xhosa, yi yiddish, yo yoruba, zh chinese, zu zulu"
)
LANGUAGES: Final[dict[str, str]] = {entry[:2]: entry[3:] for entry in _TABLE.split(", ")}
"""Code → name in English, in lower case."""


def language_name(text: str) -> str | None:
    """The name for a code (``de``), a tag with a region (``de-CH``), or a name; ``None`` if it is unknown."""
    lowered = text.strip().lower()
    name = LANGUAGES.get(lowered.replace("_", "-").partition("-")[0])
    return name or (lowered if lowered in LANGUAGES.values() else None)
