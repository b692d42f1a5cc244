"""Replaces secrets of a known form in a text: tokens of providers, private keys, passwords in addresses.

The forms come from the rules of gitleaks and trufflehog, and from the pages of the providers.
"""

import re
from collections.abc import Callable

from rft_run.secret_names import REDACTED, holds_secret

Match = re.Match[str]

_HEX = "[0-9a-fA-F]"
_TOKENS = re.compile(
    r"\b(?:"
    + "|".join(
        (
            r"(?<!-)eyJ[\w-]{6,}\.[\w-]*(?:\.[\w-]*){0,3}",  # JSON web tokens, of service accounts too
            r"(?:hf|api_org)_[A-Za-z0-9]{16,}",  # Hugging Face
            r"sk-(?=[\w-]{0,64}[0-9A-Z])[\w-]{16,}",  # OpenAI, Anthropic and others
            r"sk-[a-z]+-[\w-]{16,}",
            r"(?:gsk|xai|r8|fw|pplx|nvapi|tgp_v1|csk)[_-](?=\w{0,64}\d)[\w-]{20,}",  # other models
            r"gh[pousr]_[A-Za-z0-9]{16,}",  # GitHub
            r"github_pat_\w{16,}",
            r"gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|oas|soat|ffct)-[\w.-]{16,}",  # GitLab
            r"GR1348941[\w-]{16,}",
            r"xox[a-z](?:\.xox[a-z])?-[\w-]{8,}",  # Slack
            r"xapp-\d-[\w-]{8,}",
            r"(?<=hooks\.slack\.com/)(?:services|workflows|triggers)/[\w/-]+",
            r"(?<=/api/webhooks/)\d{10,}/[\w-]{16,}",  # Discord
            r"(?<=\.webhook\.office\.com/)webhookb2/\S+",  # Teams
            r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b(?:[\s:,/|]{1,3}[A-Za-z0-9/+]{40}\b=?)?",  # AWS
            r"AIza[\w-]{30,}",  # Google
            r"ya29\.[\w-]{16,}",
            r"GOCSPX-[\w-]{16,}",
            r"1//0[\w-]{30,}",
            r"[\w.~-]{3}\dQ~[\w.~-]{30,}",  # Azure
            r"npm_[A-Za-z0-9]{30,}",
            r"pypi-Ag[\w-]{16,}",
            r"wandb_v\d_\w{16,}",
            rf"dapi{_HEX}{{32}}\b",  # Databricks
            rf"do[opr]_v1_{_HEX}{{32,}}",  # DigitalOcean
            r"dckr_(?:pat|oat)_[\w-]{16,}",  # Docker Hub
            r"hv[sbr]\.[\w-]{20,}",  # Vault
            r"SG\.[\w-]{16,}\.[\w-]{16,}",  # SendGrid
            r"[rs]k_(?:live|test)_\w{10,}",  # Stripe
            r"glsa_\w{20,}|glc_[\w=+/]{20,}",  # Grafana
            r"(?:lin_api|ntn|secret|sbp|shpat|rubygems|pul|PMAK|NRAK|NRII|sntrys|dp\.pt|figd|phc)"
            r"[_.-](?=\w{0,64}\d)[\w.-]{24,}",
            r"\w{14}\.atlasv1\.[\w-]{40,}",  # Terraform
            r"\d{8,10}:AA[\w-]{30,}",  # Telegram
            r"AGE-SECRET-KEY-1\w{30,}",
        )
    )
    + ")"
)
"""Matches the tokens of known providers. Each token begins at a word boundary, so the expression tests the
boundary only once, before all alternatives."""
_PASSWORD_HASH = re.compile(r"\$(?:1|2[abxy]|5|6|7|y|argon2i?d?)\$[\w.,=+$/-]{16,}")
_PRIVATE_KEY = re.compile(
    # The lines of a key end with a newline or with the two characters \n. The text may have only the first or
    # only the last lines of a key.
    r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[\s\"',]|\\[nr]|[A-Za-z0-9+/=]{16,}|(?:Proc-Type|DEK-Info|Version|Comment|Hash|Charset):[^\n\\]*)*"
    r"(?:[A-Za-z0-9+/=]*(?:\s|\\[nr]){0,16}-----END [A-Z0-9 ]*-----)?"
    r"|(?<![A-Za-z0-9+/=])(?:[A-Za-z0-9+/=]{20,}[\"',\\nr \t]*\n[ \t\"']*){0,200}[A-Za-z0-9+/=]*"
    r"(?:\s|\\[nr]){0,16}-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
)
_SCHEME = r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*:(?:\\?/){2}"
_ADDRESSES: tuple[re.Pattern[str], ...] = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # scheme://user:password@host and scheme://token@host. A password may have an at sign.
        rf"({_SCHEME})[^\s/?#\"'<>@]*:[^\s/?#\"'<>]*(@)",
        rf"({_SCHEME})[^\s/?#\"'<>@]{{12,}}(@)",
        # A password with a slash. A port with a path is not a password.
        rf"({_SCHEME})[^\s:/?#\"'<>@]*:(?!\d+/|\[redacted\])[^\s\"'<>]{{1,200}}(@)(?=[\w.-])",
        # user:password@tcp(host) of Go's driver of MySQL, and user:password@host:port of proxies
        r"(?<![\w.:@-])([\w.-]+:)[^\s@/:\[]+(@)(?=(?:tcp|unix)\(|[\w.-]+:\d+\b)",
        r"((?<!\S)(?:-u ?|--(?:proxy-)?user[ =])['\"]?[^\s:'\"]+:)[^\s'\"]+()",
        r"(\b(?:mysql\w*|sshpass|docker login|redis-cli|mongo\w*)\b[^\n|;&]{0,200}?\s-[pa] ?)[^\s'\"-]\S*()",
        r"(\blogin\s+\S+\s+password\s+)\S+()",  # .netrc
        r"([?&](?:\w+-)*(?:sig|signature|key|auth|pwd|pass)=)[^&\s\"'#<>]+()",
    )
)
_HEADERS = re.compile(
    # The whole value of these headers is secret: up to the end of its quotes, or of its line.
    r"(\b(?:(?:proxy-)?authorization|(?:set-)?cookie2?)\\{0,7}[\"']?\]?(?:\s*(?:[:=]|=>)\s*|(?<=[\"'])\s*,\s*(?=b?[\"'])))"
    r"(?:(b?(\\{0,7}[\"']))(?:(?!\3(?:[\s,;:)\]}>\\]|$))[^\n])*"
    r"|(?!\[redacted\])[^\s\"'][^\n\"']*(?:\"[^\n\"]*\"[^\n\"']*)*)",
    re.IGNORECASE,
)
_QUOTED_AUTH = re.compile(r"(\b_?auth\\{0,7}\"\s*:\s*\\{0,7}\"|\b_auth\s*=\s*)([A-Za-z0-9+/=_-]{16,})")
_SIGNATURES = re.compile(r"(\bSignature=)([0-9a-fA-F]{32,}|[A-Za-z0-9+/]{40,}=*)")
_SCHEMES = re.compile(r"(\b(?:bearer|basic|apikey)\s+)([A-Za-z0-9._~+/=-]{8,})", re.IGNORECASE)
_SESSIONS = re.compile(
    r"(\b(?:[A-Z]+SESS(?:ION)?ID|sessionid|connect\.sid|sid)\\{0,7}[\"']?\s*[:=]\s*\\{0,7}[\"']?)([^\s;,&\"']{8,})",
    re.IGNORECASE,
)
_SAID = re.compile(
    r"(\b(?:(?:\w+[_-])?(?:token|secret|password|credentials?|(?:api|access|secret)[ _-]key)"
    r"[^\S\n]+(?:(?:is|was|provided)[:\s]\s*)?['\"`]?|\w*session=))([A-Za-z0-9+=_-]{20,})",
    re.IGNORECASE,
)
_PASSWORD_IS = re.compile(
    r"(\b(?:password|passphrase|passwd)[ \t]+(?:is|was)[ \t]+)(['\"`]\S+|\S+)", re.IGNORECASE
)
_WANDB_KEY = re.compile(
    rf"(\b(?:wandb|api[ _-]?key)\b[^\n\[]{{0,40}}?)(?<![\w-])({_HEX}{{40}})(?![\w-])", re.IGNORECASE
)
_TAG = re.compile(r"(<([\w.:-]+)>)([^<\n]+)(?=</)")


def without_tokens(text: str) -> str:
    """Replace all tokens of known providers, private keys and password hashes in ``text`` by ``[redacted]``.

    They are recognised by their form alone.
    """
    if "PRIVATE KEY" in text:
        text = _PRIVATE_KEY.sub(REDACTED, text)
    return _PASSWORD_HASH.sub(REDACTED, _TOKENS.sub(REDACTED, text))


def without_credentials(text: str) -> str:
    """Replace passwords and keys in ``text`` by ``[redacted]``, if the words around them show that they are
    secret.

    Such places are URLs, HTTP headers, options of commands, and sentences such as ``the password is``.
    """
    for pattern in _ADDRESSES:
        text = pattern.sub(rf"\1{REDACTED}\2", text)
    text = _HEADERS.sub(lambda found: f"{found[1]}{found[2] or ''}{REDACTED}", text)
    for pattern, is_secret in _WITH_A_CONDITION:
        text = pattern.sub(_if(is_secret), text)
    return text


def _if(is_secret: Callable[[Match], bool]) -> Callable[[Match], str]:
    """Return a replacement function for ``re.sub``. If ``is_secret(match)`` is true, this function replaces
    the last group of the match by ``[redacted]``. Otherwise it changes nothing.
    """

    def replacement(found: Match) -> str:
        kept = found[0][: found.start(found.re.groups) - found.start()]
        return f"{kept}{REDACTED}" if is_secret(found) else found[0]

    return replacement


def _is_no_word(found: Match) -> bool:
    """Return whether ``found[2]``, the text after an authentication scheme like ``basic``, is a credential.

    An ordinary word is not a credential, as in ``basic functions``.
    """
    value = found[2].rstrip(".")
    return not (value.isalpha() and (value[1:].islower() or value.isupper()))


def _is_random(found: Match) -> bool:
    value = found[2]
    is_mixed = all(re.search(letters, value) for letters in ("[a-z]", "[A-Z]", r"\d"))
    return is_mixed or re.fullmatch(rf"{_HEX}{{32,}}", value) is not None


def _is_no_adjective(found: Match) -> bool:
    """Return whether ``found[2]``, the text after ``password is``, is a password.

    An ordinary word is not a password, as in ``password is wrong``.
    """
    return found[2][0] in "'\"`" or any(c.isdigit() for c in found[2])


def _always(_: Match) -> bool:
    return True


def _is_in_secret_tag(found: Match) -> bool:
    return holds_secret(found[2], found[3])


_WITH_A_CONDITION: tuple[tuple[re.Pattern[str], Callable[[Match], bool]], ...] = (
    (_SCHEMES, _is_no_word),
    (_QUOTED_AUTH, _always),
    (_SIGNATURES, _always),
    (_SESSIONS, _always),
    (_SAID, _is_random),
    (_PASSWORD_IS, _is_no_adjective),
    (_WANDB_KEY, _always),
    (_TAG, _is_in_secret_tag),
)
