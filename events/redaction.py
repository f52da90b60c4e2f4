"""Takes secrets out of what a run says of itself and of its job's log, before it leaves the process. Pure.

Called by `producers.surroundings.description` (configuration, labels), `producers.surroundings.environment` (command
line and all it finds), `producers.delivery.telling` (errors, notes, reasons), `producers.metrics.log_lines`, and the
advisors for what leaves the house. Three signs give a secret away: the name it stands under, with the name around that
(`wandb: {key: X}`), the shape of the value (tokens of known issuers, private keys, webhooks), and its place in a text
(`--api-key X`, `password=X`, the password of a URL). Whoever issued it: under `…_key` a text that is no word is one. A
secret under a harmless name and without a known shape is not recognised: nothing here replaces keeping it out of the
configuration.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

MARK = "[redacted by pilothouse]"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ALWAYS = (
    *("password", "passwd", "passphrase", "passcode", "passwort", "secret", "credential", "apikey", "accesskey"),
    *("privatekey", "authtoken"),
)
"""A key of which a word ends so, in the singular or the plural, names a secret, whatever its value."""

_ALONE = _words("pwd pswd authorization cookie cookies dsn bearer accesstoken apitoken hubtoken webhook webhooks")
"""So does one with such a word."""

_KEY_OF = _words(
    "api access secret private ssh encryption signing account master auth service storage wandb openai hf aws license "
    "shared session application app hub github gitlab bearer refresh"
)
"""`key` or `keys` behind one of these is a secret, and so is `tokens`."""

_KEY_OF_DATA = _words(
    "sort order primary foreign partition group hash cache image video audio text label target input output column "
    "field feature monitor metric state batch lookup public"
)
"""`key` behind one of these is a name of something, unless it looks like what a generator made."""

_TEXT_ONLY = _words("token tokens auth pass pin otp jwt pw psk pat tok")
"""A key that ends so names a secret where its value is a text: `max_token: 512` is none."""

_SIGNATURES = _words("sig signature hmac")
"""What signs a URL, where it looks like what a generator made."""

_TOKENS_OF_MODELS = _words(
    "pad eos bos unk mask cls sep start end stop special image video audio text first last next extra additional "
    "prefix suffix middle separator begin beginning newline boi eoi forward backward one two single multi dummy new "
    "per think decoder encoder prompt system user assistant tool vision class register num max min n total"
)
"""What stands before `token` in the configuration of a tokenizer or a model, and before `pass` in that of a loop."""

_KINDS = _words("list value values string str text")
"""Says what a secret is given as: `token_list`."""

_LIKE_WORDS = re.compile(r"(?:[a-z]+|[A-Z]+|[A-Z][a-z]+)(?:[._/ :-](?:[a-z]+|[A-Z]+|[A-Z][a-z]+))*[._-]?\d{0,2}")
_LIKE_MARKS = re.compile(r"[<\[{|].*[>\]}|]")
"""Tokens of a tokenizer."""

_GENERATED = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9_+/=.%~-]{16,}")
_ANY_SECRET = "Zq9abcdefghijklmnop"

_SHAPES = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)"
    r"|(?<=AccountKey=)[A-Za-z0-9+/=]{20,}"  # Azure
    r"|(?<=hooks\.slack\.com/)(?:services|workflows|triggers)/[A-Za-z0-9/_-]{8,}"
    r"|(?<=/api/webhooks/)\d{5,}/[A-Za-z0-9_-]{8,}"  # Discord
    r"|(?<=\.webhook\.office\.com/)[^\s\"'<>]{16,}"  # Teams
    r"|(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA)[0-9A-Z]{16,}"  # AWS
    r"|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,}|glpat-[A-Za-z0-9_-]{20,}"  # GitHub, GitLab
    r"|wandb_v\d_[A-Za-z0-9_]{20,}|\d{8,10}:AA[A-Za-z0-9_-]{33}"  # W&B, Telegram
    r"|hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{20,}"  # Hugging Face
    r"|sk-[A-Za-z0-9_-]{20,}|gsk_[A-Za-z0-9]{20,}|nvapi-[A-Za-z0-9_-]{20,}|r8_[A-Za-z0-9]{20,}"  # hosts of models
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,}"  # Slack
    r"|AIza[0-9A-Za-z_-]{35}|ya29\.[0-9A-Za-z_-]{20,}|GOCSPX-[0-9A-Za-z_-]{20,}"  # Google
    r"|[srp]k_(?:live|test)_[0-9A-Za-z]{16,}"  # Stripe
    r"|npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{30,}|dckr_pat_[A-Za-z0-9_-]{20,}"
    r"|dapi[0-9a-f]{32}|hvs\.[A-Za-z0-9_-]{20,}|SG\.[A-Za-z0-9_-]{16,128}\.[A-Za-z0-9_-]{16,}"
    r"|eyJ[A-Za-z0-9_-]{8,2048}\.[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]*"  # JWT
    r")",
    re.DOTALL,
)
_AUTHORIZATION = re.compile(
    r"""\b(bearer\s+|authorization["']?\s{0,3}[:=]\s{0,3}["']?basic\s+)[A-Za-z0-9._~+/=-]{8,}""", re.IGNORECASE
)
_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}://)([^\s/@:]{0,256})(:[^\s/]*)?@")
_PAIR = re.compile(r"""([A-Za-z_][\w.-]{0,80})["']?\s{0,3}[=:]\s{0,3}(?=\S)""")
_OPTION = re.compile(r"(?<!\S)--?([A-Za-z][\w.-]{0,80})[ \t]{1,3}(?=[^\s-]|-[^-])")
_VALUE = re.compile(r""""[^"\n]+"|'[^'\n]+'|[^\s"']+|["']""")
_FIELD = re.compile(r"[^;\n]+")
"""A value of a connection string (`Server=h;Pwd=two words;`) ends at the next semicolon."""

_NOTHING = frozenset(("none", "null", "true", "false", "nil", "undefined"))
PEEK = 64
"""So much of a value shows whether it is one."""

LONG_USER = 20
"""A URL's user without a password is a person's name, unless it is as long as a token."""


def redacted(value: Any, above: str = "") -> Any:
    """Plain data without its secrets; `MARK` stands in the place of each. Numbers, None and texts pass unchanged.

    `above` is the name that all of it stands under.
    """
    match value:
        case str():
            return redacted_text(value)
        case Mapping():
            return {redacted_text(str(name)): _redacted_under(str(name), item, above) for name, item in value.items()}
        case list() | tuple():
            return (
                redacted_arguments(value)
                if all(isinstance(item, str) for item in value)
                else [redacted(item, above) for item in value]
            )
        case _:
            return value


def _redacted_under(name: str, item: Any, above: str) -> Any:
    return _hidden(item) if is_secret(name, item, above) else redacted(item, name)


def redacted_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line, or any list of texts: what follows an option that names a secret is one."""
    told: list[str] = []
    option = ""
    for argument in arguments:
        hide = option and not argument.startswith("--") and is_secret(option, argument)
        told.append(MARK if hide else redacted_text(argument))
        name = argument.lstrip("-")
        option = name if argument.startswith("-") and name[:1].isalpha() else ""
    return told


def redacted_text(text: str) -> str:
    """A text without the secrets that give themselves away."""
    text = _SHAPES.sub(MARK, text)
    text = _AUTHORIZATION.sub(lambda found: found[1] + MARK, text)
    if "@" in text:
        text = _USERINFO.sub(_without_password, text)
    if "=" in text or ":" in text:
        text = _without_values(_PAIR, text)
    return _without_values(_OPTION, text) if "-" in text else text


def is_secret(name: str, value: object, above: str = "") -> bool:
    """Whether what stands under this name, which stands under `above`, is a secret."""
    if value is None or isinstance(value, bool) or value == "":
        return False
    words = [word.lower() for word in _WORD.findall(name)]
    while len(words) > 1 and words[-1] in _KINDS:
        words.pop()
    if not words:
        return False
    if any(word.rstrip("s").endswith(_ALWAYS) for word in (*words, "".join(words[-2:]))) or _ALONE.intersection(words):
        return True
    if any(word in ("key", "keys", "tokens") and before in _KEY_OF for before, word in pairwise(words)):
        return True
    if len(words) == 1:
        words = [word.lower() for word in _WORD.findall(above)][-1:] + words
    before = words[-2] if len(words) > 1 else ""
    return _is_secret_text(before, words[-1], value)


def _is_secret_text(before: str, last: str, value: object) -> bool:
    """What a name that ends in `before` and `last` says of this value, which may be one where it holds a text."""
    if last in ("key", "keys"):
        return before in _KEY_OF or any(_is_key(before, text) for text in _texts_in(value))
    if last.endswith(("key", "token")) and last.removesuffix("key").removesuffix("token") in _KEY_OF:
        return True
    if last in _SIGNATURES:
        return any(_GENERATED.fullmatch(text) for text in _texts_in(value))
    if last not in _TEXT_ONLY or before in _TOKENS_OF_MODELS:  # a tokenizer's `pad_token` is none
        return False
    if isinstance(value, Mapping):
        return last != "tokens"
    return any(not _LIKE_MARKS.fullmatch(text) for text in _texts_in(value))


def _is_key(before: str, text: str) -> bool:
    """Whether the text under `before_key` is what opens a door: not, if it is a word, or names a thing of that kind."""
    if before and before not in _KEY_OF_DATA:
        return _LIKE_WORDS.fullmatch(text) is None
    return _GENERATED.fullmatch(text) is not None


def _texts_in(value: object) -> list[str]:
    """The texts that stand directly under a name."""
    if isinstance(value, str):
        return [value]
    return [item for item in value if isinstance(item, str)] if isinstance(value, list | tuple) else []


def _hidden(value: Any) -> Any:
    """Every leaf is hidden; the shape stays, so that a reader sees what was given."""
    match value:
        case Mapping():
            return {redacted_text(str(name)): _hidden(item) for name, item in value.items()}
        case list() | tuple():
            return [_hidden(item) for item in value]
        case None | bool():
            return value
        case _:
            return MARK


def _without_password(found: "re.Match[str]") -> str:
    scheme, user, password = found.groups()
    if password:
        return f"{scheme}{user}:{MARK}@"
    return f"{scheme}{MARK}@" if len(user) >= LONG_USER else found[0]


def _without_values(pattern: "re.Pattern[str]", text: str) -> str:
    """The text with every value hidden that stands behind a telling name; what does not is searched in its turn."""
    kept: list[str] = []
    done = at = 0
    while (found := pattern.search(text, at)) is not None:
        at = found.end()
        if is_secret(found[1], _ANY_SECRET) and _tells(found[1], text[at : at + PEEK]):
            behind = text[max(0, found.start() - 2) : found.start()].rstrip()
            value = (_FIELD if behind.endswith(";") else _VALUE).match(text, at)
            kept += text[done:at], MARK
            done = at = value.end() if value is not None else at + 1
    return "".join((*kept, text[done:]))


def _tells(name: str, value: str) -> bool:
    """Whether what begins so is a secret of that name. What is marked already, and words for nothing, are none."""
    found = _VALUE.match(value)
    word = (found[0] if found is not None else value).strip("\"'").rstrip(",;)]}")
    if word.startswith(MARK.partition(" ")[0]) or word.lower() in _NOTHING:
        return False
    return is_secret(name, 0 if _is_number(word) else word or _ANY_SECRET)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
