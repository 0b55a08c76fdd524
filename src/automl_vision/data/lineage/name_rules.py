"""The naming habits of augmentation tools, scripts and file managers, as one table of rules.

`names` applies them. Sources of the habits: the tools' own code and documentation, and scripts as people publish them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Says = Literal["copy", "same source", "hint"]
Anchor = Literal["stem", "siblings", "kin", "none"]


def _words(text: str) -> list[str]:
    return text.split()


#: Words that say nothing but "augmented": whole classes may be named by them.
AUGMENTED = _words("""
    aug augm augmented augment augmentation imgaug albu albumentation albumentations autoaugment randaugment
    trivialaugment augmix
""")

#: Words that people write for an augmentation and hardly ever for anything else.
SURE_OPERATIONS = AUGMENTED + _words("""
    hflip vflip hvflip fliph flipv fliplr flipud fliptb flipped horizontalflip verticalflip
    horizontalflipped verticalflipped horizflip vertflip mirrored
    rotated rotate rotation rot90 rot180 rot270 randomrotate randomrotate90 rotation90 rotate90 transposed
    brightened darkened brightnesscontrast randombrightnesscontrast colorjitter colourjitter jittered
    huesaturationvalue rgbshift channelshuffle randomgamma desaturated grayscale greyscale togray inverted
    solarize solarized posterize posterized equalized clahe
    blurred gaussblur gaussianblur motionblur medianblur sharpened noised noisy gaussnoise gaussiannoise
    saltpepper saltandpepper isonoise jpegcompression imagecompression
    cropped randomcrop centercrop randomresizedcrop rrc rescaled shifted translated sheared skewed
    shiftscalerotate affine randomaffine elastic elastictransform griddistortion opticaldistortion distorted
    warped squashed cutout erased randomerasing coarsedropout
""")

#: Words that are also parts of ordinary names: they count only beside the file they would be a copy of.
LIKELY_OPERATIONS = _words("""
    flip mirror rot transpose bright brighter brightness dark darker darkness contrast autocontrast gamma
    exposure hue sat saturation saturate jitter gray grey bw invert inv negative equalize equalise histeq blur
    gauss gaussian defocus sharp sharpen emboss noise salt pepper speckle jpeg jpg compress compressed crop
    zoom zoomin zoomout scale scaled resize resized rescale pad padded padding shift translate translation
    shear skew perspective persp warp distort distortion squash stretch stretched erase erasing dropout
    occlude occluded downscale downscaled upscale upscaled lowres sunflare watermark transform transformed
    trans tta deg degree degrees denoise denoised smooth smoothed noisify vflipped hflipped newpixel
    enhanced mixup cutmix mosaic
""")

#: Words that start an ordinary name too often (`snow_leopard`, `light_bulb`): read only at the end of a name.
TRAILING_OPERATIONS = _words("""
    light lighter shadow fog rain snow color colour rgb channel motion median grain quality turned
""")


def _any_of(words: Iterable[str]) -> str:
    """A pattern for any of the words that tries each letter once: many times faster than `a|b|c`."""
    tails: defaultdict[str, list[str]] = defaultdict(list)
    for word in words:
        tails[word[:1]].append(word[1:])
    optional = "?" if tails.pop("", None) else ""
    branches = [re.escape(head) + (_any_of(rest) if any(rest) else "") for head, rest in tails.items()]
    return f"(?:{'|'.join(branches)}){optional}"


_SEP = r"[_\-. ]+"
_MORE_WORDS = r"h|v|hv|lr|ud|x|y|cw|ccw|left|right|up|down|horizontal|vertical|random|low|high|deg|degrees"
_MORE = rf"(?:{_MORE_WORDS}|\d{{1,8}}(?:deg|px|pct)?)"
_AUGMENTED = _any_of(AUGMENTED)
#: A pattern for any of `SURE_OPERATIONS`.
ANY_SURE_OPERATION = _any_of(SURE_OPERATIONS)
_LEADING = _any_of(SURE_OPERATIONS + LIKELY_OPERATIONS)
#: "90deg" and "new30degFlipLR", as in the Kaggle set of plant diseases.
_DEGREES = r"(?:new)?\d{1,3}(?:deg|degrees?)(?:flip(?:lr|tb|ud|h|v)?)?"
_ANY = rf"(?:{_any_of(SURE_OPERATIONS + LIKELY_OPERATIONS + TRAILING_OPERATIONS)}|{_DEGREES})"
#: Words are read whole, in one way: "deg" is in both lists, "rot90" may be "rot" and 90, and a long name of such words
#: that is no name of a copy would be read in every combination of ways before that is known.
_END = r"(?=[_\-. ]|\Z)"
_TAIL = rf"(?>{_SEP}(?:{_ANY}\d{{0,4}}|{_MORE}){_END})*"
_BEFORE = rf"\d{{0,4}}(?:{_SEP}\d{{1,4}})?{_SEP}(?=.*[^\W\d_])"
_LEADING_WORD = rf"(?>{_LEADING}\d{{0,4}}{_END})"
_HEAD = rf"{_BEFORE}(?P<k>.+)"
#: Eight hexadecimal digits with a letter (no date), and not the first part of a UUID.
_UPLOAD = r"(?:\d{1,6}-)?(?=\d*[a-f])[0-9a-f]{8}-(?![0-9a-f]{4}-[0-9a-f]{4}-)"
_UUID = r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"
_EXT = r"jpe?g|png|bmp|webp|gif|tiff?|heic"
_NUMBER = r"(?:0|[1-9]\d{0,7})"
_KERAS_PREFIX = r"(?:aug|augm|augmented|augmentation|gen|generated|keras|datagen)?"
_DATE = r"_(?:[1-9]|[12]\d|3[01])_(?:19|20)\d\d"
#: "trip_aug_2019_3" and "12-aug-2019" are pictures of August.
_NO_AUGUST = r"(?!.*(?<![a-z])aug[_\-. ]*(?:\d{1,2}[_\-. ]+)?(?:19|20)\d\d(?!\d))"
_COPY = r"copy|kopie|copie|copia|c[oó]pia|kopia|kopi|копия|コピー|副本|복사본"
_COPY_OF = r"(?:copy|kopie|copie|copia|c[oó]pia|kopia)"
_OF = r"(?:of|von|van|de|di|do|da)"
_NTH = r"\d{1,3}(?:st|nd|rd|th|\.)? "
_IN_BRACKETS = rf"(?:another |{_NTH}|weitere )?(?:{_COPY})(?: \d{{1,3}})?"


@dataclass(frozen=True)
class NameRule:
    """One naming habit.

    Attributes:
        tool: who writes such names.
        pattern: matched against the whole stem; group `k` is the stem of the source (with `rest` after it), `ext`
            its extension, `n` a number that runs over the files of one k.
        says: "copy" of k, "same source" (all files of one k, one of them perhaps the original), or "hint".
        anchor: what must be there in the same label: the file k ("stem"), that or a second file of the same k
            ("siblings"), a file that an unmistakable rule of the same tool read ("kin"), or nothing ("none").
        reads_operation: True where the name must hold an operation word; other names skip such rules.
        most: files that may share one k before it is taken for a class or a series instead of a source; 0: no limit.
    """

    tool: str
    pattern: re.Pattern[str]
    says: Says
    anchor: Anchor
    reads_operation: bool = False
    most: int = 0


def _rule(tool: str, pattern: str, says: Says, anchor: Anchor) -> NameRule:
    return NameRule(tool, re.compile(pattern, re.IGNORECASE), says, anchor)


def _operation(tool: str, pattern: str, anchor: Anchor, most: int = 0) -> NameRule:
    return NameRule(tool, re.compile(pattern, re.IGNORECASE), "copy", anchor, reads_operation=True, most=most)


#: Copies of one source that one operation other than "augmented" makes at most. `cat_cropped_1` to
#: `cat_cropped_500` are five hundred cats.
_MOST_OF_ONE_SOURCE = 30


#: In the order in which they are tried, first those that find their source.
NAME_RULES: tuple[NameRule, ...] = (
    _rule("Roboflow", rf"(?P<k>.+)_(?P<ext>{_EXT})\.rf\.[0-9A-Za-z]{{16,40}}", "same source", "none"),
    _rule(
        "Augmentor",
        rf"(?:_groundtruth_\(\d+\)_)?(?:.*?_)?original_(?P<k>.+?)\.(?P<ext>{_EXT})_{_UUID}",
        "copy",
        "none",
    ),
    # A ground-truth file carries the class and the name with nothing between them that a reader could rely on.
    _rule("Augmentor", rf"_groundtruth_\(\d+\)_[^_]*_(?P<k>.+?)\.(?P<ext>{_EXT})_{_UUID}", "copy", "stem"),
    _rule("Augmentor", rf"_groundtruth_\(\d+\)_.*_{_UUID}", "copy", "none"),
    _rule("Keras save_to_dir", rf"(?!aug{_DATE}$){_KERAS_PREFIX}_{_NUMBER}_{_NUMBER}", "copy", "none"),
    _rule("Keras save_to_dir", rf"aug{_DATE}", "copy", "kin"),  # else August 12, 2020
    _operation(
        "augmentation script",
        rf"{_NO_AUGUST}(?P<k>.+?){_SEP}{ANY_SURE_OPERATION}\d{{0,4}}{_TAIL}",
        "siblings",
        _MOST_OF_ONE_SOURCE,
    ),
    _operation("augmentation script", rf"{_NO_AUGUST}(?P<k>.+?){_SEP}{_AUGMENTED}\d{{0,4}}{_TAIL}", "siblings"),
    _operation("operation suffix", rf"(?P<k>.+?){_SEP}{_ANY}\d{{0,4}}{_TAIL}", "stem"),
    _operation("operation on a copy", rf"(?P<k>.+){_SEP}{_ANY}\d{{0,4}}(?>{_SEP}{_MORE}{_END})*", "stem"),
    _operation("operation prefix", rf"{_NO_AUGUST}{ANY_SURE_OPERATION}{_HEAD}", "siblings", _MOST_OF_ONE_SOURCE),
    _operation("operation prefix", rf"{_NO_AUGUST}{_AUGMENTED}{_HEAD}", "siblings"),
    _operation("operation prefix", rf"{_LEADING}{_HEAD}", "stem"),
    _operation("operation prefix", rf"{ANY_SURE_OPERATION}{_BEFORE}(?P<k>.+?)[_\-]\d{{1,4}}", "stem"),
    _operation("operations prefix", rf"{_LEADING_WORD}(?:{_SEP}{_LEADING_WORD})*{_HEAD}", "stem"),
    _rule("Keras per image", rf"(?P<k>.+)_(?:0_{_NUMBER}|{_NUMBER}_[1-9]\d{{2,7}})", "copy", "stem"),
    _rule("file name with its ending", rf"(?P<k>.+)\.(?P<ext>{_EXT})[_\-. ]\d{{1,6}}", "copy", "stem"),
    _rule("CLoDSA", r"\d{1,6}_\d{1,3}_(?P<k>.+)", "hint", "stem"),
    _rule("numbered", r"(?P<k>.+)[_\-](?P<n>\d{1,3})", "hint", "stem"),
    _rule("numbered", r"(?P<k>.+?) ?\((?P<n>\d{1,3})\)", "hint", "stem"),
    _rule("numbered", r"(?P<k>.+)~(?P<n>\d{1,3})", "hint", "stem"),
    _rule("Keras per image", rf"(?P<k>.+)_0_(?P<n>{_NUMBER})", "hint", "stem"),
    _rule("copy of a file", rf"(?P<k>.+?)(?: ?[-–—_] ?| )(?:{_COPY})[ _]?(?:\(?(?P<n>\d{{1,3}})\)?)?", "hint", "stem"),
    _rule("copy of a file", rf"(?P<k>.+?) ?\({_IN_BRACKETS}\)", "hint", "stem"),
    _rule("copy of a file", rf"{_COPY_OF}[ _](?:\((?P<n>\d{{1,3}})\)[ _])?{_OF}[ _](?P<k>.+)", "hint", "stem"),
    _rule(
        "edited photo", r"(?P<k>.+?)[_\-. ~](?:edited|edit|bearbeitet|modifi[eé]|effects)(?:\(\d\))?", "hint", "stem"
    ),
    _rule("edited photo", r"(?P<k>IMG_)E(?P<rest>\d{4})", "hint", "stem"),
    _rule("Label Studio", rf"{_UPLOAD}(?P<k>.+)", "hint", "stem"),
    # Django adds seven random characters where a name is taken; Label Studio stored uploads like that.
    _rule("upload", r"(?P<k>.+)_(?-i:(?=[A-Z\d]*[a-z])(?=[a-z]*[A-Z\d]))[0-9A-Za-z]{7}", "hint", "stem"),
)

#: The rules that read no operation.
OTHER_RULES = tuple(rule for rule in NAME_RULES if not rule.reads_operation)
#: A stem without an operation and without one of these marks skips the table.
MARK = re.compile(
    rf"[_\-~. ]\d{{1,8}}$|\)$|\.rf\.|{_UUID}$|^\d+_\d+_|{_COPY}|^IMG_E\d|_[0-9a-z]{{7}}$|^{_UPLOAD}"
    r"|edit|bearbeitet|modifi|effects",
    re.IGNORECASE,
)
#: A stem with the mark of an upload in front.
UPLOADED = re.compile(rf"{_UPLOAD}(?P<k>.+)", re.IGNORECASE)
#: A stem that holds the ending of another file name.
WITH_ENDING = re.compile(rf"(?P<k>.+)\.(?P<ext>{_EXT})", re.IGNORECASE)
#: A stem with none of these words, digits left out, skips the rules that read an operation.
OPERATION_WORDS = frozenset(
    word.rstrip("0123456789") for word in SURE_OPERATIONS + LIKELY_OPERATIONS + TRAILING_OPERATIONS
) | {f"deg{turned}" for turned in ("fliplr", "fliptb", "flipud", "fliph", "flipv", "flip")}
