"""Whatever secret stands in what a run says of itself, under a telling name or in a telling shape, does not leave."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.cli.report_fact import fact_of
from pilothouse.events.commands import PipelineReported
from pilothouse.events.redaction import (
    _KEY_OF_DATA,
    _KINDS,
    _TOKENS_OF_MODELS,
    MARK,
    is_secret,
    redacted,
    redacted_arguments,
    redacted_text,
)
from pilothouse.events.telemetry import RunEnded
from pilothouse.producers.delivery.batching import Told
from pilothouse.producers.delivery.telling import FREE_TEXTS, without_secrets
from pilothouse.producers.ending import last_words
from pilothouse.producers.surroundings.description import described
from pilothouse.tests.outbox_bench import WHO, MemoryLog, open_run

LETTERS = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"


def letters(least: int, most: int = 0) -> st.SearchStrategy[str]:
    return st.text(LETTERS, min_size=least, max_size=most or least)


secrets = letters(12, 24).map("Zq9".__add__)
"""A value that nothing but its name gives away; it begins as nothing else in these tests does."""

telling = st.sampled_from(
    [
        *("password", "db_password", "DBPassword", "passwords", "PGPASSWD", "smtp-passphrase", "mypassword", "pwd"),
        *(
            "api_key",
            "apiKey",
            "APIKEY",
            "OPENAI_API_KEY",
            "wandb_key",
            "aws_secret_access_key",
            "ssh.key",
            "access-key",
        ),
        *(
            "token",
            "hub_token",
            "HF_TOKEN",
            "push_to_hub_token",
            "auth.token",
            "accessToken",
            "api_tokens",
            "authtoken",
        ),
        *("secret", "client_secret", "secrets", "credentials", "Authorization", "private_key", "basic_auth", "db_pass"),
    ]
)
providers = st.text("abcdefghijklmnopqrstuvwxyz", min_size=3, max_size=9).filter(
    lambda name: name not in _KEY_OF_DATA | _TOKENS_OF_MODELS | _KINDS and not is_secret(name, "Zq9x")
)
"""Who issued it: a name that no list has."""

unlisted = st.builds(
    str.format,
    st.sampled_from(
        [
            *("{0}_key", "{0}Key", "{1}_KEY", "my-{0}-key", "{0}.keys", "{0}_token", "{0}_access_token", "{0}_auth"),
            *("{0}_password", "{0}_pw", "{1}_PWD", "db_{0}_pass", "{0}_passcode", "{0}Secret", "{0}_webhook_url"),
            *("{0}_credentials", "{0}_pat", "{0}_tokens", "{0}_token_list", "{0}_psk"),
        ]
    ),
    providers,
    providers.map(str.upper),
)
shaped = st.one_of(
    letters(16).map(lambda x: "AKIA" + x.upper()),
    letters(36).map("ghp_".__add__),
    letters(30).map("github_pat_".__add__),
    letters(34).map("hf_".__add__),
    letters(24).map("sk-proj-".__add__),
    letters(20).map("glpat-".__add__),
    letters(24).map("xoxb-".__add__),
    letters(35).map("AIza".__add__),
    letters(64).map("pypi-AgEI".__add__),
    st.tuples(letters(20), letters(30), letters(20)).map(lambda x: "eyJ" + ".".join(x)),
    letters(86).map("wandb_v1_".__add__),
    letters(33).map("123456789:AA".__add__),
    letters(80).map(lambda x: f"-----BEGIN RSA PRIVATE KEY-----\n{x}\n-----END RSA PRIVATE KEY-----"),
    letters(80).map(lambda x: f"-----BEGIN OPENSSH PRIVATE KEY-----\n{x}"),
)
plain = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8)
trees = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)
forms = st.sampled_from(
    [
        *("{0}={1}", "--{0}={1}", "--{0} {1}", "-{0} {1}", "x.{0}: {1}", "u=v={0}={1}"),
        *("{{'{0}': '{1}'}}", 'a "{0}":"{1}"', "https://h/p?a=1&{0}={1}&b=2"),
    ]
)
around = st.text(" \n;()[]{}/ä.", max_size=6)


@st.composite
def planted(draw: st.DrawFn, leaf: Any) -> Any:
    """A configuration with `leaf` somewhere inside."""
    for _ in range(draw(st.integers(0, 3))):
        leaf = [draw(trees), leaf] if draw(st.booleans()) else {draw(st.text(max_size=6)): draw(trees), "deep": leaf}
    return {"lr": 0.1, "model": leaf}


@given(telling, secrets, st.data())
def test_what_stands_under_a_telling_name_does_not_leave(name: str, secret: str, data: st.DataObject) -> None:
    value = data.draw(st.sampled_from([secret, [secret, 1], {"user": "me", "x": secret}, (secret,)]))
    config = data.draw(planted({name: value}))
    fields = described({"config": config, "tags": {name: secret}, "links": {name: secret}})
    assert secret not in json.dumps(fields)
    assert fields["config"]["lr"] == 0.1


@given(unlisted, secrets, st.data())
def test_what_stands_under_a_telling_name_of_an_issuer_that_nobody_listed_does_not_leave(
    name: str, secret: str, data: st.DataObject
) -> None:
    value = data.draw(st.sampled_from([secret, [secret, 1], (secret,)]))
    config = data.draw(planted({name: value}))
    fields = described({"config": config, "tags": {name: secret}})
    assert secret not in json.dumps(fields)
    assert secret not in redacted_text(data.draw(forms).format(name, secret))
    assert secret not in " ".join(redacted_arguments([f"--{name}", secret]))


@given(providers | st.sampled_from(["api", "wandb", "comet"]), st.sampled_from(["key", "keys", "token", "pw"]), secrets)
def test_a_name_is_read_with_the_one_around_it(issuer: str, name: str, secret: str) -> None:
    assert redacted({issuer: {name: secret, "mode": "online"}}) == {issuer: {name: MARK, "mode": "online"}}
    assert redacted({issuer: [{name: secret}, 1]}) == {issuer: [{name: MARK}, 1]}


@given(letters(24).map("Zq9".__add__), around)
def test_a_url_that_opens_a_door_by_itself_does_not_tell_how(secret: str, before: str) -> None:
    for url in (
        f"https://hooks.slack.com/services/T0AAAA/B0BBBB/{secret}",
        f"https://discord.com/api/webhooks/123456/{secret}",
        f"https://team.webhook.office.com/webhookb2/{secret}@x/IncomingWebhook/y",
        f"https://x.blob.core.windows.net/c?sv=2024&sig={secret}%3D",
        f"https://b.s3.amazonaws.com/k?X-Amz-Credential=AK&X-Amz-Signature={secret}",
    ):
        assert secret not in redacted_text(f"{before}{url}")
        assert secret not in json.dumps(redacted({"url": url}))


@given(shaped, around, around, st.data())
def test_a_value_of_a_known_shape_does_not_leave_under_whatever_name(
    secret: str, before: str, behind: str, data: st.DataObject
) -> None:
    text = f"{before}{secret}{behind}"
    config = data.draw(planted(data.draw(st.sampled_from([text, [text], {"name": text}, {text: 1}]))))
    fields = described({"config": config, "tags": {"x": text}, "model": text, "dataset": text, "team": text})
    told = json.dumps(fields, ensure_ascii=False)
    assert secret not in told
    assert max(secret.split(), key=len)[-20:] not in told


@given(secrets, letters(1, 8), st.sampled_from(["https", "postgresql+psycopg", "redis", "amqps", "clickhouse"]), around)
def test_the_password_of_a_url_does_not_leave(secret: str, user: str, scheme: str, before: str) -> None:
    said = redacted_text(f"{before}{scheme}://{user}:{secret}@host:123/db?a=b {user}")
    assert secret not in said
    assert said.endswith(f"{scheme}://{user}:{MARK}@host:123/db?a=b {user}")


@given(secrets, telling, forms, around)
def test_a_telling_name_in_a_text_hides_what_follows_it(secret: str, name: str, form: str, before: str) -> None:
    assert secret not in redacted_text(f"{before} {form.format(name, secret)}")


@given(secrets, secrets, st.sampled_from(["Pwd", "Password", "SharedAccessKey"]))
def test_a_connection_string_keeps_its_shape_and_no_part_of_its_password(one: str, other: str, name: str) -> None:
    said = redacted_text(f"Server=h; Port=3;{name}={one} {other};Timeout=5")
    assert said == f"Server=h; Port=3;{name}={MARK};Timeout=5"


@given(secrets, telling, st.lists(st.sampled_from(["--lr", "0.1", "-v", "train.py", "--out", "/x"]), max_size=4))
def test_a_command_line_does_not_tell_what_follows_a_telling_option(secret: str, name: str, other: list[str]) -> None:
    assert secret not in " ".join(redacted_arguments([*other, f"--{name}", secret, *other]))
    assert secret not in " ".join(redacted_arguments([*other, f"{name}={secret}", *other]))
    assert redacted_arguments([*other, f"--{name}", secret, "x"])[-1] == "x"


@given(shaped, secrets, telling | unlisted, forms, around)
def test_errors_notes_and_reasons_of_a_run_do_not_tell_a_secret(
    token: str, secret: str, name: str, form: str, before: str
) -> None:
    text = f"{before} {form.format(name, secret)}\n{token} https://me:{secret}@host/x"
    said = {"error": text, "note": text, "who": text, "subject": text, "reason": text, "step": 1}
    for fact, fields in FREE_TEXTS.items():
        told = without_secrets(Told(WHO, 0, fact, {name: said[name] for name in (*fields, "step")}))
        assert told.fields["step"] == 1
        assert secret not in str(told) + last_words(text)
        assert token not in str(told) + last_words(text)


def test_what_a_script_and_a_person_say_leaves_redacted(tmp_path: Path) -> None:
    log = MemoryLog()
    run = open_run(tmp_path, log)
    run.report_fact("promotion", who="ci", subject="gpt-7", note="deployed with --api-key Zq9secret")
    error = ConnectionError("GET https://me:Zq9secret@host/x: Authorization: Bearer Zq9secretabc")
    run.__exit__(ConnectionError, error, None)
    (reported,), (ended,) = log.of(PipelineReported), log.of(RunEnded)
    assert reported.note == f"deployed with --api-key {MARK}"
    assert "Zq9" not in ended.error
    assert "ConnectionError: GET https://me:" in ended.error
    said = {"fact": "promotion", "who": "ci", "subject": "gpt-7", "numbers": {}, "note": "with --api-key Zq9secret"}
    assert fact_of("run-1", said, 1, "").note == f"with --api-key {MARK}"


@given(trees | planted(shaped) | st.text(st.sampled_from("=: -@/'\"[]apikeytoken"), max_size=60))
def test_what_is_redacted_stays_as_it_is(value: Any) -> None:
    once = redacted(value)
    assert redacted(once) == once


@pytest.mark.parametrize(
    "harmless",
    [
        {"pad_token": "<pad>", "eos_token_id": 2, "max_tokens": 512, "tokens": 1e9, "tokenizer": "gpt2"},
        {"stop_tokens": ["x"], "tokens_per_s": 3.5, "token_dropout": "none"},
        {"use_auth_token": True, "hub_token": None, "password": "", "key": "value", "sort_key": "loss", "keys": ["a"]},
        {"compass": 1, "n_pass": 3, "forward_pass": "full", "secretary": "x", "passes": 2, "author": "me", "token": 3},
        {"out": "s3://bucket/x", "git": "ssh://git@github.com/x", "url": "http://localhost:8080/a", "commit": "a" * 40},
        {"text": "lr=0.1 loss: 2.5 tokens/s: 300 eta 10:20:30", "args": ["--lr", "0.1", "--pad-token", "<pad>"]},
        {"image_key": "img512x512", "text_key": "text", "sort_key": "val_loss2", "my_key": "input_ids"},
        {"optimizer": {"key": "adam"}, "data": {"key": "image", "tokens": 300}, "keys": ["loss", "acc"], "key": "a1"},
        {"special_tokens": ["a", "b"], "tokens": ["<s>", "[MASK]"], "pat": 3, "pw": 1.5, "sig": "sigmoid", "tok": None},
        {"model": {"token": 5}, "signature": "f(x, y)", "public": {"key": "x"}, "text": "sort_key=loss group-key: a"},
        {"schedule": [[0, 1], [1.5, None]], "sk": "sk-short", "risk-averse": "task-a", "path": "/a/b:c/d"},
    ],
)  # fmt: skip
def test_what_is_no_secret_is_told_as_it_was_given(harmless: dict[str, Any]) -> None:
    assert redacted(harmless) == harmless


def test_the_shape_of_what_is_hidden_stays() -> None:
    assert redacted({"auth": {"user": "me", "on": True, "codes": [1, None]}}) == {
        "auth": {"user": MARK, "on": True, "codes": [MARK, None]}
    }


def test_an_object_that_holds_a_secret_is_read_before_it_is_redacted() -> None:
    assert described({"config": Namespace(lr=0.1, api_key="Zq9x")})["config"] == {"lr": 0.1, "api_key": MARK}


def test_a_number_under_a_strong_name_is_a_secret() -> None:
    assert is_secret("password", 12345)
    assert not is_secret("token", 12345)


@pytest.mark.parametrize(
    "text", ["a=" * 20_000, "-a " * 20_000, "x://" * 20_000, "eyJ" + "a" * 60_000, "a" * 60_000 + "@"]
)
def test_a_long_text_is_read_in_time(text: str) -> None:
    assert len(redacted_text(text)) > 0  # a pattern that backtracks would not end
