"""The graders http and model, with real servers. A failed request does not change other requests' scores."""

import datetime
import ipaddress
import logging
import math
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from rft_api.graders import Grader, Scale
from rft_graders import post, service
from rft_graders.remote import CONCURRENCY
from rft_graders.reply import parse_score
from rft_graders.row_fields import required_fields
from rft_graders.scorer import Scorer
from rft_graders.template import filled
from rft_graders.tokens import token_reader
from rft_graders.types import GradeItem, Score, ScoredBatch
from rft_run.errors import ConfigurationError, DataError, Preempted
from rft_trainer.data.whole import load_rows
from tests.speed import assert_linear
from tests.trainer.grader_service import Answer, Asked, Respond, Service, serving

TOKEN = "token-that-nobody-sees"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "WAITS_SECONDS", (0.01, 0.01, 0.01))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def grader(url: str, **settings: object) -> Grader:
    return Grader.model_validate({"name": "web", "http": {"url": url}, **settings})


def judge(url: str, prompt: str = "{prompt} {completion}", **settings: object) -> Grader:
    model = {"url": url, "model": "judge-1", "prompt": prompt}
    return Grader.model_validate({"name": "judge", "model": model, **settings})


def item(completion: str, **fields: object) -> GradeItem:
    return GradeItem([{"role": "user", "content": "question"}], completion, fields)


def scored(one: Grader, *completions: str) -> ScoredBatch:
    with Scorer([one]) as scorer:
        return scorer.score([item(completion) for completion in completions])


def each(score: object) -> Respond:
    """Return a handler that returns this score for every item of a grading request."""
    return lambda asked: Answer({"scores": [score] * len(asked.body["items"])})


def one_by_one(*answers: Answer) -> Respond:
    """Return a handler that sends these responses in order. Later requests get the score 1 for each item."""
    left = iter(answers)
    return lambda asked: next(left, None) or each(1)(asked)


# --- the protocol of http -------------------------------------------------------------------


def test_a_service_receives_a_batch_and_returns_scores_by_id() -> None:
    def respond(asked: Asked) -> Answer:
        scores = [{"id": one["id"], "score": len(one["completion"]) / 10} for one in asked.body["items"]]
        return Answer({"scores": scores[::-1]})

    with serving(respond) as web, Scorer([grader(web.url)]) as scorer:
        batch = scorer.score([item("two", answer=2), item("three", answer=[3])])
    assert [score.reward for score in batch] == [0.3, 0.5]
    messages = [{"role": "user", "content": "question"}]
    assert web.asked[0].body == {
        "version": 1,
        "grader": "web",
        "items": [
            {"id": 0, "messages": messages, "completion": "two", "row": {"answer": 2}},
            {"id": 1, "messages": messages, "completion": "three", "row": {"answer": [3]}},
        ],
    }
    assert "Authorization" not in web.asked[0].headers


def test_plain_numbers_are_scores_in_order_and_a_scale_maps_them() -> None:
    with serving(lambda _: Answer({"scores": [5, 10]})) as web:
        batch = scored(grader(web.url, scale={"min": 0, "max": 10}), "a", "b")
    assert [score.reward for score in batch] == [0.5, 1.0]


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"id": 0, "score": "1"}, "the score is not a number"),
        ({"id": 0, "score": None}, "the score is missing"),
        ({"id": 0, "score": math.nan}, "the score is nan, not a finite number"),
        ({"id": 0, "score": 10**400}, "the score is not finite"),
        ({"id": 0, "score": 1.5}, "the score 1.5 is outside the grader's scale, 0…1"),
        ({"id": 0, "error": "cannot say"}, "cannot say"),
        ({"id": 0, "error": "x" * 100_000}, "x" * 500),
        ({"id": 7, "score": 1}, "the service sent no scores with the id of this item"),
        ({"id": "0", "score": 1}, "the service sent no scores with the id of this item"),
        ({"id": True, "score": 1}, "the service sent no scores with the id of this item"),
        ({"id": 1, "score": 1}, "the service sent no scores with the id of this item"),
        (1, "the service sent no scores with the id of this item"),
    ],
)
def test_an_invalid_entry_is_an_error_of_its_item_only(bad: object, error: str) -> None:
    good = {"id": 2, "score": 1}
    with serving(lambda _: Answer({"scores": [bad, {"id": 1, "score": 0.5}, good]})) as web:
        first, _, last = scored(grader(web.url), "a", "b", "c")
    assert first == Score(None, {}, {"web": error})  # http graders have onError drop by default
    assert last == Score(1.0, {"web": 1.0}, {})


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<html>", "something that is not JSON"),
        (b"", "something that is not JSON"),
        (b"[" * 100_000, "something that is not JSON"),
        ([1, 1], "not a JSON object with a list under the key scores"),
        ({"scores": {"0": 1}}, "not a JSON object with a list under the key scores"),
        ({"scores": [1]}, "1 scores for 2 items; send one for each, or use ids"),
        (b" " * (post.MAX_ANSWER_BYTES + 1), f"more than {post.MAX_ANSWER_BYTES} bytes"),
    ],
)
def test_an_invalid_response_is_an_error_of_its_batch_and_not_retried(body: object, error: str) -> None:
    with serving(lambda _: Answer(body)) as web:
        batch = scored(grader(web.url), "a", "b")
    assert len(web.asked) == 1
    assert all(error in score.errors["web"] and score.reward is None for score in batch)


def test_batches_have_limits_of_items_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(each(1)) as web:
        scored(grader(web.url), *["x"] * (2 * service.MAX_ITEMS + 1))
        sizes = sorted(len(asked.body["items"]) for asked in web.asked)
        assert sizes == [1, service.MAX_ITEMS, service.MAX_ITEMS]
        web.asked.clear()
        monkeypatch.setattr(service, "MAX_BODY_BYTES", 3000)
        small, large, other = scored(grader(web.url), "a" * 1500, "b" * 3000, "c" * 1500)
    assert [len(asked.body["items"]) for asked in web.asked] == [1, 1]
    assert "exceed 3000 bytes together" in large.errors["web"]
    assert small.reward == other.reward == 1.0


# --- tries, time and addresses --------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        Answer(b"starting", status=503),
        Answer(status=500),
        Answer(status=429, headers={"Retry-After": "0"}),
        Answer(status=429, headers={"Retry-After": "soon"}),
    ],
)
def test_a_service_that_recovers_within_the_retries_causes_no_error(first: Answer) -> None:
    with serving(one_by_one(first, first, first)) as web:
        assert scored(grader(web.url), "a")[0] == Score(1.0, {"web": 1.0}, {})
        assert len(web.asked) == 4


def test_a_service_that_keeps_failing_is_called_four_times() -> None:
    with serving(lambda _: Answer(b"out of order", status=500)) as web:
        batch = scored(grader(web.url), "a", "b")
    assert len(web.asked) == 4
    assert batch.error_counts == {"web": 2}
    assert batch.mostly_errors
    assert batch[0].errors["web"] == f"http://127.0.0.1:{web.port} answered 500: out of order (after 4 tries)"


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_request_that_the_service_refuses_is_not_retried(status: int) -> None:
    with serving(lambda _: Answer(b"no such thing", status=status)) as web:
        score = scored(grader(web.url, onError="zero"), "a")[0]
    assert len(web.asked) == 1
    assert score.reward == 0.0
    assert f"answered {status}: no such thing" in score.errors["web"]


def test_each_try_of_a_slow_service_ends_at_the_timeout() -> None:
    def respond(_: Asked) -> Answer:
        web.released.wait()
        return Answer()

    with serving(respond) as web:
        score = scored(grader(web.url, timeoutSeconds=0.2), "a")[0]
        assert len(web.asked) == 4
    assert "did not answer within 0.2 s (after 4 tries)" in score.errors["web"]


def test_a_response_that_arrives_too_slowly_ends_at_the_timeout() -> None:
    def drip() -> Iterator[bytes]:
        while not web.released.wait(0.02):
            yield b" "

    with serving(lambda _: Answer(drip())) as web:
        score = scored(grader(web.url, timeoutSeconds=0.2), "a")[0]
    assert "did not answer within 0.2 s" in score.errors["web"]


def test_an_unreachable_address_is_retried_and_named_in_the_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        score = scored(grader(f"{address}/secret/path?key=secret"), "a")[0]
    assert score.errors["web"].startswith(f"{address}: ")
    assert "(after 4 tries)" in score.errors["web"]
    assert "secret" not in score.errors["web"]


def test_a_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFT_SECRET_WEB_KEY", TOKEN)
    with serving(each(1)) as other:
        with serving(lambda _: Answer(status=307, headers={"Location": other.url})) as web:
            score = scored(with_token(web), "a")[0]
        assert len(web.asked) == 1
        assert other.asked == []
    assert "answered 307: redirects are not followed" in score.errors["web"]


def test_an_untrusted_certificate_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(each(1), self_signed(tmp_path)) as web:
        score = scored(grader(web.url), "a")[0]
        assert web.asked == []
        assert "CERTIFICATE_VERIFY_FAILED" in score.errors["web"]
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "pair.pem"))
        assert scored(grader(web.url), "a")[0].reward == 1.0


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    address = ipaddress.ip_address("127.0.0.1")
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(address)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "pair.pem").write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "pair.pem")
    return context


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("-1", 0.0), ("nan", 0.0), ("", 0.0), ("soon", 0.0), ("1e9", post.MAX_RETRY_AFTER_SECONDS)],
)
def test_retry_after_is_limited(header: str, seconds: float) -> None:
    assert post._retry_after(header) == seconds


def test_the_retry_waits_as_long_as_retry_after_says() -> None:
    with (
        serving(lambda _: Answer(status=429, headers={"Retry-After": "3600"})) as web,
        Scorer([grader(web.url)]) as scorer,
        pytest.raises(Preempted),
    ):
        scorer.score([item("a")], should_stop=lambda: bool(web.asked))
    assert len(web.asked) == 1


def test_retry_after_may_be_a_date() -> None:
    assert post._retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert post._retry_after("Wed, 21 Oct 2115 07:28:00 GMT") == post.MAX_RETRY_AFTER_SECONDS


def test_the_number_of_concurrent_requests_is_limited() -> None:
    together = threading.Barrier(CONCURRENCY)
    lock = threading.Lock()
    now, most = 0, 0

    def respond(_: Asked) -> Answer:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait(20)  # all allowed requests must arrive before any is answered
        with lock:
            now -= 1
        return chat("1")

    with serving(respond) as web:
        batch = scored(judge(web.url), *["x"] * (3 * CONCURRENCY))
    assert batch.error_counts == {}
    assert most == CONCURRENCY


def test_grading_by_a_service_can_be_stopped() -> None:
    def respond(_: Asked) -> Answer:
        web.released.wait()
        return Answer()

    with (
        serving(respond) as web,
        Scorer([grader(web.url, timeoutSeconds=600)]) as scorer,
        pytest.raises(Preempted),
    ):
        scorer.score([item("a")], should_stop=lambda: len(web.asked) == 1)


def test_graders_of_all_kinds_score_the_same_completions() -> None:
    with serving(lambda asked: chat("0.5") if "chat" in asked.path else each(1)(asked)) as web:
        other = [{"name": "math", "math": {}}, {"name": "exact", "exactMatch": {}}]
        code = {"name": "code", "python": {"inline": "def grade(completion, row): return 0"}}
        graders = [grader(web.url), judge(web.url), *map(Grader.model_validate, [*other, code])]
        with Scorer(graders) as scorer:
            scores = scorer.score([item("$1/2$", answer="0.5")])[0].per_grader
    assert scores == {"web": 1.0, "judge": 0.5, "math": 1.0, "exact": 0.0, "code": 0.0}


@pytest.mark.parametrize("url", ["http://:80", "http://[::1", "https://host:port/"])
def test_an_invalid_address_is_refused_before_the_run(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"grader web: http\.url is not a valid URL"):
        Scorer([grader(url)])


# --- tokens ---------------------------------------------------------------------------------


def with_token(web: Service, **settings: object) -> Grader:
    secret = {"name": "service-key", "key": "key"}
    return Grader.model_validate({"name": "web", "http": {"url": web.url, "secretRef": secret}, **settings})


@pytest.mark.parametrize(
    "answer",
    [
        Answer(f"bad header: Bearer {TOKEN}".encode(), status=401),
        Answer(("x" * 190 + TOKEN).encode(), status=500),
        Answer({"scores": [{"id": 0, "error": f"{'x' * 490}{TOKEN}"}]}),
        Answer({"scores": [{"id": 0, "score": 1}]}),
    ],
)
def test_a_token_is_sent_and_appears_nowhere_else(
    answer: Answer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RFT_SECRET_WEB_KEY", f"{TOKEN}\n")
    caplog.set_level(logging.DEBUG)
    with serving(lambda _: answer) as web:
        score = scored(with_token(web), "a")[0]
    assert web.asked[0].headers["Authorization"] == f"Bearer {TOKEN}"
    seen = f"{score} {caplog.text}"
    assert not any(TOKEN[:length] in seen for length in range(8, len(TOKEN) + 1))


def test_a_mounted_secret_takes_precedence_and_is_read_at_each_use(tmp_path: Path) -> None:
    one = Grader.model_validate(
        {"name": "web", "http": {"url": "http://x", "secretRef": {"name": "s", "key": "key"}}}
    )
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "key").write_text("first\n")
    read = token_reader(one, str(tmp_path), {"RFT_SECRET_WEB_KEY": "other"})
    assert read() == "first"
    (tmp_path / "web" / "key").write_text("second\n")
    assert read() == "second"
    assert token_reader(one, str(tmp_path / "absent"), {"RFT_SECRET_WEB_KEY": "other"})() == "other"
    (tmp_path / "web" / "key").write_text("two words")
    with pytest.raises(ConfigurationError, match="web/key has white space") as caught:
        read()
    assert "two words" not in str(caught.value)


def test_the_error_for_a_missing_token_names_the_variable_to_set() -> None:
    secret = {"name": "judge-key", "key": "api.key"}
    one = Grader.model_validate(
        {
            "name": "my-judge",
            "model": {"url": "http://x", "model": "m", "prompt": "{completion}", "secretRef": secret},
        }
    )
    with pytest.raises(ConfigurationError, match="environment variable RFT_SECRET_MY_JUDGE_API_KEY"):
        Scorer([one])


# --- the judge ------------------------------------------------------------------------------


def chat(text: object) -> Answer:
    return Answer({"choices": [{"message": {"role": "assistant", "content": text}}]})


def cut(text: str) -> Answer:
    return Answer({"choices": [{"message": {"content": text}, "finish_reason": "length"}]})


def test_a_judges_answer_that_was_cut_at_max_tokens_counts_with_a_whole_object() -> None:
    with serving(lambda _: cut('{"score": 0.5}\nThe reason is')) as web:
        model = {"url": web.url, "model": "judge-1", "prompt": "{completion}", "maxTokens": 9}
        assert scored(Grader.model_validate({"name": "judge", "model": model}), "a")[0].reward == 0.5
    assert web.asked[0].body["max_tokens"] == 9


@pytest.mark.parametrize("piece", ["1", "1/", "1 ", "I ", ". ", "(", "\n", "*_1", '{"', '{"a":', "[{"])
def test_reading_a_judges_answer_takes_linear_time(piece: str) -> None:
    def read(size: int) -> None:
        with pytest.raises(ValueError, match="named"):
            parse_score(piece * (size // len(piece)), None)

    assert_linear(read, 2_000)


def test_the_request_to_a_judge_contains_row_and_completion() -> None:
    prompt = 'Q: {prompt} A: {completion} Right: {answer} {notes} Reply {{"score": x}}'
    with serving(lambda _: chat('{"score": 8, "why": "of 10"}')) as web:
        base = web.url.removesuffix("/score") + "/v1/"
        with Scorer([judge(base, prompt, scale={"min": 0, "max": 10})]) as scorer:
            score = scorer.score([item("Give {answer} 10", answer="42", notes=["a", 1])])[0]
    assert score == Score(0.8, {"judge": 0.8}, {})
    assert web.asked[0].path == "/v1/chat/completions"
    content = 'Q: question A: Give {answer} 10 Right: 42 ["a", 1] Reply {"score": x}'
    assert web.asked[0].body == {
        "model": "judge-1",
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": 512,
    }


@pytest.mark.parametrize(
    ("text", "scale", "score"),
    [
        ('{"score": 0.25}', None, 0.25),
        ('Clear, 9 of 10.\n```json\n{"score": 0.5, "steps": {"a": 7}}\n```\nThat was 1.', None, 0.5),
        ('First {"score": 0} but then {"score": 1}', None, 1.0),
        ('{"score": "0.75"}', None, 0.75),
        ("I give it 0.5.", None, 0.5),
        ("Two of 3 steps hold.\nScore: 0.5", None, 0.5),
        ("**8/10**", Scale(min=0, max=10), 8.0),
        ("Score: 8 / 10.", Scale(min=1, max=10), 8.0),
        ("{" * 19_000 + '{"score": 1}', None, 1.0),
        ('The form is {"score": <number>}. {"score": 0.5}', None, 0.5),
        ('[{"result": {"score": {"value": 0.5, "max": 1}}}]', None, 0.5),
    ],
)
def test_the_judges_score_is_in_the_last_json_object_else_in_a_sentence_of_its_own(
    text: str, scale: Scale | None, score: float
) -> None:
    assert parse_score(text, scale) == score


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (chat("It depends on what one means by good, and on whom one asks. " * 200), "named no score"),
        (chat(""), "named no score"),
        (chat('{"score": null, "reason": "2 errors"}'), "named no score"),
        (chat('{"score": NaN}'), "named no score"),
        (chat("Founded in 1987"), "named no score"),
        (chat("1987"), "the score 1987 is outside the grader's scale, 0…1"),
        (chat('{"score": 1, "score": 0}'), "named no score"),
        (chat('{"score": 0} or rather {"score": 1'), "named no score"),
        (chat('{"score": 1' + "0" * 400 + "}"), "named no score"),
        (chat("Score: 1\nScore: 0"), "named several scores"),
        (cut("Score: 1"), "was cut before its score: raise model.maxTokens"),
        (cut('{"score": 1'), "was cut before its score: raise model.maxTokens"),
        (chat(None), "is not a text"),
        (Answer({"error": "overloaded"}), "no choices[0].message.content"),
        (Answer([]), "no choices[0].message.content"),
    ],
)
def test_a_judges_answer_without_a_score_counts_as_an_error(answer: Answer, error: str) -> None:
    with serving(lambda _: answer) as web:
        batch = scored(judge(web.url), "a")
    assert error in batch[0].errors["judge"]
    assert batch[0].reward is None
    assert batch.error_counts == {"judge": 1}


def test_the_judges_prompt_contains_every_message_of_a_conversation() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    assert filled("{prompt}|{completion}", "So.", {"messages": messages}) == (
        "system: Be brief.\n\nuser: Why?|So."
    )


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ("{completion.__class__}", r"\{completion.__class__\}: only names"),
        ("{answer[x]}", "only names of row fields"),
        ("{answer!r}", "only names of row fields"),
        ("{answer:>1000000000}", "only names of row fields"),
        ("{}", "only names of row fields"),
        ('Reply {"score": 1}', "only names of row fields"),
        ("{completion", "write {{ and }}"),
        ("}", "write {{ and }}"),
    ],
)
def test_an_invalid_instruction_is_refused_before_the_run(prompt: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=f"grader judge: model.prompt: .*{problem}"):
        Scorer([judge("http://x", prompt)])


def test_a_row_that_lacks_a_field_of_the_instruction_is_reported_with_its_line(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    turn: Any = '"messages": [{"role": "user", "content": "q"}]'
    rows.write_text(f'{{{turn}, "rubric": ["short"]}}\n{{{turn}}}\n')
    needs = required_fields([judge("http://x", "{rubric} {prompt} {completion} {messages}")])
    with pytest.raises(DataError, match=r"^line 2: field rubric is missing \(grader judge\)$"):
        load_rows(rows, needs)
