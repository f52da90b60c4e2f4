"""Takes secrets out of what a run says of itself and of its job's log, before it leaves the process. Pure.

Called by `producers.description` (configuration, labels), `producers.environment` (command line and all it finds) and
`producers.log_lines`. Three signs give a secret away: the name it stands under, the shape of the value (tokens of known
issuers, private keys), and its place in a text (`--api-key X`, `password=X`, the password of a URL). A secret under a
harmless name and without a known shape is not recognised: nothing here replaces keeping it out of the configuration.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

MARK = "[redacted by pilothouse]"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ALWAYS = ("password", "passwd", "passphrase", "secret", "credential", "apikey", "accesskey", "privatekey", "authtoken")
"""A key of which a word ends so, in the singular or the plural, names a secret, whatever its value."""

_ALONE = _words("pwd authorization cookie cookies dsn bearer accesstoken apitoken hubtoken")
"""So does one with such a word."""

_KEY_OF = _words(
    "api access secret private ssh encryption signing account master auth service storage wandb openai hf aws license "
    "shared session application app hub github gitlab bearer refresh"
)
"""`key`, `keys` or `tokens` behind one of these is a secret."""

_TEXT_ONLY = _words("token auth pass pin otp jwt")
"""A key that ends so names a secret where its value is a text: `max_token: 512` is none."""

_TOKENS_OF_MODELS = _words(
    "pad eos bos unk mask cls sep start end stop special image video audio text first last next extra additional "
    "prefix suffix middle separator begin beginning newline boi eoi forward backward one two single multi dummy new "
    "per think decoder encoder prompt system user assistant tool vision class register num max min n total"
)
"""What stands before `token` in the configuration of a tokenizer or a model, and before `pass` in that of a loop."""

_SHAPES = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)"
    r"|(?<=AccountKey=)[A-Za-z0-9+/=]{20,}"  # Azure
    r"|(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA)[0-9A-Z]{16,}"  # AWS
    r"|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,}|glpat-[A-Za-z0-9_-]{20,}"  # GitHub, GitLab
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
_NOTHING = frozenset(("none", "null", "true", "false", "nil", "undefined"))
PEEK = 64
"""So much of a value shows whether it is one."""

LONG_USER = 20
"""A URL's user without a password is a person's name, unless it is as long as a token."""


def redacted(value: Any) -> Any:
    """Plain data without its secrets; `MARK` stands in the place of each. Numbers, None and texts pass unchanged."""
    match value:
        case str():
            return redacted_text(value)
        case Mapping():
            return {
                redacted_text(str(name)): _hidden(item) if is_secret(str(name), item) else redacted(item)
                for name, item in value.items()
            }
        case list() | tuple():
            return (
                redacted_arguments(value) if all(isinstance(item, str) for item in value) else [*map(redacted, value)]
            )
        case _:
            return value


def redacted_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line, or any list of texts: what follows an option that names a secret is one."""
    told: list[str] = []
    hide = False
    for argument in arguments:
        told.append(MARK if hide and not argument.startswith("--") else redacted_text(argument))
        name = argument.lstrip("-")
        hide = argument.startswith("-") and name[:1].isalpha() and is_secret(name, "text")
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


def is_secret(name: str, value: object) -> bool:
    """Whether what stands under this name is a secret, by the words of the name."""
    if value is None or isinstance(value, bool) or value == "":
        return False
    words = [word.lower() for word in _WORD.findall(name)]
    if not words:
        return False
    if any(word.rstrip("s").endswith(_ALWAYS) for word in (*words, "".join(words[-2:]))) or _ALONE.intersection(words):
        return True
    if any(word in ("key", "keys", "tokens") and before in _KEY_OF for before, word in pairwise(words)):
        return True
    # A tokenizer's `pad_token` is none; neither is a number of tokens.
    before = words[-2] if len(words) > 1 else ""
    return words[-1] in _TEXT_ONLY and not isinstance(value, int | float) and before not in _TOKENS_OF_MODELS


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
        if is_secret(found[1], "text") and _tells(found[1], text[at : at + PEEK]):
            value = _VALUE.match(text, at)
            kept += text[done:at], MARK
            done = at = value.end() if value is not None else at + 1
    return "".join((*kept, text[done:]))


def _tells(name: str, value: str) -> bool:
    """Whether what begins so is a secret of that name. What is marked already, and words for nothing, are none."""
    found = _VALUE.match(value)
    word = found[0].strip("\"'") if found is not None else value
    if word.startswith(MARK.partition(" ")[0]) or word.lower().rstrip(",;)]}") in _NOTHING:
        return False
    return is_secret(name, 0 if _is_number(word.rstrip(",;)]}")) else "text")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
