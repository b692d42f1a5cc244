"""Destinations of rft push: which are accepted, and how an error corrects a wrong one."""

import pytest

from rft_run.destination import HubDestination, S3Destination, read_destination


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("hf://team/my-adapter", HubDestination("team/my-adapter")),
        ("hf://team/my.adapter_2@v1.0/x", HubDestination("team/my.adapter_2", "v1.0/x")),
        ("s3://bucket/a", S3Destination("s3://bucket/a")),
        ("s3://bucket.of.mine/a/b=c/", S3Destination("s3://bucket.of.mine/a/b=c")),
    ],
)
def test_a_destination_is_read_and_shown(text: str, found: HubDestination | S3Destination) -> None:
    assert read_destination(text) == found
    assert str(found) == text.rstrip("/")


@pytest.mark.parametrize(
    ("text", "correction"),
    [
        ("team/my-adapter", "write hf://team/my-adapter"),
        ("hf://my-adapter", "write for instance hf://my-name/my-adapter"),
        ("hf://team/my adapter", "write hf://team/my-adapter"),
        ("hf://team/a--b@v1", "write hf://team/a-b@v1"),
        ("hf://team/a@my branch", "write hf://team/a@my-branch"),
        ("hf://team/a@", "write for instance hf://team/a"),
        ("s3://bucket", "write for instance s3://my-bucket/my-adapter"),
        ("s3://Bucket/my adapter", "write s3://bucket/my-adapter"),
        ("s3a://bucket/x", "write s3://bucket/x"),
        ("gs://bucket/x", "allowed are hf://OWNER/NAME, hf://OWNER/NAME@REVISION and s3://BUCKET/PREFIX"),
        ("s3://bucket/../x", "write s3://bucket/x"),
    ],
)
def test_a_wrong_destination_is_refused_with_the_corrected_one(text: str, correction: str) -> None:
    with pytest.raises(ValueError, match="write ") as caught:
        read_destination(text)
    assert correction in str(caught.value)
