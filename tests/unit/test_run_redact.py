"""Secrets are redacted in every form that scanners of source code find. Ordinary texts are not changed."""

import pytest
from hypothesis import example, given, strategies

from rft_run.cluster_text import MAX_READ, cluster_object, cluster_text
from rft_run.secret_names import REDACTED, kind_of
from tests.unit.shown_support import (
    BEGIN,
    END,
    ESCAPES,
    OF_ESCAPES,
    OF_SECRETS,
    ORDINARY,
    PASSWORD,
    SECRETS,
    WORD,
    Sample,
)

TEXTS = [sample.text for sample in (*SECRETS, *ESCAPES)]


def test_the_corpus_is_large_enough() -> None:
    assert len(SECRETS) >= 60
    assert len(ESCAPES) >= 20
    assert len(ORDINARY) >= 60


@OF_SECRETS
def test_a_secret_is_redacted(sample: Sample) -> None:
    said = cluster_text(sample.text)
    assert REDACTED in said
    for part in sample.hidden:
        assert part not in said


@OF_SECRETS
def test_what_stands_around_a_secret_stays(sample: Sample) -> None:
    said = cluster_text(f"The run failed: step 3\n{sample.text}\nThe end.")
    assert said.startswith("The run failed: step 3\n")
    assert said.endswith("\nThe end.")
    for part in sample.hidden:
        assert part not in said


@OF_ESCAPES
def test_control_characters_are_removed(sample: Sample) -> None:
    said = cluster_text(sample.text)
    assert all(character.isprintable() or character in "\n\t" for character in said)


def test_an_escape_sequence_is_removed_whole() -> None:
    assert cluster_text("a\x1b[31mred\x1b[0m\x1b]52;c;aGk=\x07b") == "aredb"
    assert cluster_text("a\x1b]52;c;aGk= b") == "a52;c;aGk= b", "the text after an open sequence is kept"


@pytest.mark.parametrize("text", ORDINARY)
def test_an_ordinary_text_stays(text: str) -> None:
    assert cluster_text(text) == text


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("HF_TOKEN", "token"), ("accessToken", "token"), ("authtoken", "token"), ("access_tokens", "token"),
        ("maxTokens", None), ("max_tokens", None), ("eos_token", None), ("tokenizer", None),
        ("token_count", None), ("apiKey", "secret"), ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("aws_access_key_id", None), ("PGPASSWORD", "secret"), ("secretRef", None),
        ("secretKeyRef.name", None), ("imagePullSecrets", None), ("password_file", None),
        ("SharedAccessSignature", "secret"), ("signature", None), ("key", None), ("DB_PASS", "secret"),
        ("backward_pass", None), ("monkey", None), ("compass", None), ("", None), ("...", None),
    ],
)  # fmt: skip
def test_a_name_says_whether_its_value_is_secret(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind


PIECES = strategies.sampled_from(
    [*TEXTS, *ORDINARY, "password=", "token: ", '"', "'", "\\", "%", "\n", "@", "://", "[", "{"]
)


@given(strategies.lists(PIECES | strategies.text(max_size=8), max_size=6), strategies.integers(1, 400))
@example(["password=", PASSWORD], 12)
@example(["Authorization: Basic ", WORD], 20)
def test_redacting_again_changes_nothing(pieces: list[str], most: int) -> None:
    once = cluster_text("".join(pieces))
    assert cluster_text(once) == once
    cut = cluster_text("".join(pieces), most)
    assert len(cut) <= most


@OF_SECRETS
def test_a_secret_is_redacted_before_the_text_is_cut(sample: Sample) -> None:
    for before in (10, 60, 100):
        said = cluster_text("x" * before + "\n" + sample.text, 120)
        assert len(said) <= 120
        for part in sample.hidden:
            assert part[:12] not in said


def test_a_text_without_end_is_read_up_to_a_limit() -> None:
    assert cluster_text("a b " * MAX_READ, 2 * MAX_READ).endswith(" …")
    assert len(cluster_text("a b " * MAX_READ, 2 * MAX_READ)) <= MAX_READ + 2
    half = "x " * (MAX_READ // 2 - 10) + "ghp" + "_" + WORD
    assert "ghp_" not in cluster_text(half, 2 * MAX_READ), "a word cut by the limit may be a secret"


@pytest.mark.parametrize(
    "piece",
    [
        "a", "a.", "-", '"', "'", "\\", '\\"', "%41", "\x1b]", "\x9d", "\x1b[1", "=", ":", "token:",
        'password="', "://", "x:y@", "://a:", "A" * 60 + "\n", BEGIN, END, "eyJ.", "sk-", "?key=",
        'cookie: "', "PRIVATE KEY " + "A" * 60 + "\n",
        "authorization: '", "--token ", "<token>", "wandb ", "[", "token: [", "password: |\n x", "u:p@h:",
        "a:" + " " * 200, " ", "token: \n", "name: token\n", "&amp;", "mysql -", "key", "-u", "'token', ",
        "key" + "\\" * 500, "-eyJ-", "a:// ", "a://", "sk---", "PRIVATE KEY" + " " * 500, "token:<",
        "token:##", "token: the ", "password: [", 'secret: "" ', "token=$(",
    ],
)  # fmt: skip
def test_the_time_for_a_long_text_is_bounded(piece: str) -> None:
    """The time that a pattern needs must not grow with the square of the text's length.

    With such a pattern, this test exceeds its limit of CPU time.
    """
    cluster_text((piece * MAX_READ)[:MAX_READ])


def test_every_text_of_an_object_is_cleaned_and_nothing_else_is_changed() -> None:
    body = {
        "message": f"password={PASSWORD}",
        "conditions": [{"message": "a\x1b[31mb"}, {"message": "fine", "observedGeneration": 3}],
        "reward": {"graders": {"right\x07": 0.5}, "history": [], "latest": None, "done": True},
    }
    assert cluster_object(body) == {
        "message": f"password={REDACTED}",
        "conditions": [{"message": "ab"}, {"message": "fine", "observedGeneration": 3}],
        "reward": {"graders": {"right": 0.5}, "history": [], "latest": None, "done": True},
    }
