"""Starts a server that speaks S3, with or without a check of credentials."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

REGION = "us-east-1"
RIGHTS = ("s3:ListBucket", "s3:GetObject", "s3:PutObject")
"""The rights to list, read and write, which are those that docs/use-the-result.md names."""


class Keys(NamedTuple):
    """The credentials of a user of the server."""

    key_id: str
    secret: str


@contextmanager
def serving_s3(host: str = "127.0.0.1") -> Iterator[str]:
    """Start a server at an address of this machine, and yield its URL. It accepts all credentials."""
    pytest.importorskip("s3fs")
    moto_server = pytest.importorskip("moto.server")
    serving = moto_server.ThreadedMotoServer(ip_address=host, port=0, verbose=False)
    serving.start()
    try:
        _, port = serving.get_host_and_port()
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    finally:
        serving.stop()


@contextmanager
def with_a_writer(address: str, bucket: str) -> Iterator[Keys]:
    """Create an empty bucket, and a user with ``RIGHTS`` in all buckets. Yield the user's credentials.

    During the ``with`` block, all servers of this process refuse wrong credentials and missing rights.
    """
    authorization = pytest.importorskip("moto.core.authorization")
    anybody = Keys("key", "hidden")
    iam = client("iam", address, anybody)
    iam.create_user(UserName="writer")
    statement = {"Effect": "Allow", "Action": RIGHTS, "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName="writer", PolicyName="writes", PolicyDocument=policy)
    made = iam.create_access_key(UserName="writer")["AccessKey"]
    client("s3", address, anybody).create_bucket(Bucket=bucket)
    with authorization.enable_iam_authentication():
        yield Keys(made["AccessKeyId"], made["SecretAccessKey"])


def client(service: str, address: str, keys: Keys) -> Any:
    """Return a client of a service of the server, such as ``s3``."""
    boto3 = pytest.importorskip("boto3")
    return boto3.client(
        service, endpoint_url=address, region_name=REGION, aws_access_key_id=keys.key_id,
        aws_secret_access_key=keys.secret,
    )  # fmt: skip


def variables(address: str, keys: Keys) -> dict[str, str]:
    """Return the environment variables that lead the clients of S3 to the server."""
    return {
        "AWS_ACCESS_KEY_ID": keys.key_id, "AWS_SECRET_ACCESS_KEY": keys.secret, "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": address,
    }  # fmt: skip
